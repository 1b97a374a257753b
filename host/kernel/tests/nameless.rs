//! Programs without a file are ended before their first instruction: in a cgroup of the test's own, and nowhere else.
#![allow(clippy::unwrap_used, missing_docs)]

mod live;

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use davy_kernel::NamelessMode;
use davy_model::{Capability, CodeAct, EventKind, FileId};
use live::Live;
use live::own::OwnCgroup;

/// `/bin/echo` without a file, in memory or in a file that never had a name.
fn nameless(memory: bool) -> OwnedFd {
    let file: OwnedFd = if memory {
        rustix::fs::memfd_create("hidden", rustix::fs::MemfdFlags::empty()).unwrap()
    } else {
        use rustix::fs::{CWD, Mode, OFlags};
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let folder = std::env::temp_dir();
        rustix::fs::openat(CWD, &folder, flags, Mode::from_raw_mode(0o755)).unwrap()
    };
    let mut writer = std::fs::File::from(file.try_clone().unwrap());
    writer.write_all(&std::fs::read("/bin/echo").unwrap()).unwrap();
    drop(writer);
    // The kernel executes nothing that is open for writing.
    let again = std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    again.into()
}

/// Runs it from a shell that first enters the cgroup; how it ended and what it wrote.
fn run_in(cgroup: &Path, program: &str) -> (ExitStatus, String) {
    let script = format!("echo $$ > {}/cgroup.procs && exec {program} written", cgroup.display());
    let output = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).output().unwrap();
    (output.status, String::from_utf8_lossy(&output.stdout).into_owned())
}

fn was_ended(outcome: &(ExitStatus, String)) -> bool {
    outcome.0.signal() == Some(9) && outcome.1.is_empty()
}

fn ran(outcome: &(ExitStatus, String)) -> bool {
    outcome.0.success() && outcome.1 == "written\n"
}

#[test]
fn code_without_a_file_is_ended_in_its_scope_before_it_wrote_a_byte() {
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let (inside, outside) = (OwnCgroup::make("nameless-in"), OwnCgroup::make("nameless-out"));
    let mut enforcement = live.sensors.nameless().unwrap();
    for memory in [true, false] {
        let file = nameless(memory);
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        assert!(ran(&run_in(&inside.0, &path)), "nothing is in a scope yet");
        enforcement.set_scope(inside.id(), Some(NamelessMode::Enforce)).unwrap();
        for _ in 0..20 {
            assert!(was_ended(&run_in(&inside.0, &path)));
        }
        assert!(ran(&run_in(&outside.0, &path)), "not in the scope");
        assert!(ran(&run_in(&inside.0, "/bin/echo")), "it has a file");
        let ended = enforcement.take_ended();
        assert_eq!(ended.len(), 20);
        assert!(ended.iter().all(|e| e.killed && e.process.boot == live::BOOT));
        // What was ended is told as any exec is.
        let first = ended[0].process;
        live.wait("the nameless exec", |event| {
            let is =
                matches!(event.kind, EventKind::Code(CodeAct::NamelessExec { memfd }) if memfd == memory);
            (is && event.process == Some(first)).then_some(())
        });
        enforcement.set_scope(inside.id(), None).unwrap();
        assert!(ran(&run_in(&inside.0, &path)), "the scope is gone");
    }
    drop(enforcement);
}

#[test]
fn a_scope_holds_below_it_but_for_what_is_exempt() {
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let outer = OwnCgroup::make("nameless-tree");
    let (service, agent) = (OwnCgroup::below(&outer.0, "service"), OwnCgroup::below(&outer.0, "agent"));
    let below_agent = OwnCgroup::below(&agent.0, "worker");
    let enforcement = live.sensors.nameless().unwrap();
    enforcement.set_scope(outer.id(), Some(NamelessMode::Enforce)).unwrap();
    enforcement.set_scope(agent.id(), Some(NamelessMode::Exempt)).unwrap();
    let file = nameless(true);
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    assert!(was_ended(&run_in(&service.0, &path)));
    assert!(ran(&run_in(&agent.0, &path)) && ran(&run_in(&below_agent.0, &path)));
    // A container runtime's child may: here the runtime is this test, by its file.
    let own = std::env::current_exe().unwrap().metadata().unwrap();
    enforcement.allow_under(FileId { dev: own.dev(), ino: own.ino() }).unwrap();
    assert!(ran(&run_in(&service.0, &path)));
}
