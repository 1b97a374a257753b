//! Numbers as people read them.

/// A count with thousands apart: `14,212`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its noun: `1 process`, `2 processes`.
pub(crate) fn of(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// Bytes in binary units: `2.1 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 9.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// A length of time of `seconds`: `180 ms`, `9.4 s`, `12 min`, `3 h 20 min`, `5 days`.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
    match seconds {
        s if s < 0.0005 => "0 s".to_owned(),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 59.95 => format!("{s:.1} s"),
        s if s < 119.5 => format!("{s:.0} s"),
        s if s < 5970.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => {
            let minutes = (s / 60.0).round() as u64;
            match (minutes / 60, minutes % 60) {
                (h, 0) => format!("{h} h"),
                (h, m) => format!("{h} h {m} min"),
            }
        }
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// A share of one in percent, never rounded up to a certainty: `99.98 %`, `71 %`, `0.2 %`.
pub(crate) fn percent(share: f64) -> String {
    let p = share.clamp(0.0, 1.0) * 100.0;
    match p {
        p if (99.99..100.0).contains(&p) => "> 99.99 %".to_owned(),
        p if (99.0..100.0).contains(&p) => format!("{p:.2} %"),
        p if p > 0.0 && p < 0.01 => "< 0.01 %".to_owned(),
        p if p > 0.0 && p < 1.0 => format!("{p:.2} %"),
        p => format!("{p:.0} %"),
    }
}

/// A measured number by itself: whole when it is whole, else with three digits that matter.
pub(crate) fn number(x: f64) -> String {
    if !x.is_finite() {
        return "unknown".to_owned();
    }
    if x.fract() == 0.0 && x.abs() < 1e15 {
        let sign = if x < 0.0 { "-" } else { "" };
        return format!("{sign}{}", count(x.abs() as u64));
    }
    match x.abs() {
        a if a >= 1000.0 => format!("{x:.0}"),
        a if a >= 100.0 => format!("{x:.1}"),
        a if a >= 1.0 => format!("{x:.2}"),
        a if a >= 0.01 => format!("{x:.3}"),
        _ => format!("{x:.2e}"),
    }
}

/// A bar of `width` cells filled to `share` of one, in eighths of a cell.
pub(crate) fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let mut out = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        out.push(EIGHTHS[eighths % 8 - 1]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_people_write() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
        assert_eq!(of(1, "process", "processes"), "1 process");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(2080 * 1024 * 1024), "2.0 GiB");
        assert_eq!(bytes(41 * 1024 * 1024), "41 MiB");
        assert_eq!(bytes(u64::MAX), "16 EiB");
        assert_eq!(duration(9.44), "9.4 s");
        assert_eq!(duration(0.18), "180 ms");
        assert_eq!(duration(90.0), "90 s");
        assert_eq!(duration(720.0), "12 min");
        assert_eq!(duration(12_000.0), "3 h 20 min");
        assert_eq!(duration(f64::NAN), "0 s");
        assert_eq!(percent(0.9998), "99.98 %");
        assert_eq!(percent(0.999_999), "> 99.99 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(0.714), "71 %");
        assert_eq!(number(38.0), "38");
        assert_eq!(number(-0.125), "-0.125");
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(2.0, 2), "██");
        assert_eq!(bar(0.3, 4), "█▎");
    }
}
