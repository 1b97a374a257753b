//! Nobody is locked out, whatever becomes of the agent. Tests that beat a report on fapolicyd bear its number.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use davy_files::permission::{Answer, Deadlines, GateConfig, PermissionGate};
use rustix::process::Signal;

use crate::agent::{Agent, signal};
use crate::ground::{Ground, WRONG, by_content, execute, gate, keeper, until};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("fapolicyd_342_a_judge_that_waits_for_its_log", fapolicyd_342_a_judge_that_waits_for_its_log),
    ("fapolicyd_227_ended_by_ctrl_c_in_a_decision", fapolicyd_227_ended_by_ctrl_c_in_a_decision),
    ("fapolicyd_227_stopped_in_a_decision", fapolicyd_227_stopped_in_a_decision),
    ("fapolicyd_393_under_stress_nothing_trusted_is_refused", fapolicyd_393_under_stress),
    ("fapolicyd_393_with_few_descriptors", fapolicyd_393_with_few_descriptors),
    ("fapolicyd_273_killed_by_a_fault_in_a_decision", fapolicyd_273_killed_by_a_fault_in_a_decision),
    ("fapolicyd_259_the_agent_may_open_what_it_judges", fapolicyd_259_the_agent_may_open_what_it_judges),
    ("agent_killed_in_a_decision", agent_killed_in_a_decision),
    ("out_of_disk", out_of_disk),
];

/// The stated bounds, with what a busy machine adds.
pub(crate) const SLACK: Duration = Duration::from_millis(700);
const DECIDED: Duration = Duration::from_secs(2);

/// Starts a program that nobody decides on, and waits until it is asked for.
pub(crate) fn hanging(agent: &mut Agent, path: &Path) -> (Child, Instant) {
    // By another process: a start in this one would wait in here.
    let child = Command::new("sh").args(["-c", "exec \"$0\""]).arg(path).spawn().unwrap();
    agent.hear("asked ");
    (child, Instant::now())
}

pub(crate) fn passes(mut child: Child, since: Instant, bound: Duration, what: &str) {
    until(what, bound + SLACK, || child.try_wait().unwrap().is_some_and(|status| status.success()));
    println!("{what}: after {:?}", since.elapsed());
}

pub(crate) fn quick(path: &Path) {
    let took = execute(path).unwrap();
    assert!(took < SLACK, "{took:?}");
}

/// A ground with a program that is fine, one that is not, and one that nobody decides on.
pub(crate) fn ground_of_three() -> (Ground, [PathBuf; 3]) {
    let ground = Ground::tmpfs();
    let paths = [ground.program("good", "a"), ground.program("bad", WRONG), ground.program("hang", "h")];
    (ground, paths)
}

fn fapolicyd_342_a_judge_that_waits_for_its_log() {
    let ground = Ground::tmpfs();
    let good = ground.program("good", "a");
    // The log is a pipe, full from the start; whoever drains it must first run a program from the marked mount.
    let (mut drain, log) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&log, 4096).unwrap();
    (&log).write_all(&[b'.'; 4096]).unwrap();
    let log = Arc::new(log);
    let mut config = GateConfig::new(keeper, {
        let log = log.clone();
        move |_| {
            (&*log).write_all(&[b'x'; 64]).unwrap();
            Answer::Allow
        }
    });
    config.deadlines = Deadlines::default();
    let gate = PermissionGate::start(config, vec![ground.mark()]).unwrap();
    let took = execute(&good).unwrap();
    assert!((DECIDED - SLACK..DECIDED + SLACK).contains(&took), "{took:?}");
    // Three more, and it is known that waiting for this judge leads nowhere.
    let others: Vec<_> = (0..3)
        .map(|_| {
            let good = good.clone();
            std::thread::spawn(move || execute(&good).unwrap())
        })
        .collect();
    assert!(others.into_iter().all(|other| other.join().unwrap() < DECIDED + SLACK));
    for _ in 0..20 {
        quick(&good);
    }
    // The log is drained at last: the judges decide, late, and are asked again.
    let drained = std::thread::spawn(move || {
        let mut bytes = [0; 4096 + 4 * 64];
        drain.read_exact(&mut bytes).unwrap();
        drain
    });
    let _drain = drained.join().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let judged = gate.counts().judged;
    quick(&good);
    until("the judge is asked again", Duration::from_secs(3), || gate.counts().judged > judged);
    assert_eq!(gate.counts().late, 4);
}

fn fapolicyd_227_ended_by_ctrl_c_in_a_decision() {
    ends_in_a_decision(Signal::INT);
}

fn fapolicyd_273_killed_by_a_fault_in_a_decision() {
    // Rust's own handler takes a SIGSEGV that has no fault behind it.
    ends_in_a_decision(Signal::ABORT);
}

fn agent_killed_in_a_decision() {
    ends_in_a_decision(Signal::KILL);
}

fn ends_in_a_decision(by: Signal) {
    let (ground, [good, bad, hang]) = ground_of_three();
    let mut agent = Agent::start(ground.path());
    assert_eq!(execute(&bad), Err(libc::EPERM));
    let (child, _) = hanging(&mut agent, &hang);
    signal(agent.pid(), by);
    passes(child, Instant::now(), Duration::ZERO, "an exec in the middle of a decision");
    quick(&good);
    assert!(execute(&bad).is_ok(), "nobody is asked any more");
    // Whoever inherits it may leave its entry there for a while.
    until("the keeper has gone too", SLACK, || {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.keeper)).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ")
    });
}

