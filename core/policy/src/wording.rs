//! The words diagnostics are made of: what was found, what is wanted, what may have been meant.

use toml::de::DeValue;

use crate::catalogue::Kind;

/// The known word nearest to what was written, if it is near enough to be meant.
pub(crate) fn closest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    // The measure takes time with the square of the length, and nobody mistypes that much.
    if written.len() > 64 {
        return None;
    }
    let likeness = |word: &str| strsim::damerau_levenshtein(&written.to_lowercase(), word);
    known
        .iter()
        .map(|word| (likeness(word), *word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| word)
}

/// What was written, short enough for a message.
pub(crate) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The words as alternatives in a sentence.
pub(crate) fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|w| format!("`{w}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

/// What a value that was found is called.
pub(crate) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What a value of this kind is called.
pub(crate) fn wanted(kind: &Kind) -> String {
    match kind {
        Kind::Mode { enforce: true } => alternatives(&["off", "observe", "enforce"]),
        Kind::Mode { enforce: false } | Kind::Observed { .. } => alternatives(&["off", "observe"]),
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Integer { min, max } => format!("a whole number, {min} to {max}"),
        Kind::Number { min, max } => format!("a number, {min} to {max}"),
        Kind::Duration { .. } => format!("a duration such as {}", example(kind)),
        Kind::Size { .. } => format!("a size such as {}", example(kind)),
        Kind::Text => "a text".to_owned(),
        Kind::OneOf(words) => alternatives(words),
        Kind::Cgroup => format!("a cgroup path such as {}", example(kind)),
        Kind::File => format!("a file name such as {}", example(kind)),
        Kind::Folder => format!("a folder's absolute path such as {}", example(kind)),
        Kind::Digest => "64 hexadecimal digits in quotes".to_owned(),
        Kind::Ports => "a port, a range such as \"8000-8100\", or a list of both".to_owned(),
        Kind::Network => format!("an address or a network such as {}", example(kind)),
        Kind::Date => format!("a date such as {}", example(kind)),
        Kind::Refused { .. } => "nothing".to_owned(),
        Kind::List(one) => format!("a list such as [{}]", example(one)),
    }
}

/// A value that would do.
pub(crate) fn example(kind: &Kind) -> String {
    match kind {
        Kind::Mode { .. } | Kind::Observed { .. } => "\"observe\"".to_owned(),
        Kind::Flag => "true".to_owned(),
        Kind::Integer { min, .. } => min.to_string(),
        Kind::Number { max, .. } => max.to_string(),
        Kind::Duration { .. } => "\"24h\"".to_owned(),
        Kind::Size { .. } => "\"64MiB\"".to_owned(),
        Kind::Text | Kind::Digest | Kind::Refused { .. } => "\"…\"".to_owned(),
        Kind::OneOf(words) => format!("\"{}\"", words.first().copied().unwrap_or_default()),
        Kind::Cgroup => "\"/system.slice/nginx.service\"".to_owned(),
        Kind::File => "\"pools.txt\"".to_owned(),
        Kind::Folder => "\"/opt/vendor\"".to_owned(),
        Kind::Ports => "443".to_owned(),
        Kind::Network => "\"203.0.113.0/24\"".to_owned(),
        Kind::Date => "2027-01-31".to_owned(),
        Kind::List(one) => format!("[{}]", example(one)),
    }
}
