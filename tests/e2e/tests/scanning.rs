//! What is written, what runs, and what lies in folders is scanned by the agent, and what it finds is answered like any other
//! finding.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use davy_model::{
    Action, ActionRecord, ActionState, Capability, Finding, FindingKind, Incident, Mode, Technique,
};
use davy_test_e2e::{Agent, Scope, root_or_skip};
use davy_wire::{Query, Reply, RequestBody};

/// Builds for tests compile rules slowly, and the machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);

/// Rules of a user: one for web files, one that is broken, one that would try every byte.
const RULES: &str = r#"
rule own_webshell { meta: severity = "high" description = "a mark of this test" strings: $a = "MARK" condition: $a }
rule broken { strings: $a = "x" condition: $b }
rule slow { strings: $a = "q" condition: $a }
"#;

/// The mark of the first, put together when it is wanted: this program must not hold it.
fn mark() -> String {
    ["tell", "tale", "in", "php"].join("-")
}

/// The inert sample that a rule of Davy's looks for, with a comment that makes it another content.
fn sample(path: &Path, comment: &str) {
    let mark = ["davy", "drill", "inert", "sample", "5b1e0a3f9c7d4e62"].join("-");
    fs::write(path, format!("#!/bin/sh\n# {mark} {comment}\nexit 0\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap().to_owned()
}

/// An agent that is told of writes; says loudly when there is none. Rules lie beside its policy.
fn watching(policy: &str) -> Option<(Agent, tempfile::TempDir)> {
    if !root_or_skip() {
        return None;
    }
    let base = tempfile::Builder::new().prefix("davy-scan-").tempdir().unwrap();
    fs::create_dir_all(base.path().join("etc/rules")).unwrap();
    fs::write(base.path().join("etc/rules/own.yar"), RULES.replace("MARK", &mark())).unwrap();
    let agent = Agent::start_in(base.path(), policy, Command::new(davy_test_e2e::davy()), &[]).unwrap();
    let status = agent.status().unwrap();
    let fanotify = status.probes.iter().find(|p| p.capability == Capability::Fanotify).unwrap();
    if !fanotify.works {
        println!("SKIPPED: scans of what is written need fanotify: {}", fanotify.reason);
        return None;
    }
    Some((agent, base))
}

/// The finding whose evidence names the file.
fn finding(agent: &Agent, path: &Path) -> Finding {
    let path = path.display().to_string();
    let about =
        |f: &Finding| f.kind == FindingKind::Malware && f.evidence.iter().any(|e| e.text.contains(&path));
    agent.wait_for(&path, LIMIT, |agent| Ok(agent.findings()?.into_iter().rfind(about))).unwrap_or_else(
        |error| {
            let told: Vec<String> = agent.findings().unwrap().iter().map(|f| format!("{f:?}")).collect();
            panic!("{error:#}\n{}\n{:?}\n{}", note(agent), agent.status().unwrap().drops, told.join("\n"))
        },
    )
}

fn incident(agent: &Agent, finding: &Finding) -> Incident {
    let has = |i: &Incident| i.findings.iter().any(|f| f.id == finding.id);
    agent.wait_for("the incident", LIMIT, |agent| Ok(agent.incidents()?.into_iter().find(has))).unwrap()
}

/// What became of taking the file away.
fn quarantine(agent: &Agent, path: &Path) -> ActionRecord {
    let wanted = path.display().to_string();
    let about = |r: &ActionRecord| matches!(&r.action, Action::Quarantine { path, .. } if *path == wanted);
    let ended = |r: &ActionRecord| r.state != ActionState::Intended;
    agent
        .wait_for("quarantine", LIMIT, |agent| {
            let replies = agent.ask(RequestBody::Query(Query::Actions { limit: 100 }))?;
            let records =
                replies.into_iter().filter_map(|r| if let Reply::Action(r) = r { Some(r) } else { None });
            Ok(records.filter(about).find(ended))
        })
        .unwrap()
}

fn note(agent: &Agent) -> String {
    let status = agent.status().unwrap();
    status.protections.into_iter().find(|p| p.name == "scan").unwrap().note
}

#[test]
fn what_is_written_is_found_and_observed_and_a_broken_worker_or_rule_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    sample(&place("wanted.sh"), "wanted");
    let policy = format!(
        "[mining]\nmode = \"off\"\n[scan]\nrules = [\"rules/own.yar\", \"rules/none.yar\"]\ncpu = 100\n\
         [[scan.allow]]\nsha256 = \"{}\"\nreason = \"a sample of ours\"\n",
        sha256(&place("wanted.sh"))
    );
    let Some((agent, _base)) = watching(&policy) else { return };
    sample(&place("dropped.sh"), "dropped");
    let found = finding(&agent, &place("dropped.sh"));
    assert!(found.techniques.contains(&Technique::new("T1105")), "{found:?}");
    assert_eq!(found.subject.unwrap().pid, std::process::id(), "it is known who wrote it");
    assert_eq!(quarantine(&agent, &place("dropped.sh")).state, ActionState::WouldHave);
    assert!(incident(&agent, &found).title.starts_with("known malware"));

    fs::write(place("upload.php"), format!("<?php /* {} */ ?>", mark())).unwrap();
    let web = finding(&agent, &place("upload.php"));
    assert!(web.techniques.contains(&Technique::new("T1505.003")), "{web:?}");

    let status = agent.status().unwrap();
    let scan = status.protections.iter().find(|p| p.name == "scan").unwrap();
    assert_eq!(scan.mode, Mode::Observe);
    for words in ["set aside: broken, slow", "rules/none.yar cannot be read", " with findings"] {
        assert!(scan.note.contains(words), "{words}: {}", scan.note);
    }
    assert!(!scan.note.contains(" 0 with findings"), "{}", scan.note);
    let worker = status.workers.iter().find(|w| w.name == "scan").unwrap();
    assert!(worker.confinement.as_ref().unwrap().unprivileged, "{worker:?}");
    let pid = rustix::process::Pid::from_raw(worker.pid.unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    sample(&place("after.sh"), "after");
    finding(&agent, &place("after.sh"));
    let again = agent.status().unwrap().workers.into_iter().find(|w| w.name == "scan").unwrap();
    assert!(again.restarts >= 1 && again.pid != worker.pid, "{again:?}");

    // Written anew, so that it is looked at; it is wanted all the same.
    sample(&place("wanted.sh"), "wanted");
    agent
        .wait_for("the policy allows it", LIMIT, |agent| {
            Ok(note(agent).contains("1 found and allowed by the policy").then_some(()))
        })
        .unwrap();
    for name in ["dropped.sh", "upload.php", "after.sh", "wanted.sh"] {
        assert!(place(name).exists(), "{name}: an agent that observes takes nothing away");
    }
}

#[test]
fn what_runs_is_ended_and_taken_away_in_the_scope_and_given_back() {
    if !root_or_skip() {
        return;
    }
    let scope = Scope::make("scan").unwrap();
    let policy = format!(
        "[scope]\ncgroups = [\"{}\"]\n[mining]\nmode = \"off\"\n[scan]\nmode = \"enforce\"\ncpu = 100\n",
        scope.name()
    );
    let Some((agent, _base)) = watching(&policy) else { return };
    let folder = tempfile::tempdir().unwrap();
    let program: PathBuf = folder.path().join("nightly-report");
    fs::copy(davy_test_e2e::miner(), &program).unwrap();
    let bytes = fs::read(&program).unwrap();
    let mut command = Command::new(&program);
    command.args(["--algo", "randomx", "--mode", "light", "--threads", "1", "--no-pool", "--for", "120"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = scope.spawn(&mut command).unwrap();
    let ended = agent.wait_for("the miner is ended", LIMIT, |_| Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(ended.unwrap().signal(), Some(9));
    let found = finding(&agent, &program);
    assert!(found.techniques.contains(&Technique::new("T1204.002")), "{found:?}");
    let record = quarantine(&agent, &program);
    assert_eq!((record.state, program.exists()), (ActionState::Done, false), "{record:?}");
    // It does mine, and may have been known for that before it was read to its end.
    let title = incident(&agent, &found).title;
    assert!(title.starts_with("known malware") || title.starts_with("mining"), "{title}");
    agent.ask(RequestBody::Command(davy_wire::Command::UndoAction { id: record.id })).unwrap();
    assert_eq!(fs::read(&program).unwrap(), bytes);
}

#[test]
fn what_lies_in_folders_is_found_by_the_clock_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old.sh");
    sample(&old, "old");
    // An archive that breaks off cannot be looked at in full.
    let mut archive = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    archive.write_all(&[0; 100_000]).unwrap();
    let archive = archive.finish().unwrap();
    fs::write(folder.path().join("half.gz"), &archive[..archive.len() / 2]).unwrap();
    let policy = format!(
        "[mining]\nmode = \"off\"\n[scan]\non = []\ncpu = 100\nschedule = \"1h\"\npaths = [\"{}\"]\n",
        folder.path().display()
    );
    let Some((agent, base)) = watching(&policy) else { return };
    let found = finding(&agent, &old);
    assert_eq!((found.subject, found.processes.len()), (None, 0));
    assert_eq!(quarantine(&agent, &old).state, ActionState::WouldHave);
    let incident = incident(&agent, &found);
    assert_eq!(incident.title, "known malware, not running");
    // What is written meanwhile is not looked at, and the folders are not before another hour.
    sample(&folder.path().join("new.sh"), "new");
    agent
        .wait_for("the end of the scan", LIMIT, |agent| {
            Ok(note(agent).contains("folders every 1h, last").then_some(()))
        })
        .unwrap();
    assert!(note(&agent).contains("ago (1 not looked at in full)"), "{}", note(&agent));
    assert!(agent.log().contains("half.gz"), "{}", agent.log());
    drop(agent);
    let next = Agent::start_in(base.path(), &policy, Command::new(davy_test_e2e::davy()), &[]).unwrap();
    let of_the_last = note(&next);
    assert!(
        of_the_last.contains("folders every 1h, last") && of_the_last.contains("(1 not looked at in full)"),
        "{of_the_last}"
    );
    assert_eq!(next.findings().unwrap().iter().filter(|f| f.kind == FindingKind::Malware).count(), 1);
}

#[test]
fn what_is_off_looks_at_nothing() {
    let Some((agent, _base)) = watching("[scan]\nmode = \"off\"\nschedule = \"1h\"\n") else { return };
    let folder = tempfile::tempdir().unwrap();
    sample(&folder.path().join("dropped.sh"), "off");
    std::thread::sleep(Duration::from_secs(4));
    let status = agent.status().unwrap();
    assert!(!status.workers.iter().any(|w| w.name == "scan"));
    assert_eq!(status.protections.iter().find(|p| p.name == "scan").unwrap().mode, Mode::Off);
    assert!(agent.findings().unwrap().iter().all(|f| f.kind != FindingKind::Malware));
}

#[test]
fn the_drill_of_scans_holds() {
    let Some((agent, _base)) = watching("[scan]\ncpu = 100\n") else { return };
    let output = Command::new(davy_test_e2e::davy())
        .arg("--base-dir")
        .arg(agent.base())
        .args(["drill", "scan", "--json"])
        .output()
        .unwrap();
    let results: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(results[0]["name"], "scan/sample");
    assert_eq!(results[0]["outcome"], "held", "{results}");
}
