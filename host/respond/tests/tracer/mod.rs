//! Runs a child step by step: it is stopped before each system call that changes what lies on a disk.

#![allow(dead_code, unreachable_pub, missing_docs, unsafe_code, clippy::unwrap_used)]

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// What was about to be done when the child was stopped: the system call's name.
pub type Step = &'static str;

/// Whether a child may be traced here; says so where not.
pub fn available() -> bool {
    let mut steps = 0;
    let ran = step_through(&mut Command::new("true"), |_| {
        steps += 1;
        Go::On
    });
    if let Err(errno) = ran {
        println!("SKIPPED: ptrace(PTRACE_TRACEME) is missing: {errno}");
    }
    ran.is_ok()
}

/// What becomes of the child at a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Go {
    On,
    Kill,
}

/// How a child came to its end.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum End {
    Exited(i32),
    Killed,
}

/// Runs a command to its end, or until a step is answered by [`Go::Kill`]; all its threads are gone after this.
pub fn step_through(command: &mut Command, mut at: impl FnMut(Step) -> Go) -> Result<End, Errno> {
    run(command, &mut at, &mut |_| ())
}

/// Runs a command to its end, and gives its steps in order with whether each succeeded.
pub fn trace(command: &mut Command) -> Result<(End, Vec<(Step, bool)>), Errno> {
    let (mut steps, mut outcomes) = (Vec::new(), Vec::new());
    let note = &mut |step| {
        steps.push(step);
        Go::On
    };
    let end = run(command, note, &mut |succeeded| outcomes.push(succeeded))?;
    Ok((end, steps.into_iter().zip(outcomes).collect()))
}

fn run(
    command: &mut Command,
    at: &mut impl FnMut(Step) -> Go,
    left: &mut impl FnMut(bool),
) -> Result<End, Errno> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    // SAFETY: between fork and exec the child makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(std::io::Error::from));
    }
    // It is waited for here, by its process group, and not by the standard library.
    let child = command.spawn().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    follow(Pid::from_raw(child.id() as i32), at, left)
}

fn follow(leader: Pid, at: &mut impl FnMut(Step) -> Go, left: &mut impl FnMut(bool)) -> Result<End, Errno> {
    // One thread of these children changes disks, so that a step ends before the next begins.
    let mut within = None;
    let group = Pid::from_raw(-leader.as_raw());
    waitpid(leader, None)?;
    let follow = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(leader, follow)?;
    ptrace::syscall(leader, None)?;
    let mut end = None;
    loop {
        match waitpid(group, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == leader => end = Some(End::Exited(code)),
            Ok(WaitStatus::Signaled(pid, ..)) if pid == leader => end = Some(End::Killed),
            Ok(WaitStatus::PtraceSyscall(pid)) => {
                if within == Some(pid)
                    && let Some(succeeded) = left_with(pid)
                {
                    within = None;
                    left(succeeded);
                }
                let step = entered(pid);
                within = step.map(|_| pid).or(within);
                if let Some(step) = step
                    && at(step) == Go::Kill
                {
                    kill(leader, Signal::SIGKILL)?;
                } else {
                    let _ = ptrace::syscall(pid, None);
                }
            }
            Ok(WaitStatus::Stopped(pid, signal)) => {
                // A new thread begins with a stop of its own, which is nobody's signal.
                let signal = (signal != Signal::SIGSTOP).then_some(signal);
                let _ = ptrace::syscall(pid, signal);
            }
            Ok(WaitStatus::PtraceEvent(pid, ..)) => drop(ptrace::syscall(pid, None)),
            Ok(_) => {}
            Err(Errno::ECHILD) => return end.ok_or(Errno::ECHILD),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether the system call succeeded that a thread comes back from; `None` when it comes back from none.
fn left_with(pid: Pid) -> Option<bool> {
    let info = ptrace::syscall_info(pid).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_EXIT {
        return None;
    }
    // SAFETY: the kernel filled this member, as `op` says.
    Some(unsafe { info.u.exit.is_error } == 0)
}

/// The system call that a thread is about to make, when it is one that changes a disk.
fn entered(pid: Pid) -> Option<Step> {
    let info = ptrace::syscall_info(pid).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the kernel filled this member, as `op` says.
    let (number, args) = unsafe { (info.u.entry.nr, info.u.entry.args) };
    let name = CHANGING.iter().find(|(changing, _)| *changing as u64 == number)?.1;
    let changes = match name {
        "openat" => {
            args[2] as i32 & (libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY)) != 0
        }
        // What goes to the terminal or the test runner is on no disk.
        "write" | "writev" => args[0] > 2,
        "ioctl" => args[1] == FS_IOC_SETFLAGS,
        _ => true,
    };
    changes.then_some(name)
}

/// `_IOW('f', 2, long)`.
const FS_IOC_SETFLAGS: u64 = 0x4008_6602;

const CHANGING: [(i64, Step); 23] = [
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_pwrite64, "pwrite"),
    (libc::SYS_copy_file_range, "copy_file_range"),
    (libc::SYS_sendfile, "sendfile"),
    (libc::SYS_splice, "splice"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fsetxattr, "fsetxattr"),
    (libc::SYS_utimensat, "utimensat"),
    (libc::SYS_ioctl, "ioctl"),
];
