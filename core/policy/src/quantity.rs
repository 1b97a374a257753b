use std::time::Duration;

/// Units of time, longest first, with their seconds.
const TIME: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// Units of size: IEC binary ones, then SI decimal ones, in bytes.
const SIZE: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

/// Reads a duration: whole numbers with the units `w`, `d`, `h`, `m`, `s`, longest first, such as `24h` or `1h30m`.
///
/// # Errors
/// What is wrong with the text, for people.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut seconds = 0_u64;
    let mut smallest = u64::MAX;
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    while !rest.is_empty() {
        let (number, after) = leading_number(rest)?;
        let length = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(length);
        if unit.is_empty() {
            return Err(format!("`{number}` has no unit"));
        }
        let Some(&(_, factor)) = TIME.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("`{unit}` is not a unit of time"));
        };
        if factor >= smallest {
            return Err("the units must go from long to short, each once".to_owned());
        }
        smallest = factor;
        seconds = number
            .checked_mul(factor)
            .and_then(|part| seconds.checked_add(part))
            .ok_or("it is too long to be counted")?;
        rest = next;
    }
    Ok(Duration::from_secs(seconds))
}

/// Reads a size: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB`. Gives bytes.
///
/// # Errors
/// What is wrong with the text, for people.
pub fn parse_size(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let (number, unit) = leading_number(text)?;
    let unit = unit.trim_start_matches(' ');
    if unit.is_empty() {
        return Err(format!("`{number}` has no unit"));
    }
    let Some(&(_, factor)) = SIZE.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{unit}` is not a unit of size"));
    };
    number.checked_mul(factor).ok_or_else(|| "it is too large to be counted".to_owned())
}

fn leading_number(text: &str) -> Result<(u64, &str), String> {
    let length = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(length);
    if digits.is_empty() {
        return Err(format!("`{text}` does not begin with a whole number"));
    }
    let number = digits.parse().map_err(|_| format!("`{digits}` is too large to be counted"))?;
    Ok((number, rest))
}

/// Writes whole seconds so that [`parse_duration`] reads the same, in the longest unit that fits exactly.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    // Weeks are read but not written: 14d is what people say.
    let (name, factor) = TIME[1..]
        .iter()
        .find(|(_, factor)| seconds > 0 && seconds.is_multiple_of(*factor))
        .unwrap_or(&("s", 1));
    format!("{}{name}", seconds / factor)
}

/// Writes bytes so that [`parse_size`] reads the same, in the largest binary unit that fits exactly.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let (name, factor) =
        SIZE[..4].iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / factor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_add_their_parts() {
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("2w").unwrap(), Duration::from_secs(1_209_600));
        assert_eq!(parse_duration("0s").unwrap(), Duration::ZERO);
    }

    #[test]
    fn durations_say_what_is_wrong() {
        for (text, fault) in [
            ("", "empty"),
            ("10", "no unit"),
            ("ten minutes", "whole number"),
            ("10 min", "not a unit"),
            ("5m1h", "long to short"),
            ("1h1h", "long to short"),
            ("-1h", "whole number"),
            ("99999999999999999999h", "too large"),
            ("9999999999999999999w", "too long"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_know_binary_and_decimal() {
        assert_eq!(parse_size("2KiB").unwrap(), 2048);
        assert_eq!(parse_size("2 kB").unwrap(), 2000);
        for text in ["", "12", "1.5GiB", "3 KB", "99999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(n in any::<u64>()) {
            prop_assert_eq!(parse_duration(&format_duration(Duration::from_secs(n))).unwrap().as_secs(), n);
            prop_assert_eq!(parse_size(&format_size(n)).unwrap(), n);
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
