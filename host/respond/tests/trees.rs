//! Freezing and killing real process trees.

#![allow(clippy::unwrap_used, missing_docs)]

mod stage;

use std::{
    fs,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use davy_model::{Action, ActionState, ProcessKey};
use stage::*;

fn freeze(root: ProcessKey) -> Action {
    Action::Freeze { root, tree: vec![root] }
}

fn kill(root: ProcessKey) -> Action {
    Action::Kill { root, tree: vec![root] }
}

#[test]
fn a_tree_is_frozen_and_runs_on_after_undo() {
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let play = Play::shell("sleep 50 & sleep 50 & while :; do :; done").grown_to(4);
    let action = freeze(play.root);
    let outcome = act(&responder, &action);
    assert_eq!((outcome.state, outcome.undoable), (ActionState::Done, true), "{}", outcome.note);
    assert!(outcome.note.starts_with("4 processes frozen"), "{}", outcome.note);
    assert!(play.pids().iter().all(|&pid| state(pid) == Some('T')));

    let record = line(&action, &outcome);
    let undone = responder.undo(&record);
    assert_eq!(undone.state, ActionState::Undone, "{}", undone.note);
    wait_for("all to run on", || play.pids().iter().all(|&pid| state(pid) != Some('T')));
    let again = responder.undo(&record);
    assert_eq!(again.state, ActionState::Undone, "a second undo does no harm: {}", again.note);
    assert_eq!(play.pids().len(), 4);
}

#[test]
fn who_was_stopped_before_stays_stopped_after_undo() {
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let play = Play::shell("sleep 50 & kill -STOP $!; sleep 50 & wait").grown_to(4);
    wait_for("one to be stopped", || play.pids().iter().any(|&pid| state(pid) == Some('T')));
    let stopped: Vec<u32> = play.pids().into_iter().filter(|&pid| state(pid) == Some('T')).collect();
    assert_eq!(stopped.len(), 1);
    let action = freeze(play.root);
    let outcome = act(&responder, &action);
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    responder.undo(&line(&action, &outcome));
    wait_for("the others to run on", || {
        play.pids().iter().filter(|&&pid| state(pid) == Some('T')).count() == 1
    });
    assert_eq!(state(stopped[0]), Some('T'));
}

#[test]
fn a_tree_alone_in_its_cgroup_is_frozen_as_one() {
    let Some(cgroup) = TestCgroup::make() else { return };
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let play = cgroup.shell("sleep 50 & sleep 50 & wait").grown_to(4);
    let action = freeze(play.root);
    let outcome = act(&responder, &action);
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(outcome.note.contains("as one cgroup"), "{}", outcome.note);
    assert!(cgroup.is_frozen());
    let undone = responder.undo(&line(&action, &outcome));
    assert_eq!(undone.state, ActionState::Undone);
    wait_for("the cgroup to thaw", || !cgroup.is_frozen());
}

#[test]
fn what_was_frozen_is_killed_at_once() {
    let Some(cgroup) = TestCgroup::make() else { return };
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let play = cgroup.shell("sleep 50 & sleep 50 & wait").grown_to(4);
    act(&responder, &freeze(play.root));
    assert!(cgroup.is_frozen());
    let again = act(&responder, &freeze(play.root));
    assert!(again.note.contains("frozen before"), "{}", again.note);
    responder.undo(&line(&freeze(play.root), &again));
    assert!(cgroup.is_frozen(), "the second undo does not take back the first freeze");
    let begin = Instant::now();
    let outcome = act(&responder, &kill(play.root));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(outcome.note.starts_with("4 processes killed"), "{}", outcome.note);
    assert!(begin.elapsed() < Duration::from_millis(1_500), "{:?}", begin.elapsed());
    assert!(!cgroup.is_frozen());
}

#[test]
fn a_cgroup_that_stays_frozen_is_told() {
    let Some(cgroup) = TestCgroup::make() else { return };
    let state_dir = tempfile::tempdir().unwrap();
    // A hierarchy that says of the cgroup that it is frozen, and cannot be told otherwise: the kernel's file has a 1, for
    // the number of the loopback interface, and nobody may write it.
    let mount = tempfile::tempdir().unwrap();
    let folder = mount.path().join(&cgroup.path[1..]);
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(cgroup.folder().join("cgroup.procs"), folder.join("cgroup.procs")).unwrap();
    std::os::unix::fs::symlink("/sys/class/net/lo/ifindex", folder.join("cgroup.freeze")).unwrap();
    let frozen = fs::read_to_string(folder.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1");
    if !frozen || fs::OpenOptions::new().write(true).open(folder.join("cgroup.freeze")).is_ok() {
        println!("SKIPPED: a sysfs with a loopback interface that is not to be written");
        return;
    }
    let responder = responder_with(state_dir.path(), |config| config.cgroup2 = Some(mount.path().to_owned()));
    let play = cgroup.shell("sleep 50 & wait").grown_to(3);
    let outcome = act(&responder, &kill(play.root));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(!lives(&play.root));
    let told = format!("; the cgroup {} stays frozen", cgroup.path);
    assert!(outcome.note.contains(&told), "{}", outcome.note);
}

#[test]
fn a_stranger_in_the_cgroup_is_left_alone() {
    let Some(cgroup) = TestCgroup::make() else { return };
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let stranger = cgroup.shell("sleep 50");
    let play = cgroup.shell("sleep 50 & wait").grown_to(3);
    let outcome = act(&responder, &freeze(play.root));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(!cgroup.is_frozen());
    assert!(play.pids().iter().all(|&pid| state(pid) == Some('T')));
    assert!(stranger.pids().iter().all(|&pid| state(pid) != Some('T')));
    let outcome = act(&responder, &kill(play.root));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(lives(&stranger.root));
}

#[test]
fn a_tree_that_ignores_signals_is_killed() {
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let script = "trap '' TERM INT HUP; for i in 1 2 3; do sh -c 'trap \"\" TERM; sleep 50; :' & done; wait";
    let play = Play::shell(script).grown_to(8);
    let keys: Vec<_> = play.pids().into_iter().map(key).collect();
    let action = kill(play.root);
    let outcome = act(&responder, &action);
    assert_eq!((outcome.state, outcome.undoable), (ActionState::Done, false), "{}", outcome.note);
    assert!(outcome.note.starts_with("8 processes killed in "), "{}", outcome.note);
    assert!(keys.iter().all(|key| !lives(key)));
    let undone = responder.undo(&line(&action, &outcome));
    assert_eq!(undone.state, ActionState::Done);
    assert!(undone.note.contains("cannot be brought back"), "{}", undone.note);
    let again = act(&responder, &action);
    assert_eq!((again.state, again.note.as_str()), (ActionState::Done, "nothing was left to kill"));
}

#[test]
fn members_whose_parent_ended_are_found_by_the_list() {
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let mut play = Play::run(
        Command::new("sh").args(["-c", "timeout -s KILL 60 sleep 50 & echo $!"]).stdout(Stdio::piped()),
    );
    let orphan = key(first_line(&mut play.child).parse().unwrap());
    play.child.wait().unwrap();
    assert!(lives(&orphan));
    let action = Action::Kill { root: play.root, tree: vec![play.root, orphan] };
    let outcome = act(&responder, &action);
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(!lives(&orphan));
}

#[test]
fn threads_rest_too() {
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let program = "import threading\ndef f():\n  while True: pass\n\
                   for i in range(7): threading.Thread(target=f, daemon=True).start()\nf()";
    let play =
        Play::run(Command::new("timeout").args(["-s", "KILL", LIFE, "python3", "-c", program])).grown_to(2);
    let pid = *play.pids().iter().find(|&&pid| pid != play.root.pid).unwrap();
    let tasks = || fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    wait_for("eight threads", || tasks().count() == 8);
    let outcome = act(&responder, &freeze(play.root));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    for task in tasks() {
        let line = fs::read_to_string(task.path().join("stat")).unwrap();
        assert!(line.contains(") T "), "{line}");
    }
}

#[test]
fn a_name_that_is_no_text_hides_nobody() {
    use std::os::unix::ffi::OsStringExt;
    let folder = tempfile::tempdir().unwrap();
    let responder = responder(folder.path());
    let program = folder.path().join(std::ffi::OsString::from_vec(b"x\xff) R 1".to_vec()));
    fs::copy("/bin/sleep", &program).unwrap();
    let play = Play::run(Command::new("sh").args(["-c", "\"$1\" 50 & wait", "sh"]).arg(&program)).grown_to(2);
    wait_for("the program to run", || {
        play.pids()
            .iter()
            .any(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program))
    });
    let keys: Vec<_> = play.pids().into_iter().map(key).collect();
    let outcome = act(&responder, &kill(play.root));
    assert!(outcome.note.starts_with("2 processes killed"), "{}", outcome.note);
    assert!(keys.iter().all(|key| !lives(key)));
}

#[test]
fn a_zombie_counts_as_gone() {
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let mut child = Command::new("true").spawn().unwrap();
    wait_for("a zombie", || state(child.id()) == Some('Z'));
    let zombie = key(child.id());
    let outcome = act(&responder, &kill(zombie));
    assert_eq!((outcome.state, outcome.note.as_str()), (ActionState::Done, "nothing was left to kill"));
    assert_eq!(act(&responder, &freeze(zombie)).state, ActionState::Failed);
    child.wait().unwrap();
}

#[test]
fn a_pid_in_other_hands_is_not_touched() {
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let play = Play::shell("sleep 50").grown_to(2);
    let before = play.pids();
    let former = ProcessKey { start_ticks: play.root.start_ticks - 1, ..play.root };
    let outcome = act(&responder, &kill(former));
    assert_eq!(outcome.note, "nothing was left to kill");
    let other_boot = ProcessKey { boot: boot() ^ 1, ..play.root };
    assert!(responder.prepare(&kill(other_boot)).is_err());
    assert!(lives(&play.root));
    assert!(before.is_subset(&play.pids()));
}

#[test]
fn another_users_processes_are_killed() {
    if !is_root() {
        println!("SKIPPED: root is missing, which starting processes as another user needs");
        return;
    }
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let play = Play::shell("setpriv --reuid=65534 --regid=65534 --clear-groups sleep 50 & wait").grown_to(3);
    wait_for("a process of user 65534", || {
        play.pids().iter().any(|pid| {
            fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| s.contains("Uid:\t65534\t65534"))
        })
    });
    let outcome = act(&responder, &kill(play.root));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
}

