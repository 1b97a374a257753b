//! A program that mines, wherever it lies: as a file under another name, inside archives, in the memory of a process.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use davy_model::{Action, ActionState};
use davy_test_e2e::{Agent, root_or_skip};
use davy_wire::{Command as Order, Query, Reply, RequestBody};
use serde_json::Value;

fn scan(base: &Path, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = davy(base, arguments).output().unwrap();
    (output.status.code(), lines(&output))
}

fn davy(base: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(davy_test_e2e::davy());
    command.arg("--base-dir").arg(base).args(["scan", "--json"]).args(arguments).stdin(Stdio::null());
    command
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Paths in which this rule was found.
fn places<'a>(lines: &'a [Value], rule: &str) -> Vec<&'a str> {
    let has = |line: &&Value| {
        line["scan"] == "found"
            && line["matches"].as_array().unwrap().iter().any(|found| found["rule"] == rule)
    };
    let mut places: Vec<_> = lines.iter().filter(has).map(|line| line["path"].as_str().unwrap()).collect();
    places.sort_unstable();
    places
}

fn end(lines: &[Value]) -> &Value {
    lines.last().filter(|line| line["scan"] == "end").expect("the last line sums up")
}

/// The miner of the tests under a harmless name, and once more in a tar.xz in a zip.
fn hide(folder: &Path) -> (PathBuf, PathBuf) {
    let program = folder.join("nightly-report");
    fs::copy(davy_test_e2e::miner(), &program).unwrap();
    let stripped = folder.join("inner");
    assert!(Command::new("strip").arg("-o").arg(&stripped).arg(&program).status().unwrap().success());
    let inner = folder.join("inner.tar.xz");
    let tar = Command::new("tar").arg("-C").arg(folder).arg("-cJf").arg(&inner).arg("inner").status();
    assert!(tar.unwrap().success());
    let archive = folder.join("backup.zip");
    let mut zip = zip::ZipWriter::new(File::create(&archive).unwrap());
    zip.start_file("data/inner.tar.xz", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&fs::read(&inner).unwrap()).unwrap();
    zip.finish().unwrap();
    fs::remove_file(stripped).unwrap();
    fs::remove_file(inner).unwrap();
    (program, archive)
}

#[test]
fn a_miner_is_found_wherever_it_lies_taken_away_and_given_back() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (program, archive) = hide(folder.path());
    fs::write(folder.path().join("notes"), "nothing to see").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o751)).unwrap();
    let bytes = fs::read(&program).unwrap();
    let all = folder.path().to_str().unwrap();

    let (code, found) = scan(agent.base(), &[all, "--quarantine"]);
    assert_eq!(code, Some(9), "{found:?}");
    assert_eq!(places(&found, "randomx"), [archive.to_str().unwrap(), program.to_str().unwrap()]);
    let inside = found.iter().find(|line| line["path"] == archive.to_str().unwrap()).unwrap();
    assert_eq!(inside["matches"][0]["inside"], serde_json::json!(["data/inner.tar.xz", "inner"]));
    assert!(!program.exists() && !archive.exists());
    assert!(end(&found)["not_quarantined"] == 0 && folder.path().join("notes").exists());

    let actions = agent.ask(RequestBody::Query(Query::Actions { limit: 10 })).unwrap();
    let taken: Vec<_> = actions
        .into_iter()
        .filter_map(|reply| if let Reply::Action(record) = reply { Some(record) } else { None })
        .filter(|r| r.state == ActionState::Done && matches!(r.action, Action::Quarantine { .. }))
        .collect();
    assert_eq!(taken.len(), 2);
    for record in taken {
        agent.ask(RequestBody::Command(Order::UndoAction { id: record.id })).unwrap();
    }
    assert_eq!(fs::read(&program).unwrap(), bytes);
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o7777, 0o751);
    assert!(archive.exists());
}

#[test]
fn what_the_system_needs_is_not_taken_away() {
    if !root_or_skip() {
        return;
    }
    let agent = Agent::start("").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("all.yar");
    fs::write(&rules, "rule everything { condition: true }").unwrap();
    let (code, found) = scan(agent.base(), &["/bin/sh", "--rules", rules.to_str().unwrap(), "--quarantine"]);
    assert_eq!(code, Some(1), "{found:?}");
    assert!(Path::new("/bin/sh").exists() && end(&found)["not_quarantined"] == 1);
}

