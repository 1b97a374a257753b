//! Policies that are good, policies that are not, and what is said of those. `DAVY_BLESS=1` writes what is said.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use davy_model::{Mode, Timestamp};
use davy_policy::{Code, Policy, json_schema, run_tests};

const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

fn policies(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let paths = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    paths.sort();
    assert!(paths.len() >= 3);
    paths.into_iter().map(|p| (p.clone(), fs::read_to_string(p).unwrap())).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Compares with the file of the golden answer, or writes it.
fn holds(path: &Path, said: &str) {
    if std::env::var_os("DAVY_BLESS").is_some() {
        fs::write(path, said).unwrap();
    }
    let golden = fs::read_to_string(path).unwrap_or_default();
    // In which order JSON names the fields of an object depends on what else is built with it.
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    let same = match json(&golden) {
        Some(value) => json(said) == Some(value),
        None => golden == said,
    };
    assert!(same, "{} says otherwise; now it is:\n{said}", path.display());
}

#[test]
fn good_policies_are_read_and_hold_their_own_tests() {
    for (path, text) in policies("valid") {
        let policy = Policy::parse(name(&path), &text).unwrap_or_else(|faults| panic!("{faults}"));
        for outcome in run_tests(&policy, NOW) {
            assert!(outcome.passed, "{outcome:?}");
        }
    }
}

#[test]
fn what_is_written_reads_the_same() {
    for (path, text) in policies("valid") {
        let policy = Policy::parse(name(&path), &text).unwrap();
        let written = policy.to_toml();
        let again = Policy::parse("written", &written).unwrap_or_else(|f| panic!("{f}\n{written}"));
        assert_eq!(policy, again, "{written}");
    }
}

#[test]
fn bad_policies_are_told_all_their_faults() {
    for (path, text) in policies("invalid") {
        let faults = Policy::parse(name(&path), &text).expect_err("this policy is bad");
        holds(&path.with_extension("txt"), &faults.render(false));
        let json = serde_json::to_string_pretty(&faults.to_json()).unwrap();
        holds(&path.with_extension("json"), &json);
        assert!(faults.render(true).contains("\u{1b}["), "colour was asked for");
    }
}

/// Every code but the one for size stands in some golden answer, so that none is promised and never given.
#[test]
fn every_code_is_shown() {
    let mut seen: Vec<Code> = policies("invalid")
        .iter()
        .flat_map(|(_, text)| Policy::parse("p", text).unwrap_err().faults().to_vec())
        .map(|f| f.code)
        .collect();
    let large = " ".repeat(davy_policy::MAX_TEXT + 1);
    seen.extend(Policy::parse("p", &large).unwrap_err().faults().iter().map(|f| f.code));
    for code in Code::ALL {
        assert!(seen.contains(&code), "{code} is in no fixture");
    }
}

#[test]
fn a_flood_of_faults_is_counted_not_told() {
    let text: String = (0..500).map(|n| format!("wrong{n} = 1\n")).collect();
    let faults = Policy::parse("p", &text).unwrap_err();
    assert_eq!((faults.faults().len(), faults.left_out()), (100, 400));
    assert!(faults.render(false).contains("and 400 more faults"));
}

#[test]
fn the_line_that_decides_is_named() {
    let (_, text) = policies("valid").into_iter().find(|(p, _)| name(p) == "everything.toml").unwrap();
    let policy = Policy::parse("everything.toml", &text).unwrap();
    let outcomes = run_tests(&policy, NOW);
    assert!(outcomes[1].why.contains("our own benchmark (everything.toml:10)"), "{:?}", outcomes[1]);
    assert!(outcomes[2].why.contains("everything.toml:2"), "{:?}", outcomes[2]);
    assert!(outcomes[3].why.contains("everything.toml:53"), "{:?}", outcomes[3]);
    assert_eq!(policy.fileless.mode, Mode::Off);
}

/// The examples of the reference are policies, and it explains every code and every section.
#[test]
fn the_reference_is_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/policy.md");
    let reference = fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> =
        reference.split("```toml\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        let policy =
            Policy::parse("docs/reference/policy.md", block).unwrap_or_else(|faults| panic!("{faults}"));
        for outcome in run_tests(&policy, NOW) {
            assert!(outcome.passed, "{outcome:?}");
        }
    }
    for code in Code::ALL {
        assert!(reference.contains(&format!("| {code} |")), "{code} is not explained");
    }
    let schema = json_schema();
    for (section, shape) in schema["properties"].as_object().unwrap() {
        assert!(
            reference.contains(&format!("`[{section}]`")) || reference.contains(&format!("`[[{section}]]`"))
        );
        let keys = shape["properties"].as_object().or(shape["items"]["properties"].as_object()).unwrap();
        for key in keys.keys() {
            assert!(
                reference.contains(&format!("`{key}`")) || reference.contains(&format!(".{key}]")),
                "{key}"
            );
        }
    }
}