/// Each process forks a successor and a sleeper and ends, so that the tree is never where it was looked for. It
/// ends by itself: a counter bounds it, and so does the time.
const RUNNER: &str = "f() { [ $1 -gt 0 ] || exit 0; ( sleep 20 & ) ; ( f $(($1 - 1)) & ) ; exit 0; }; f 150";

/// Doubles until 2^7 processes sleep.
const BOMB: &str = "g() { [ $1 -gt 0 ] || exec sleep 20; g $(($1 - 1)) & g $(($1 - 1)) & wait; }; g 7";

#[test]
fn a_fork_bomb_in_its_cgroup_leaves_nobody() {
    for (name, script) in [("doubling", BOMB), ("running away", RUNNER)] {
        let Some(cgroup) = TestCgroup::make() else { return };
        let state_dir = tempfile::tempdir().unwrap();
        let responder = responder(state_dir.path());
        let play = cgroup.shell(script);
        wait_for("the bomb to go off", || cgroup.pids().len() >= 20);
        let tree: Vec<_> = cgroup.pids().into_iter().filter(|&pid| state(pid).is_some()).map(key).collect();
        let action = Action::Kill { root: play.root, tree };
        let outcome = act(&responder, &action);
        assert_eq!(outcome.state, ActionState::Done, "{name}: {}", outcome.note);
        println!("{name}: {}", outcome.note);
        if name == "doubling" {
            let left: Vec<u32> = cgroup.pids().into_iter().filter(|&pid| state(pid) != Some('Z')).collect();
            assert!(left.is_empty(), "{name}: {left:?} live still");
        }
        assert!(!cgroup.is_frozen(), "an empty cgroup must not stay frozen");
    }
}

