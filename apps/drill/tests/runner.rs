//! The runner and its acts, played for real against an agent that is not: it answers on the same sockets, and what it
//! claims to do it does, or does not, as each test says.
#![allow(clippy::unwrap_used, missing_docs)]

mod fake;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use davy_drill::{Canary, DrillOptions, DrillProgress};
use davy_model::{Capability, Mode};
use davy_wire::{DrillOutcome, DrillResult};
use fake::{Fake, Manners};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, name, args @ ..] = words.as_slice()
        && verb == "drill-act"
    {
        std::process::exit(i32::from(davy_drill::act(name, args).is_err()));
    }
    if let [verb, folder, name] = words.as_slice()
        && verb == "drill-run"
    {
        let outcome = davy_drill::run(&options(Path::new(folder), name, 30), &mut |_| ());
        std::process::exit(if outcome.is_err() { 9 } else { 0 });
    }
    let mut arguments = Arguments::from_args();
    // A drill's cgroup is named after the process, and these tests are one.
    arguments.test_threads = Some(1);
    let tests: Vec<(&str, fn())> = vec![
        ("no_agent_is_an_error_that_says_what_to_do", no_agent),
        ("a_name_that_is_no_drill_is_an_error", no_such_drill),
        ("acts_are_what_they_play", acts_are_what_they_play),
        ("computing_and_throttled", computing_and_throttled),
        ("stratum_is_spoken", stratum_is_spoken),
        ("pools_are_reached_where_the_policy_lets_nobody_out", let_out),
        ("a_silent_agent_fails_and_nothing_is_left", silent_agent),
        ("a_missing_capability_is_unsupported", missing_capability),
        ("off_is_off", off),
        ("kill_holds", kill_holds),
        ("kill_that_does_not_kill_fails", kill_liar),
        ("freeze_and_undo_hold", freeze_undo),
        ("quarantine_and_undo_hold", quarantine_undo),
        ("quarantine_that_changes_the_file_fails", quarantine_careless),
        ("ctrl_c_cleans_up", ctrl_c),
        ("what_a_killed_drill_left_is_swept", killed),
        ("cut_that_does_not_cut_fails", cut_liar),
        ("an_isolation_that_does_not_isolate_fails", isolation_liar),
        ("a_signal_is_delivered_and_told_or_refused", tampering),
        ("a_canary_stands_still_runs_on_and_ends", canary),
        ("what_a_killed_canary_s_agent_left_is_swept", canary_left),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            std::panic::catch_unwind(test).map_err(|_| Failed::from("panicked, see above"))?;
            nothing_is_left().map_err(Failed::from)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// What every test leaves behind: no act, no cgroup, no folder.
fn nothing_is_left() -> Result<(), String> {
    let own = std::process::id();
    let children = fake::acts();
    if !children.is_empty() {
        return Err(format!("acts still run: {children:?}"));
    }
    match made_by(own).first() {
        Some(left) => Err(format!("{} is still there", left.display())),
        None => Ok(()),
    }
}

fn drill(fake: &Fake, name: &str, seconds: u64) -> DrillResult {
    let options = options(fake.folder(), name, seconds);
    let mut seen = Vec::new();
    let results = davy_drill::run(&options, &mut |p| seen.push(p)).unwrap();
    assert!(matches!(
        seen.as_slice(),
        [DrillProgress::Started { number: 1, of: 1, .. }, DrillProgress::Finished(_)]
    ));
    assert_eq!(results.len(), 1);
    println!("{:?}", results[0]);
    assert_eq!(fake.told(), Some(davy_wire::Tally::of(&results)), "the agent is told");
    results[0].clone()
}

fn options(folder: &Path, name: &str, seconds: u64) -> DrillOptions {
    DrillOptions {
        read_socket: folder.join("read.sock"),
        control_socket: folder.join("control.sock"),
        names: vec![name.to_owned()],
        timeout: Duration::from_secs(seconds),
        program: None,
    }
}

/// Whether drills that stop something can be played; says so when not.
fn can_stop() -> bool {
    let root = rustix::process::geteuid().is_root();
    let writable = fake::cgroup2().is_some_and(|mount| {
        let trial: PathBuf = mount.join(format!("davy-drill-trial-{}", std::process::id()));
        std::fs::create_dir(&trial).and_then(|()| std::fs::remove_dir(&trial)).is_ok()
    });
    if !(root && writable) {
        println!("SKIPPED: root and a writable cgroup v2 mount");
    }
    root && writable
}

fn no_agent() {
    let error = davy_drill::run(&options(Path::new("/nonexistent"), "detect", 1), &mut |_| ()).unwrap_err();
    assert!(format!("{error:#}").contains("davy run"), "{error:#}");
}

fn no_such_drill() {
    let fake = Fake::start(Manners::default());
    let error = davy_drill::run(&options(fake.folder(), "detect/rndomx", 1), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("detect/randomx"), "{error:#}");
}

fn acts_are_what_they_play() {
    for name in
        ["detect/memfd", "detect/deleted", "detect/masquerade", "detect/persistence", "campaign/competitors"]
    {
        let fake = Fake::start(Manners::default());
        let result = drill(&fake, name, 15);
        assert_eq!(result.outcome, DrillOutcome::Held, "{result:?}");
        assert!(result.detect_ms.is_some() && result.stop_ms.is_none(), "{result:?}");
    }
}

fn computing_and_throttled() {
    let rates: Vec<f64> = ["detect/randomx", "detect/throttled"]
        .map(|name| {
            let fake = Fake::start(Manners { cpu_ms: 3000, ..Manners::default() });
            let begun = Instant::now();
            let result = drill(&fake, name, 30);
            assert_eq!(result.outcome, DrillOutcome::Held, "{result:?}");
            3000.0 / begun.elapsed().as_millis() as f64
        })
        .into();
    // Both had to use three seconds of CPU on at most two threads; held to a quarter that takes far longer.
    assert!(rates[1] < 0.6, "the throttled act used the CPU at {rates:?}");
}

fn stratum_is_spoken() {
    for name in ["detect/stratum", "detect/pool-tls", "detect/pool-list"] {
        if rustix::process::geteuid().is_root() && !can_stop() {
            return;
        }
        let fake = Fake::start(Manners::default());
        let result = drill(&fake, name, 15);
        assert_eq!(result.outcome, DrillOutcome::Held, "{result:?}");
    }
}

fn let_out() {
    if can_stop() {
        let manners = Manners { refuses_connections: true, ..Manners::default() };
        for name in ["detect/stratum", "detect/pool-tls", "detect/pool-list"] {
            let result = drill(&Fake::start(manners), name, 15);
            assert_eq!(result.outcome, DrillOutcome::Held, "{result:?}");
        }
        // In a rehearsal it would be ended at once.
        let result = drill(&Fake::start(manners), "respond/freeze-undo", 4);
        assert_eq!(result.outcome, DrillOutcome::Unsupported, "{result:?}");
        assert!(result.evidence.contains("refuses connections"), "{result:?}");
    }
}

fn silent_agent() {
    let fake = Fake::start(Manners { silent: true, ..Manners::default() });
    let result = drill(&fake, "detect/memfd", 1);
    assert_eq!(result.outcome, DrillOutcome::Failed, "{result:?}");
    assert!(result.evidence.contains("no such finding"), "{result:?}");
}

fn missing_capability() {
    let fake = Fake::start(Manners { lacks: Some(Capability::FpuState), ..Manners::default() });
    let result = drill(&fake, "detect/randomx", 1);
    assert_eq!((result.outcome, result.tier), (DrillOutcome::Unsupported, None));
    assert!(result.evidence.contains("FpuState") && result.evidence.contains("not here"), "{result:?}");
}

fn off() {
    let fake = Fake::start(Manners { mode: Mode::Off, ..Manners::default() });
    assert_eq!(drill(&fake, "detect/memfd", 1).outcome, DrillOutcome::Off);
}

fn kill_holds() {
    if can_stop() {
        let fake = Fake::start(Manners::default());
        let result = drill(&fake, "respond/kill", 15);
        assert_eq!(result.outcome, DrillOutcome::Held, "{result:?}");
        assert!(result.stop_ms.is_some() && result.detect_ms.is_some(), "{result:?}");
    }
}

fn kill_liar() {
    if can_stop() {
        let fake = Fake::start(Manners { liar: true, ..Manners::default() });
        let result = drill(&fake, "respond/kill", 3);
        assert_eq!(result.outcome, DrillOutcome::Failed, "{result:?}");
        assert!(result.evidence.contains("not ended"), "{result:?}");
    }
}

fn freeze_undo() {
    if can_stop() {
        let fake = Fake::start(Manners::default());
        let result = drill(&fake, "respond/freeze-undo", 20);
        assert_eq!(result.outcome, DrillOutcome::Held, "{result:?}");
        let fake = Fake::start(Manners { liar: true, ..Manners::default() });
        let result = drill(&fake, "respond/freeze-undo", 4);
        assert_eq!(result.outcome, DrillOutcome::Failed, "{result:?}");
    }
}

fn quarantine_undo() {
    if can_stop() {
        let fake = Fake::start(Manners::default());
        let result = drill(&fake, "respond/quarantine-undo", 15);
        assert_eq!(result.outcome, DrillOutcome::Held, "{result:?}");
    }
}

fn quarantine_careless() {
    if can_stop() {
        let fake = Fake::start(Manners { careless: true, ..Manners::default() });
        let result = drill(&fake, "respond/quarantine-undo", 15);
        assert_eq!(result.outcome, DrillOutcome::Failed, "{result:?}");
        assert!(result.evidence.contains("came back changed"), "{result:?}");
    }
}

/// Starts a drill in a process of its own, and waits until its act is there.
fn start_apart(fake: &Fake) -> (std::process::Child, Vec<PathBuf>) {
    let program = std::env::current_exe().unwrap();
    let mut command = std::process::Command::new(program);
    command.args(["drill-run", fake.folder().to_str().unwrap(), "detect/stratum"]);
    let child = command.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until && fake::acts_of(child.id()).is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fake::acts_of(child.id()).len(), 1);
    let made = made_by(child.id());
    assert!(!made.is_empty());
    (child, made)
}

