//! What a confined process can still do, tried for real: each act in a child of its own that confines itself first.
#![allow(clippy::unwrap_used, missing_docs, unsafe_code)]

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use davy_confine::Allowance;

const ACT: &str = "DAVY_CONFINED_ACT";
const MEMORY: u64 = 1 << 30;

/// The child: this very test program, told by its environment what to try. Without one it is no test.
#[test]
fn act() {
    let Ok(act) = std::env::var(ACT) else { return };
    let receives_files = act.ends_with("with files");
    let confinement = davy_confine::confine(Allowance { memory: MEMORY, receives_files }).unwrap();
    match act.as_str() {
        "nothing" => {}
        "tell" => {
            std::io::stderr().write_all(format!("CONFINED {confinement:?}\n").as_bytes()).unwrap();
        }
        "allocate" => drop(std::hint::black_box(vec![1u8; 64 << 20])),
        "allocate too much" => {
            let mut much: Vec<u8> = Vec::new();
            let refused = much.try_reserve_exact(usize::try_from(2 * MEMORY).unwrap()).is_err();
            // SAFETY: ends this child at once with what was found.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) };
        }
        "open" | "open with files" => drop(std::fs::File::open("/etc/hostname")),
        "connect" => drop(std::net::TcpStream::connect("127.0.0.1:9")),
        "execute" => drop(Command::new("/bin/true").status()),
        // SAFETY: the parent, which waits for this child and must not be reached.
        "signal" => drop(unsafe { libc::kill(libc::getppid(), 0) }),
        // SAFETY: a new anonymous mapping that nothing uses.
        "map executable" | "map executable with files" => drop(unsafe {
            let (rwx, private) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), 4096, rwx, private, -1, 0)
        }),
        // SAFETY: standard input is no socket, so the call fails and touches no memory.
        "receive" | "receive with files" => drop(unsafe { libc::recvmsg(0, std::ptr::null_mut(), 0) }),
        other => panic!("{other} is no act"),
    }
    // SAFETY: ends this child at once; the test harness of a confined process cannot report.
    unsafe { libc::_exit(0) };
}

fn run(act: &str) -> (ExitStatus, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "act", "--nocapture", "--test-threads=1"])
        .env(ACT, act)
        .output()
        .unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn filtered() -> bool {
    let (_, told) = run("tell");
    let filtered = told.contains("calls_filtered: true");
    if !filtered {
        println!("SKIPPED: acts of a confined process: {told}");
    }
    filtered
}

#[test]
fn a_confined_process_reads_writes_and_uses_memory() {
    for act in ["nothing", "tell", "allocate", "receive with files"] {
        let (status, said) = run(act);
        assert!(status.success(), "{act}: {status}: {said}");
    }
}

#[test]
fn memory_beyond_the_bound_is_refused() {
    let (status, said) = run("allocate too much");
    assert!(status.success(), "{status}: {said}");
}

#[test]
fn anything_else_ends_it() {
    if !filtered() {
        return;
    }
    for act in [
        "open",
        "connect",
        "execute",
        "signal",
        "map executable",
        "receive",
        "open with files",
        "map executable with files",
    ] {
        let (status, said) = run(act);
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{act}: {status}: {said}");
    }
}

#[test]
fn root_becomes_nobody() {
    let (_, told) = run("tell");
    if rustix::process::geteuid().is_root() {
        assert!(told.contains("unprivileged: true"), "{told}");
    } else {
        println!("SKIPPED: a change of user: not running as root");
    }
}
