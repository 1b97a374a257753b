use davy_model::Prefix;

/// The most networks in one file; all of the internet's registries' entries for the largest country are some 70,000.
pub const MAX_NETWORKS: usize = 200_000;

/// Reads a file with one address or network a line. Empty lines, and what follows on `#` or `;`, say nothing.
///
/// # Errors
/// What is wrong, with the first line that makes no sense. Half a list would close doors that were to be open, so none of it
/// counts then; nor does a list without an entry.
pub fn read_networks(text: &str) -> Result<Vec<Prefix>, String> {
    let mut networks = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split(['#', ';']).next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let shown: String = line.chars().take(60).collect();
        let network =
            line.parse().map_err(|why| format!("line {}: `{}` {why}", number + 1, shown.escape_debug()))?;
        networks.push(network);
        if networks.len() > MAX_NETWORKS {
            return Err(format!("has more than {MAX_NETWORKS} networks"));
        }
    }
    if networks.is_empty() { Err("is empty: it holds no network".to_owned()) } else { Ok(networks) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_a_line_with_remarks() {
        let networks = read_networks("# office\n203.0.113.0/24 # main\n\n2001:db8::1\r\n; end\n").unwrap();
        let shown: Vec<String> = networks.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["203.0.113.0/24", "2001:db8::1"]);
    }

    #[test]
    fn what_makes_no_sense_is_named_and_nothing_counts() {
        assert!(read_networks("10.0.0.0/8\nexample.org\n").unwrap_err().starts_with("line 2: `example.org`"));
        assert!(read_networks("# nothing\n").unwrap_err().contains("empty"));
        let many = "10.0.0.1\n".repeat(MAX_NETWORKS + 1);
        assert!(read_networks(&many).unwrap_err().contains("more than"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-f.:/# \n\u{1b}é]{0,80}") {
            let _ = read_networks(&text);
        }
    }
}