/// Cgroups and folders named after a drill's process.
fn made_by(pid: u32) -> Vec<PathBuf> {
    let places = [Some(std::env::temp_dir()), fake::cgroup2()];
    let entries = places.into_iter().flatten().flat_map(|p| std::fs::read_dir(p).unwrap().flatten());
    let name = format!("davy-drill-{pid}");
    let ours = |rest: &str| rest.is_empty() || rest.starts_with('-');
    entries
        .map(|e| e.path())
        .filter(|p| p.file_name().unwrap().to_str().unwrap().strip_prefix(&name).is_some_and(ours))
        .collect()
}

fn signal(child: &std::process::Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn ctrl_c() {
    let fake = Fake::start(Manners { silent: true, ..Manners::default() });
    let (mut child, _) = start_apart(&fake);
    signal(&child, rustix::process::Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(9), "the drill cleans up and says that it was interrupted");
    assert_eq!(made_by(child.id()), Vec::<PathBuf>::new());
}

fn killed() {
    let fake = Fake::start(Manners { silent: true, ..Manners::default() });
    let (mut child, made) = start_apart(&fake);
    let act = fake::acts_of(child.id())[0];
    signal(&child, rustix::process::Signal::KILL);
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!fake::is_alive(act), "the act outlived its drill");
    assert!(made.iter().all(|m| m.exists()), "nobody could clean up");
    drill(&fake, "detect/memfd", 0);
    assert_eq!(made_by(child.id()), Vec::<PathBuf>::new());
}