fn fapolicyd_227_stopped_in_a_decision() {
    let ground = Ground::tmpfs();
    let (good, hang) = (ground.program("good", "a"), ground.program("hang", "h"));
    let asked = Arc::new(AtomicBool::new(false));
    let noted = asked.clone();
    let config = GateConfig::new(keeper, move |ask| {
        if ask.path.ends_with("hang") {
            noted.store(true, Ordering::Release);
            std::thread::sleep(Duration::from_secs(10));
        }
        by_content(ask)
    });
    let gate = PermissionGate::start(config, vec![ground.mark()]).unwrap();
    let running = std::thread::spawn(move || execute(&hang));
    until("it is asked for", SLACK, || asked.load(Ordering::Acquire));
    let begin = Instant::now();
    let counts = gate.stop();
    assert!(running.join().unwrap().is_ok());
    assert!(begin.elapsed() < SLACK, "{:?}", begin.elapsed());
    assert_eq!(counts.absent, 1, "{counts:?}");
    quick(&good);
}

fn fapolicyd_393_under_stress() {
    const WORKERS: usize = 10;
    let ground = Ground::tmpfs();
    let (gate, _) = gate(&ground, true);
    let (refused, ran) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let until = Instant::now() + Duration::from_secs(5);
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (folder, refused, ran) = (ground.path().to_owned(), refused.clone(), ran.clone());
            std::thread::spawn(move || {
                for round in 0.. {
                    if Instant::now() >= until {
                        return;
                    }
                    let path = folder.join(format!("w{worker}-{round}"));
                    // Written by another process: a descriptor that leaks into a sibling's fork is ETXTBSY.
                    let script = "cp /bin/true \"$0\" && \"$0\" && printf x >>\"$0\" && \"$0\" && rm \"$0\"";
                    let done = Command::new("sh").args(["-c", script]).arg(&path).output().unwrap();
                    ran.fetch_add(2, Ordering::Relaxed);
                    if !done.status.success() {
                        println!("{}", String::from_utf8_lossy(&done.stderr));
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let counts = gate.stop();
    println!("{} execs, {counts:?}", ran.load(Ordering::Relaxed));
    assert_eq!(refused.load(Ordering::Relaxed), 0);
    assert_eq!(
        counts.asked,
        counts.judged + counts.remembered + counts.late + counts.absent + counts.crowded,
        "every question has one answer: {counts:?}"
    );
    assert!(counts.judged >= 100 && counts.late == 0 && counts.absent == 0, "{counts:?}");
}

/// Without a free descriptor for an event the kernel denies. So a keeper that might run out does not begin.
fn fapolicyd_393_with_few_descriptors() {
    let ground = Ground::tmpfs();
    let few = || {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 500; exec \"$0\" keep"]).arg(std::env::current_exe().unwrap());
        command
    };
    let config = GateConfig::new(few, by_content);
    let refused = PermissionGate::start(config, vec![ground.mark()]).unwrap_err();
    assert!(refused.to_string().contains("2,048 open files"), "{refused}");
    assert!(execute(&ground.program("bad", WRONG)).is_ok(), "nothing is left of it");
    // A soft limit is its own to raise. Far more wait at once than the soft limit has descriptors.
    let soft = || {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -S -n 20; exec \"$0\" keep"]).arg(std::env::current_exe().unwrap());
        command
    };
    let good = ground.program("good", "a");
    let config = GateConfig::new(soft, |_| {
        std::thread::sleep(Duration::from_millis(20));
        Answer::Allow
    });
    let _gate = PermissionGate::start(config, vec![ground.mark()]).unwrap();
    let mut children: Vec<_> = (0..80)
        .map(|_| {
            Command::new("sh").args(["-c", "exec \"$0\""]).arg(&good).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
}

fn fapolicyd_259_the_agent_may_open_what_it_judges() {
    let ground = Ground::tmpfs();
    let good = ground.program("good", "a");
    let beside = ground.path().join("database");
    fs::write(&beside, "text").unwrap();
    let mut config = GateConfig::new(keeper, move |_| {
        assert_eq!(fs::read(&beside).unwrap(), b"text");
        Answer::Allow
    });
    config.opens = true;
    let gate = PermissionGate::start(config, vec![ground.mark()]).unwrap();
    for _ in 0..5 {
        quick(&good);
    }
    assert_eq!(gate.counts().panics, 0);
    assert!(gate.stop().own >= 5);
}

fn out_of_disk() {
    let ground = Ground::tmpfs();
    let (good, bad) = (ground.program("good", "a"), ground.program("bad", WRONG));
    let journal = ground.path().join("journal");
    let config = GateConfig::new(keeper, move |ask| {
        // As an agent would that writes down what it decides.
        let written = fs::write(&journal, vec![b'x'; 1 << 20]);
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        by_content(ask)
    });
    let gate = PermissionGate::start(config, vec![ground.mark()]).unwrap();
    let mut filler = fs::File::create(ground.path().join("filler")).unwrap();
    while filler.write_all(&[0; 1 << 16]).is_ok() {}
    quick(&good);
    assert_eq!(execute(&bad), Err(libc::EPERM));
    let counts = gate.stop();
    assert_eq!((counts.panics, counts.late, counts.judged), (0, 0, 2), "{counts:?}");
}