#[test]
fn a_fork_bomb_that_shares_its_cgroup_leaves_nobody() {
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder_with(state_dir.path(), |config| config.cgroup2 = None);
    let play = Play::shell(BOMB).grown_to(20);
    let outcome = act(&responder, &kill(play.root));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    println!("{}", outcome.note);
    sleep(Duration::from_millis(300));
    let group = play.root.pid;
    let left: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|&pid: &u32| {
            let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<_> = line.rsplit(')').next().unwrap_or("").split(' ').collect();
            fields.get(3) == Some(&group.to_string().as_str()) && fields.get(1) != Some(&"Z")
        })
        .collect();
    assert!(left.is_empty(), "{left:?} live still");
}

#[test]
fn davy_and_what_it_stands_on_are_spared() {
    let state_dir = tempfile::tempdir().unwrap();
    let play = Play::shell("sleep 50").grown_to(2);
    let own = key(std::process::id());
    let responder = responder(state_dir.path());
    let kernel = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .find(|&pid| parent(pid) == Some(2));
    let mut refused = vec![
        (key(1), "first process"),
        (own, "Davy itself"),
        (key(std::os::unix::process::parent_id()), "started by"),
    ];
    refused.extend(kernel.map(|pid| (key(pid), "kernel thread")));
    for (key, why) in refused {
        for action in [kill(key), freeze(key)] {
            let refusal = responder.prepare(&action).unwrap_err();
            assert!(refusal.reason.contains(why), "{}", refusal.reason);
        }
    }
    let strict = responder_with(state_dir.path(), |config| config.spare_children = true);
    assert!(strict.prepare(&kill(play.root)).unwrap_err().reason.contains("a part of Davy"));
    let spared = play.root;
    let told = responder_with(state_dir.path(), |config| {
        config.protected = Box::new(move |key| (*key == spared).then(|| "the payroll".into()));
    });
    assert_eq!(told.prepare(&kill(play.root)).unwrap_err().reason, "the payroll");
    assert!(lives(&play.root));
}

