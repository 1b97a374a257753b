use std::io::Read;

use crate::RuleSource;

/// All of content/yara, compressed by the build script.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rules.deflate"));

/// The rules that come with Davy, under the origin `davy`.
///
#[must_use]
pub fn built_in() -> RuleSource {
    let mut text = String::new();
    let unpacked = flate2::read::DeflateDecoder::new(PACKED).read_to_string(&mut text);
    debug_assert!(unpacked.is_ok(), "what the build script packed does not unpack");
    RuleSource { origin: "davy".to_owned(), text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rules;

    #[test]
    fn every_rule_that_comes_with_davy_takes_part() {
        let rules = Rules::compile(&[built_in()]);
        assert_eq!(rules.aside(), []);
        assert!(rules.len() >= 30, "{} rules", rules.len());
    }
}
