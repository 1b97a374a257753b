use davy_model::SetAside;
use yara_x::{Compiler, SourceCode};

/// Rules as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSource {
    /// Where they are from: a file's name, or `davy` for what is built in. Names of rules are unique within an origin only.
    pub origin: String,
    /// In YARA's language. `include` is not followed: nothing here can open a file.
    pub text: String,
}

/// Compiled rules.
#[derive(Debug)]
pub struct Rules {
    pub(crate) compiled: yara_x::Rules,
    aside: Vec<SetAside>,
}

impl Rules {
    /// Compiles what can be. A rule that is broken, or so written that every byte must be tried against it, is set aside by
    /// name; the others take part.
    #[must_use]
    pub fn compile(sources: &[RuleSource]) -> Self {
        let mut compiler = Compiler::new();
        compiler.colorize_errors(false).enable_includes(false).switch_all_warnings(false);
        compiler.error_on_slow_pattern(true).error_on_slow_loop(true).relaxed_re_syntax(true);
        let mut aside = Vec::new();
        for source in sources {
            let known = compiler.errors().len();
            compiler.new_namespace(&source.origin);
            let code = SourceCode::from(source.text.as_str()).with_origin(source.origin.as_str());
            if compiler.add_source(code).is_err() {
                let errors = &compiler.errors()[known..];
                aside.extend(errors.iter().map(|error| {
                    let at = error.labels().next().map_or(0, |label| label.span().start());
                    SetAside {
                        rule: rule_at(&source.text, at).unwrap_or(&source.origin).to_owned(),
                        origin: source.origin.clone(),
                        reason: reason(error),
                    }
                }));
            }
        }
        Self { compiled: compiler.build(), aside }
    }

    /// How many take part.
    #[must_use]
    pub fn len(&self) -> usize {
        self.compiled.iter().len()
    }

    /// Their names, in the order of the sources.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.compiled.iter().map(|rule| rule.identifier().to_owned())
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rules that do not take part, and why.
    #[must_use]
    pub fn aside(&self) -> &[SetAside] {
        &self.aside
    }
}

/// A compiler's error in one line with what it points at.
fn reason(error: &yara_x::errors::CompileError) -> String {
    match error.labels().next().map(|label| label.text().to_owned()) {
        Some(label) if !label.is_empty() => format!("{}: {label}", error.title()),
        _ => error.title().to_owned(),
    }
}

/// The name of the rule that byte `at` of a source lies in: the last one that begins before.
fn rule_at(text: &str, at: usize) -> Option<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices("rule")
        .take_while(|(place, _)| *place <= at)
        .filter_map(|(place, word)| {
            let begins = !text[..place].ends_with(is_name);
            let rest = text[place + word.len()..].strip_prefix(char::is_whitespace)?.trim_start();
            let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
            // In prose and in strings the word stands too; a rule has its tags or its body behind its name.
            let follows = rest[name.len()..].trim_start().starts_with([':', '{']);
            (begins && follows && !name.is_empty()).then_some(name)
        })
        .last()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn source(origin: &str, text: &str) -> RuleSource {
        RuleSource { origin: origin.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn what_is_broken_is_named_and_the_others_take_part() {
        let text = r#"
            rule good { strings: $a = "stratum" condition: $a }
            rule broken { strings: $a = "x" condition: $b }
            private rule slow: tag { strings: $a = "q" condition: $a }
            rule also_good { condition: filesize > 10 }"#;
        let rules =
            Rules::compile(&[source("mine.yar", text), source("other.yar", "rule good { condition: true }")]);
        assert_eq!(rules.len(), 3);
        let named: Vec<_> = rules.aside().iter().map(|a| (a.rule.as_str(), a.origin.as_str())).collect();
        assert_eq!(named, [("broken", "mine.yar"), ("slow", "mine.yar")], "{:?}", rules.aside());
    }

    #[test]
    fn what_is_no_rule_at_all_is_told_by_its_file() {
        let rules = Rules::compile(&[
            source("odd.yar", "this is prose\n"),
            source("b.yar", "rule b { condition: false }"),
        ]);
        assert_eq!(rules.len(), 1);
        assert_eq!(rules.aside()[0].rule, "odd.yar");
        assert!(!rules.aside()[0].reason.is_empty());
    }

    #[test]
    fn nothing_is_included() {
        let rules = Rules::compile(&[source("a.yar", "include \"/etc/passwd\"\nrule a { condition: true }")]);
        assert_eq!((rules.aside().len(), rules.len()), (1, 1), "{:?}", rules.aside());
    }
}
