//! Births, programs, names, signals and ends of processes, as this kernel tells them.
#![allow(clippy::unwrap_used, missing_docs)]

mod live;

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use davy_model::{Capability, CodeAct, EventKind, ImageKind};
use live::Live;

/// Field 22 of `/proc/PID/stat`, and the parent in field 4.
fn stat(pid: u32) -> (u64, u32) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[19].parse().unwrap(), fields[1].parse().unwrap())
}

#[test]
fn a_program_is_told_with_all_that_belongs_to_it() {
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let folder = std::env::temp_dir().canonicalize().unwrap();
    let mut child = Command::new("/bin/sleep")
        .args(["5", "0"])
        .env("LD_PRELOAD", "/nonexistent/x.so")
        .current_dir(&folder)
        .stderr(Stdio::null())
        .arg0("not-sleep")
        .spawn()
        .unwrap();
    let pid = child.id();
    let (info, parent) = (stat(pid), std::process::id());
    let exec = live.wait("the exec of sleep", |event| match event.kind {
        EventKind::Exec(info) if info.key.pid == pid => Some(info),
        _ => None,
    });
    child.kill().unwrap();
    child.wait().unwrap();

    assert_eq!((exec.key.start_ticks, exec.key.boot), (info.0, live::BOOT));
    let own = exec.parent.unwrap();
    assert_eq!((own.pid, own.start_ticks), (parent, stat(parent).0));
    assert_eq!(exec.comm, "sleep");
    assert_eq!(exec.args, ["not-sleep", "5", "0"]);
    assert!(!exec.args_cut);
    assert!(exec.env.contains(&("LD_PRELOAD".to_owned(), "/nonexistent/x.so".to_owned())), "{:?}", exec.env);
    assert_eq!(exec.cwd, folder.to_string_lossy());
    let file = std::fs::canonicalize("/bin/sleep").unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(exec.image.path, file.to_string_lossy());
    assert_eq!((exec.image.file.dev, exec.image.file.ino), (metadata.dev(), metadata.ino()));
    assert_eq!(exec.image.kind, ImageKind::File);
    assert_eq!(exec.creds.uid, rustix::process::getuid().as_raw());
    assert!(exec.creds.caps != 0);
    for (name, number) in
        [("mnt", exec.ns.mnt), ("net", exec.ns.net), ("user", exec.ns.user), ("pid", exec.ns.pid)]
    {
        let link = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_eq!(link.to_string_lossy(), format!("{name}:[{number}]"));
    }
    let listed = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    if let Some(path) = listed.lines().find_map(|line| line.strip_prefix("0::")) {
        assert_eq!(exec.cgroup, path);
    }
    assert!(!exec.kernel_thread);

    let exit = live.wait("the end of sleep", |event| match event.kind {
        EventKind::Exit(exit) if event.process == Some(exec.key) => Some(exit),
        _ => None,
    });
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
}

#[test]
fn what_ends_another_process_is_told() {
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    for number in [2_u8, 3, 9, 15] {
        let mut child = Command::new("/bin/sleep").arg("20").spawn().unwrap();
        let start = stat(child.id()).0;
        let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
        let signal = rustix::process::Signal::from_named_raw(i32::from(number)).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        child.wait().unwrap();
        let (sender, target) = live.wait("the signal", |event| match event.kind {
            EventKind::Code(CodeAct::Signal { target, signal }) if target.pid == child.id() => {
                assert_eq!(signal, number);
                Some((event.process.unwrap(), target))
            }
            _ => None,
        });
        assert_eq!(sender.pid, std::process::id());
        assert_eq!(target.start_ticks, start);
    }
}

#[test]
fn an_exit_code_is_told() {
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let mut child = Command::new("/bin/sh").args(["-c", "exit 42"]).spawn().unwrap();
    child.wait().unwrap();
    let exit = live.wait("the end of sh", |event| match event.kind {
        EventKind::Exit(exit) if event.process.is_some_and(|key| key.pid == child.id()) => Some(exit),
        _ => None,
    });
    assert_eq!((exit.code, exit.signal), (Some(42), None));
}

