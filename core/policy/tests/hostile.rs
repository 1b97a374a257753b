//! Whatever is written, reading it ends, and ends without a panic.
#![allow(clippy::unwrap_used, missing_docs)]

use davy_policy::Policy;
use proptest::prelude::*;

const GOOD: &str = include_str!("valid/everything.toml");

fn read(text: &str) {
    match Policy::parse("p", text) {
        Ok(policy) => assert_eq!(Policy::parse("w", &policy.to_toml()).unwrap(), policy),
        Err(faults) => {
            assert!(!faults.faults().is_empty());
            for fault in faults.faults() {
                assert!(fault.line >= 1 && fault.column >= 1 && fault.span.end <= text.len());
            }
            assert!(!faults.render(false).is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        read(&text);
    }

    #[test]
    fn any_characters(text in any::<String>()) {
        read(&text);
    }

    /// A good policy with a part replaced comes further into the reader than noise does.
    #[test]
    fn a_good_policy_with_a_wound(at in 0..GOOD.len(), length in 0_usize..40, wound in "[\\[\\]{}=\"'.,#0-9a-zé\\n \\\\-]{0,12}") {
        let end = GOOD.floor_char_boundary((at + length).min(GOOD.len()));
        let at = GOOD.floor_char_boundary(at.min(end));
        read(&format!("{}{wound}{}", &GOOD[..at], &GOOD[end..]));
    }

    /// Lines of keys and values that exist, in any order and combination.
    #[test]
    fn lines_that_could_be(lines in prop::collection::vec(prop::sample::select(LINES), 0..20)) {
        read(&lines.join("\n"));
    }
}

const LINES: &[&str] = &[
    "[scans]",
    "decoy_ports = [23, \"2000-2010\"]",
    "[[scans.ignore]]",
    "network = \"10.0.0.0/8\"",
    "[scope]",
    "[mining]",
    "[mining.pools]",
    "[[mining.allow]]",
    "[[test]]",
    "[test.given]",
    "[test.given.evidence]",
    "[drill]",
    "mode = \"enforce\"",
    "cgroups = [\"/a\", \"/a\", 1]",
    "confidence = nan",
    "confidence = inf",
    "cut_for = \"off\"",
    "every = \"off\"",
    "sha256 = \"é\"",
    "unit = \"x\"",
    "user = \"u\"",
    "reason = \"\\u0000\"",
    "until = 9999-12-31",
    "until = 0000-01-01",
    "until = 2024-02-29T23:59:60Z",
    "given = {}",
    "expect = \"allow\"",
    "name = \"n\"",
    "stratum = -0.0",
];

#[test]
fn depth_and_length_are_bounded() {
    read(&"[".repeat(100_000));
    read(&format!("a = {}", "[".repeat(100_000)));
    read(&format!("a = {}", "{a=".repeat(10_000)));
    read(&format!("{} = 1", vec!["a"; 50_000].join(".")));
    read(&format!("[{}]\n", vec!["mining"; 50_000].join(".")));
    read(&format!("[mining]\nmode = \"{}\"", "x".repeat(900_000)));
    read(&"x".repeat(davy_policy::MAX_TEXT));
}
