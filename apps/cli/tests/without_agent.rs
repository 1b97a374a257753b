//! Verbs that need no agent: policies, completions, manual pages, help.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod fake_agent;

use std::path::Path;

use fake_agent::davy;
use serde_json::Value;

const FAULTY: &str = "[mining]\nmode = \"enforec\"\nmodee = 3\n";

fn written(dir: &Path, text: &str) -> String {
    let path = dir.join("p.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_faulty_policy_shows_all_faults_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path(), FAULTY);
    let ended = davy(dir.path(), &["policy", "check", &file]);
    assert_eq!(ended.code, 6);
    assert!(ended.out.contains("p.toml:2"), "{}", ended.out);
    assert!(ended.out.contains("p.toml:3"), "{}", ended.out);
    assert!(ended.out.contains("2 faults"), "{}", ended.out);
    for verb in ["show", "test"] {
        assert_eq!(davy(dir.path(), &["policy", verb, &file]).code, 6, "{verb}");
    }
    let ended = davy(dir.path(), &["policy", "check", "--json", &file]);
    assert_eq!(ended.code, 6);
    let answer: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(answer["ok"], false);
    let lines: Vec<_> = answer["faults"].as_array().unwrap().iter().map(|f| f["line"].as_u64()).collect();
    assert_eq!(lines, [Some(2), Some(3)]);
}

#[test]
fn faults_cannot_speak_to_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path(), "x = \"\u{202e}\u{9b}31m\"\n\u{1b}[2J = 1\n");
    let ended = davy(dir.path(), &["policy", "check", &file, "--color", "never"]);
    assert_eq!(ended.code, 6);
    assert!(!ended.out.chars().any(|c| c.is_control() && c != '\n'), "{:?}", ended.out);
    assert!(!ended.out.contains('\u{202e}'), "{:?}", ended.out);
}

#[test]
fn a_policy_without_faults_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path(), "[mining]\nmode = \"enforce\"\n");
    let ended = davy(dir.path(), &["policy", "check", &file]);
    assert_eq!((ended.code, ended.out.as_str()), (0, &*format!("{file} has no faults.\n")));
    let ended = davy(dir.path(), &["policy", "show", "--json", &file]);
    let answer: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(answer["policy"]["mining"]["mode"], "enforce");
}

#[test]
fn what_is_shown_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let shown = davy(dir.path(), &["policy", "show"]);
    assert_eq!(shown.code, 0);
    assert!(shown.out.starts_with("# the built-in policy"), "{}", shown.out);
    let file = written(dir.path(), &shown.out);
    let ended = davy(dir.path(), &["policy", "check", &file]);
    assert_eq!(ended.code, 0, "{}", ended.out);
}

#[test]
fn without_a_file_the_agents_policy_is_meant() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("etc")).unwrap();
    std::fs::write(base.path().join("etc/davy.toml"), FAULTY).unwrap();
    let ended = davy(base.path(), &["policy", "check"]);
    assert_eq!(ended.code, 6);
    assert!(ended.out.contains("etc/davy.toml:2"), "{}", ended.out);
}

#[test]
fn a_policy_that_is_not_there_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(davy(dir.path(), &["policy", "check", "/nonexistent/p.toml"]).code, 4);
    let file = dir.path().join("p.toml");
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    let ended = davy(dir.path(), &["policy", "check", file.to_str().unwrap()]);
    assert_eq!(ended.code, 6);
    assert!(ended.err.contains("not UTF-8"), "{}", ended.err);
}

#[test]
fn a_policys_tests_are_run() {
    let dir = tempfile::tempdir().unwrap();
    let test = |expect: &str| {
        format!(
            "[mining]\nmode = \"observe\"\n\n[[test]]\nname = \"a miner is reported\"\n\
             given = {{ finding = \"mining\", confidence = 1.0 }}\nexpect = \"{expect}\"\n"
        )
    };
    let holds = davy(dir.path(), &["policy", "test", &written(dir.path(), &test("alert"))]);
    assert_eq!(holds.code, 0, "{}{}", holds.out, holds.err);
    assert!(holds.out.contains("All 1 tests"), "{}", holds.out);
    let fails = davy(dir.path(), &["policy", "test", &written(dir.path(), &test("kill"))]);
    assert_eq!(fails.code, 6, "{}{}", fails.out, fails.err);
    assert!(fails.out.contains("FAILED"), "{}", fails.out);
    assert!(fails.out.contains("expected kill, the policy says alert"), "{}", fails.out);
}

#[test]
fn the_schema_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let schema: Value = serde_json::from_str(&davy(dir.path(), &["policy", "schema"]).out).unwrap();
    assert!(schema["properties"]["mining"].is_object());
}

#[test]
fn completions_for_every_shell() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = davy(dir.path(), &["completions", shell]);
        assert_eq!(ended.code, 0);
        assert!(ended.out.contains("incidents") && ended.out.contains("disarm"), "{shell}");
    }
}

#[test]
fn a_manual_page_for_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    assert_eq!(davy(dir.path(), &["man", "--dir", pages.to_str().unwrap()]).code, 0);
    for page in ["davy.1", "davy-status.1", "davy-incidents.1", "davy-policy-check.1", "davy-drill.1"] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(!pages.join("davy-drill-act.1").exists(), "hidden verbs have no manual page");
    assert!(davy(dir.path(), &["man"]).out.contains(".TH davy 1"));
}

#[test]
fn help_shows_exit_codes_and_examples() {
    let dir = tempfile::tempdir().unwrap();
    let ended = davy(dir.path(), &["--help"]);
    assert_eq!(ended.code, 0);
    assert!(ended.out.contains("7 not all drills held"), "{}", ended.out);
    let ended = davy(dir.path(), &["events", "--help"]);
    assert!(ended.out.contains("davy events -f"), "{}", ended.out);
    assert!(!davy(dir.path(), &["help"]).out.contains("drill-act"));
}

#[test]
fn drills_are_listed_and_unknown_ones_are_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let list: Value = serde_json::from_str(&davy(dir.path(), &["drill", "--list", "--json"]).out).unwrap();
    assert!(list.as_array().unwrap().iter().any(|d| d["name"] == "detect/randomx"));
    assert!(davy(dir.path(), &["drill", "--list"]).out.contains("detect/randomx"));
    assert_eq!(davy(dir.path(), &["drill", "detect/nothing"]).code, 4);
    assert_eq!(davy(dir.path(), &["drill", "detect/randomx"]).code, 3);
}

#[test]
fn the_reference_names_every_verb() {
    let reference = include_str!("../../../docs/reference/cli.md");
    let dir = tempfile::tempdir().unwrap();
    let help = davy(dir.path(), &["help"]).out;
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty())
        .filter_map(|l| l.strip_prefix("  ").filter(|l| !l.starts_with(' ')))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|v| *v != "help")
        .collect();
    assert!(verbs.len() >= 17, "{verbs:?}");
    for verb in verbs {
        assert!(reference.contains(&format!("`davy {verb}")), "docs/reference/cli.md does not name {verb}");
    }
}