#[test]
fn a_program_from_memory_is_told_as_such() {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let memory = rustix::fs::memfd_create("hidden", rustix::fs::MemfdFlags::empty()).unwrap();
    let mut memory = std::fs::File::from(memory);
    memory.write_all(&std::fs::read("/bin/sleep").unwrap()).unwrap();
    let mut child =
        Command::new(format!("/proc/self/fd/{}", memory.as_raw_fd())).arg("0.01").spawn().unwrap();
    child.wait().unwrap();
    let image = live.wait("the exec from memory", |event| match event.kind {
        EventKind::Exec(info) if info.key.pid == child.id() => Some(info.image),
        _ => None,
    });
    assert_eq!((image.kind, image.path.as_str()), (ImageKind::Memfd, "/memfd:hidden"));
    let act = live.wait("the nameless exec", |event| match event.kind {
        EventKind::Code(act) if event.process.is_some_and(|key| key.pid == child.id()) => Some(act),
        _ => None,
    });
    assert_eq!(act, CodeAct::NamelessExec { memfd: true });
}

#[test]
fn a_deleted_program_is_told_as_such() {
    use std::io::{Read, Write};
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shell");
    std::fs::copy(std::fs::canonicalize("/bin/sh").unwrap(), &path).unwrap();
    // The copy waits for its own file to go, and then executes it through its own open image.
    let mut child = Command::new(&path)
        .args(["-c", "echo ready; read line; exec /proc/self/exe -c 'exit 3'"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    std::fs::remove_file(&path).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let act = live.wait("the nameless exec", |event| match event.kind {
        EventKind::Code(act) if event.process.is_some_and(|key| key.pid == child.id()) => Some(act),
        _ => None,
    });
    assert_eq!(act, CodeAct::NamelessExec { memfd: false });
}

#[test]
fn a_changed_name_is_told_and_an_exec_is_not_one() {
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let mut child =
        Command::new("/bin/sh").args(["-c", "printf kworker/0 > /proc/$$/comm; exit 0"]).spawn().unwrap();
    child.wait().unwrap();
    let events = live.collect(Duration::from_millis(400));
    let names: Vec<_> = events
        .iter()
        .filter(|event| event.process.is_some_and(|key| key.pid == child.id()))
        .filter_map(|event| match &event.kind {
            EventKind::Renamed { comm } => Some(comm.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["kworker/0"]);
}

#[test]
fn no_short_process_is_missed() {
    const MANY: usize = 3000;
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let script = format!("i=0; while [ $i -lt {MANY} ]; do (:); i=$((i+1)); done");
    let mut shell = Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
    shell.wait().unwrap();
    let events = live.collect(Duration::from_millis(300));
    let mut born = std::collections::BTreeSet::new();
    for event in &events {
        match event.kind {
            EventKind::Fork { child, .. } if event.process.is_some_and(|key| key.pid == shell.id()) => {
                assert!(born.insert(child), "{child} was born twice");
            }
            EventKind::Exit(_) => {
                born.remove(&event.process.unwrap());
            }
            _ => {}
        }
    }
    let forks = events.iter().filter(|event| {
        matches!(event.kind, EventKind::Fork { .. }) && event.process.is_some_and(|key| key.pid == shell.id())
    });
    assert_eq!(forks.count(), MANY);
    assert_eq!(born.len(), 0, "ends were missed");
}

#[test]
fn a_flood_is_counted_and_hides_nobody() {
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    // A shell that renames itself without end, as fast as it can, for less than two seconds.
    let mut flood = Command::new("/bin/sh")
        .args(["-c", "i=0; while [ $i -lt 20000 ]; do printf x > /proc/$$/comm; i=$((i+1)); done"])
        .spawn()
        .unwrap();
    let mut quiet = Command::new("/bin/sh").args(["-c", "printf quiet > /proc/$$/comm"]).spawn().unwrap();
    quiet.wait().unwrap();
    live.wait("the quiet one's name", |event| match event.kind {
        EventKind::Renamed { comm } if comm == "quiet" => Some(()),
        _ => None,
    });
    flood.wait().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let drops = live.sensors.drops();
    let throttled = drops.iter().find(|(kind, _)| kind == "renamed/throttled").map(|(_, count)| *count);
    assert!(throttled.is_some_and(|count| count > 10_000), "{drops:?}");
    assert!(!drops.iter().any(|(kind, _)| kind.ends_with("/full")), "{drops:?}");
}