fn cut_liar() {
    if can_stop() {
        // The fake ends the act, but what it says of cutting is never true.
        let fake = Fake::start(Manners::default());
        let result = drill(&fake, "respond/cut", 15);
        assert_eq!(result.outcome, DrillOutcome::Failed, "{result:?}");
        assert!(result.evidence.contains("could still be reached"), "{result:?}");
    }
}

fn isolation_liar() {
    if can_stop() {
        // The fake says that it isolates, and never does.
        let fake = Fake::start(Manners::default());
        let result = drill(&fake, "respond/isolate", 15);
        assert_eq!(result.outcome, DrillOutcome::Failed, "{result:?}");
        assert!(result.evidence.contains("still reached the other end"), "{result:?}");
    }
}

/// This process is the agent that is signalled.
fn tampering() {
    if !can_stop() {
        return;
    }
    let play = |manners: Manners| drill(&Fake::start(manners), "tampering/signal", 3);
    let result = play(Manners::default());
    assert_eq!(result.outcome, DrillOutcome::Unsupported, "it would have ended this process: {result:?}");
    assert!(result.evidence.contains("older than the drill"), "{result:?}");

    let got = std::sync::Arc::default();
    signal_hook::flag::register(signal_hook::consts::SIGQUIT, std::sync::Arc::clone(&got)).unwrap();
    let got = || got.swap(false, std::sync::atomic::Ordering::Relaxed);
    let result = play(Manners::default());
    assert_eq!(result.outcome, DrillOutcome::Held, "{result:?}");
    assert!(got() && result.evidence.starts_with("delivered"), "{result:?}");
    assert!(result.detect_ms.is_some() && result.stop_ms.is_none(), "{result:?}");

    let result = play(Manners { silent: true, ..Manners::default() });
    assert_eq!(result.outcome, DrillOutcome::Failed, "{result:?}");
    assert!(got() && result.evidence.contains("did not tell"), "{result:?}");

    let result = play(Manners { lsm: true, ..Manners::default() });
    assert_eq!(result.outcome, DrillOutcome::Failed, "what is said to be refused was not: {result:?}");
    assert!(got() && result.evidence.contains("reached the agent"), "{result:?}");

    let result = play(Manners { mode: Mode::Off, ..Manners::default() });
    assert_eq!(result.outcome, DrillOutcome::Off, "{result:?}");
    assert!(!got(), "what is off is not tried");
}