#[test]
fn without_an_agent_it_finds_and_takes_nothing_away() {
    let base = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (program, _) = hide(folder.path());
    let all = folder.path().to_str().unwrap();
    let (code, found) = scan(base.path(), &[all, "--quarantine"]);
    assert_eq!((code, found.len()), (Some(3), 0));
    let (code, found) = scan(base.path(), &[all, "--no-archives"]);
    assert_eq!((code, places(&found, "randomx").len()), (Some(9), 1));
    assert!(program.exists());
}

#[test]
fn what_was_clean_is_passed_over_until_it_changes() {
    let base = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    fs::hard_link(folder.path().join("a"), folder.path().join("c")).unwrap();
    std::os::unix::fs::symlink("/usr", folder.path().join("elsewhere")).unwrap();
    // What has just changed is not remembered.
    std::thread::sleep(Duration::from_millis(2100));
    let all = folder.path().to_str().unwrap();
    let (code, first) = scan(base.path(), &[all]);
    assert_eq!((code, &end(&first)["files"], &end(&first)["known_clean"]), (Some(0), &2.into(), &0.into()));
    let (_, second) = scan(base.path(), &[all]);
    assert_eq!(end(&second)["known_clean"], 2);
    fs::write(folder.path().join("b"), "c").unwrap();
    let (_, third) = scan(base.path(), &[all]);
    assert_eq!(end(&third)["known_clean"], 1);
    let (_, fourth) = scan(base.path(), &[all, "--all"]);
    assert_eq!(end(&fourth)["known_clean"], 0);
}

#[test]
fn a_running_miner_is_found_in_its_memory() {
    let base = tempfile::tempdir().unwrap();
    let mut child = Command::new(davy_test_e2e::miner())
        .args(["--algo", "randomx", "--mode", "light", "--threads", "1", "--no-pool", "--for", "30"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (code, found) = scan(base.path(), &["--pid", &child.id().to_string()]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((code, places(&found, "randomx").len()), (Some(9), 1), "{found:?}");
    assert_eq!(found.iter().find(|l| l["scan"] == "found").unwrap()["pid"], child.id());
}

#[test]
fn a_file_that_breaks_the_worker_costs_itself_alone() {
    let base = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (program, _) = hide(folder.path());
    // So long that there is time to end the worker, twice; nothing of it takes room on the disk.
    let long = folder.path().join("long");
    File::create(&long).unwrap().set_len(64 << 30).unwrap();
    let arguments = [long.to_str().unwrap(), program.to_str().unwrap()];
    let child = davy(base.path(), &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    let mut ended = Vec::new();
    while ended.len() < 2 {
        assert!(Instant::now() < limit, "the worker was started {} times", ended.len());
        std::thread::sleep(Duration::from_millis(50));
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let workers = fs::read_to_string(children).unwrap_or_default();
        let Some(worker) = workers.split_whitespace().next().and_then(|pid| pid.parse::<i32>().ok()) else {
            continue;
        };
        // Only once it reads the file: before that it has no descriptor beyond its three.
        let reads = fs::read_dir(format!("/proc/{worker}/fd")).is_ok_and(|open| open.count() > 3);
        if reads && !ended.contains(&worker) {
            let pid = rustix::process::Pid::from_raw(worker).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            ended.push(worker);
        }
    }
    let output = child.wait_with_output().unwrap();
    let lines = lines(&output);
    let gap = lines.iter().find(|line| line["scan"] == "gap").expect("the long file is named");
    assert_eq!(gap["path"], long.to_str().unwrap());
    assert!(gap["why"].as_str().unwrap().contains("broke the worker"), "{gap}");
    assert_eq!((output.status.code(), places(&lines, "randomx").len()), (Some(9), 1));
    assert_eq!(end(&lines)["worker_restarts"], 2);
}

#[test]
fn the_scan_worker_can_open_nothing() {
    let base = tempfile::tempdir().unwrap();
    let (_, lines) = scan(base.path(), &["/etc/hostname"]);
    let confinement = &lines[0]["confinement"];
    assert_eq!(lines[0]["scan"], "begin");
    if rustix::process::geteuid().is_root() {
        assert_eq!(confinement["unprivileged"], true, "{confinement}");
    }
    for missing in confinement["missing"].as_array().unwrap() {
        println!("SKIPPED: {missing}");
    }
    assert_eq!(lines[0]["set_aside"], serde_json::json!([]));
}