#[test]
fn a_protected_member_is_left_alone_and_the_rest_goes() {
    let state_dir = tempfile::tempdir().unwrap();
    // The kernel sends SIGHUP to a process group whose last parent outside ends while members are stopped.
    let play = Play::shell("trap '' HUP; sleep 50 & sleep 51 & wait").grown_to(4);
    let spared = *play.pids().iter().max().map(|pid| key(*pid)).as_ref().unwrap();
    let responder = responder_with(state_dir.path(), |config| {
        config.protected = Box::new(move |key| (*key == spared).then(|| "the payroll".into()));
    });
    let outcome = act(&responder, &kill(play.root));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(
        outcome.note.contains("3 processes killed") && outcome.note.contains("left alone: the payroll"),
        "{}",
        outcome.note
    );
    assert!(lives(&spared));
    let pid = rustix::process::Pid::from_raw(spared.pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_pretender_is_not_spared() {
    let folder = tempfile::tempdir().unwrap();
    let fake = folder.path().join("sshd");
    fs::copy("/bin/sleep", &fake).unwrap();
    let responder = responder(folder.path());
    let play = Play::run(Command::new(&fake).arg("50"));
    wait_for("the program to run", || {
        fs::read_to_string(format!("/proc/{}/comm", play.root.pid)).is_ok_and(|c| c == "sshd\n")
    });
    let outcome = act(&responder, &kill(play.root));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(!lives(&play.root));
}

#[test]
fn an_agent_that_died_in_the_middle_is_made_good() {
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let play = Play::shell("sleep 50 & sleep 50 & wait").grown_to(4);
    let action = freeze(play.root);
    let prepared = responder.prepare(&action).unwrap();
    let record = intended(&action, prepared.undo());
    // The former agent stopped two of four, and died.
    let stopped: Vec<u32> = play.pids().into_iter().take(2).collect();
    for &pid in &stopped {
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }
    wait_for("two to stop", || stopped.iter().all(|&pid| state(pid) == Some('T')));
    let outcome = responder.settle(&record);
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(play.pids().iter().all(|&pid| state(pid) == Some('T')));
    let undone = responder.undo(&line(&action, &outcome));
    assert_eq!(undone.state, ActionState::Undone);
    wait_for("all four to run on", || play.pids().iter().all(|&pid| state(pid) != Some('T')));

    let action = kill(play.root);
    let prepared = responder.prepare(&action).unwrap();
    let outcome = responder.settle(&intended(&action, prepared.undo()));
    assert_eq!(outcome.state, ActionState::Done, "{}", outcome.note);
    assert!(!lives(&play.root));
}

#[test]
fn killing_is_quick() {
    let state_dir = tempfile::tempdir().unwrap();
    let responder = responder(state_dir.path());
    let play = Play::shell("for i in 1 2 3 4 5 6; do sleep 50 & done; wait").grown_to(8);
    let begin = Instant::now();
    let outcome = act(&responder, &kill(play.root));
    println!("{} ({} ms with the failsafes)", outcome.note, begin.elapsed().as_millis());
    assert!(begin.elapsed() < Duration::from_secs(3), "{}", outcome.note);
}
