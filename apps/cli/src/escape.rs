//! Text from an attacker must not speak to the terminal.
//!
//! Paths, arguments and names of processes are chosen by whoever runs them. Shown raw, they could move the cursor,
//! recolour a line, answer on the user's behalf or, with bidirectional controls, read as something else.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character could change how the text around it is shown, or is itself not shown.
pub(crate) fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'        // zero width, left-to-right and right-to-left marks
            | '\u{2028}'..='\u{202e}'        // line and paragraph separators, embeddings, overrides
            | '\u{2060}'..='\u{206f}'        // word joiner, invisible operators, isolates
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'        // interlinear annotation
            | '\u{e0000}'..='\u{e007f}'      // tags
        )
}

/// `text` with every treacherous character written out, such as `\x1b` or `\u{202e}`.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_treacherous) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_treacherous(c) && u32::from(c) < 0x100 => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if is_treacherous(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Text of several lines, escaped but for its line ends and, where `colours` are wanted, colour sequences (ECMA-48 SGR).
pub(crate) fn lines(text: &str, colours: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let coloured = if colours { colour_sequence(rest) } else { None };
        let (head, tail) = rest.split_at(coloured.unwrap_or(c.len_utf8()));
        if coloured.is_some() || c == '\n' {
            out.push_str(head);
        } else {
            out.push_str(&plain(head));
        }
        rest = tail;
    }
    out
}

/// The length of a colour sequence that `text` begins with: `ESC [`, digits and semicolons, `m`.
fn colour_sequence(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

/// An argument vector as a person would type it: arguments with spaces or none at all are quoted.
pub(crate) fn command_line(args: &[String]) -> String {
    let mut out = String::new();
    for arg in args {
        if !out.is_empty() {
            out.push(' ');
        }
        let bare = !arg.is_empty() && !arg.contains([' ', '"', '\'', '|', ';', '&', '$', '<', '>', '`']);
        if bare {
            out.push_str(arg);
        } else {
            let _ = write!(out, "\"{}\"", arg.replace('\\', "\\\\").replace('"', "\\\""));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_out_what_terminals_obey() {
        assert_eq!(plain("\u{1b}[2Jnginx"), "\\x1b[2Jnginx");
        assert_eq!(plain("exe\u{202e}gpj"), "exe\\u{202e}gpj");
        assert_eq!(plain("a\nb\u{9b}c"), "a\\nb\\x9bc");
        assert_eq!(plain("größe 矿"), "größe 矿");
    }

    #[test]
    fn quotes_as_a_shell_would_want_it() {
        let args = ["sh", "-c", "curl \"x\" | sh", ""].map(str::to_owned);
        assert_eq!(command_line(&args), r#"sh -c "curl \"x\" | sh" """#);
    }

    #[test]
    fn lines_let_colours_pass_and_nothing_else() {
        let text = "a\x1b[1;31mb\x1b[0m\n\x1b[2Jc\x1b";
        assert_eq!(lines(text, true), "a\x1b[1;31mb\x1b[0m\n\\x1b[2Jc\\x1b");
        assert_eq!(lines(text, false), "a\\x1b[1;31mb\\x1b[0m\n\\x1b[2Jc\\x1b");
    }

    proptest! {
        #[test]
        fn lines_leave_line_ends_alone(text in any::<String>()) {
            let out = lines(&text, false);
            prop_assert!(!out.chars().any(|c| is_treacherous(c) && c != '\n'));
            prop_assert_eq!(out.matches('\n').count(), text.matches('\n').count());
        }

        #[test]
        fn nothing_treacherous_is_left(text in any::<String>()) {
            prop_assert!(!plain(&text).chars().any(is_treacherous));
        }
    }
}