fn canary() {
    if !can_stop() {
        return;
    }
    let mut canary = Canary::start(&std::env::current_exe().unwrap()).unwrap();
    let cgroup = fake::cgroup2().unwrap().join(canary.cgroup().unwrap().trim_start_matches('/'));
    assert_eq!(std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap(), format!("{}\n", canary.pid()));
    assert!(canary.answers(None).unwrap());
    std::fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
    assert!(!canary.answers(Some(Duration::from_millis(300))).unwrap(), "it stands still");
    std::fs::write(cgroup.join("cgroup.freeze"), "0").unwrap();
    assert!(canary.answers(None).unwrap(), "it runs on");
    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = open.local_addr().unwrap();
    assert_eq!(canary.connect(address).unwrap(), "connected");
    drop(open);
    assert!(canary.connect(address).unwrap().starts_with("refused "));
    std::fs::write(cgroup.join("cgroup.kill"), "1").unwrap();
    assert!(canary.ends() && canary.answers(None).is_err());
    drop(canary);
    assert!(!cgroup.exists());
    // One that stands still goes with its value too.
    let canary = Canary::start(&std::env::current_exe().unwrap()).unwrap();
    let pid = canary.pid();
    let cgroup = fake::cgroup2().unwrap().join(canary.cgroup().unwrap().trim_start_matches('/'));
    std::fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
    drop(canary);
    assert!(!cgroup.exists() && !fake::is_alive(pid));
}

fn canary_left() {
    if !can_stop() {
        return;
    }
    // As an agent left it that had this pid before and was killed while its canary stood still.
    let cgroup = fake::cgroup2().unwrap().join(format!("davy-canary-{}-1-1", std::process::id()));
    std::fs::create_dir(&cgroup).unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    std::fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
    std::fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
    Canary::sweep();
    assert!(!child.wait().unwrap().success());
    assert!(!cgroup.exists());
}
