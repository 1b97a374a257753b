#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use davy_model::{CodeAct, Direction, EventKind};
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::Lacks;
use crate::watch::Watch;

/// Birth, program with its arguments, and end of a child.
pub(super) fn processes_are_seen() -> Result<()> {
    let watch = Watch::start()?;
    let mut child =
        Command::new("/bin/echo").args(["davy", "sees"]).env("LD_PRELOAD", "/tmp/x.so").spawn()?;
    let pid = child.id();
    child.wait()?;
    let born = |kind: &EventKind| matches!(kind, EventKind::Fork { child, .. } if child.pid == pid);
    watch.expect(std::process::id(), "fork", born)?;
    let exec = watch.expect(pid, "exec", |kind| matches!(kind, EventKind::Exec(_)))?;
    let EventKind::Exec(info) = exec.kind else { return Ok(()) };
    ensure!(info.args == ["/bin/echo", "davy", "sees"], "arguments are {:?}", info.args);
    ensure!(info.image.path.ends_with("/bin/busybox"), "the program is {}", info.image.path);
    ensure!(
        info.parent.is_some_and(|parent| parent.pid == std::process::id()),
        "the parent is {:?}",
        info.parent
    );
    ensure!(info.cgroup.contains("processes_are_seen"), "the cgroup is {}", info.cgroup);
    ensure!(info.env.iter().any(|(name, _)| name == "LD_PRELOAD"), "the environment is {:?}", info.env);
    let exit = watch.expect(pid, "exit", |kind| matches!(kind, EventKind::Exit(_)))?;
    let EventKind::Exit(exit) = exit.kind else { return Ok(()) };
    ensure!(exit.code == Some(0), "it ended with {exit:?}");
    Ok(())
}

/// A TCP flow from its beginning to its end, with its first bytes both ways.
pub(super) fn flows_are_seen() -> Result<()> {
    let watch = Watch::start()?;
    let pid = std::process::id();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    watch.expect(
        pid,
        "listen",
        |kind| matches!(kind, EventKind::Listen(flow) if flow.local.port() == address.port()),
    )?;
    let mut client = TcpStream::connect(address)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"{\"method\":\"login\"}\n")?;
    let mut said = [0; 18];
    server.read_exact(&mut said)?;
    server.write_all(b"{\"result\":true}\n")?;
    client.read_exact(&mut [0; 16])?;
    // The near end gets its port only after this is seen.
    let open = watch.expect(
        pid,
        "flow",
        |kind| matches!(kind, EventKind::FlowOpen(flow) if flow.remote == address && !flow.accepted),
    )?;
    let EventKind::FlowOpen(open) = open.kind else { return Ok(()) };
    watch.expect_bytes(open.flow, Direction::Sent, "login")?;
    watch.expect_bytes(open.flow, Direction::Received, "result")?;
    drop((client, server));
    watch.expect(pid, "end of the flow", |kind| {
        matches!(kind, EventKind::FlowClose(close) if close.flow == open.flow && close.volume.sent_bytes >= 18)
    })?;
    Ok(())
}

/// Memory that was written and then made executable, as unpackers and injected code do it.
pub(super) fn written_then_executable_is_seen() -> Result<()> {
    let watch = Watch::start()?;
    let length = 3 * 4096;
    // SAFETY: a new anonymous mapping of our own; written inside its length, and never executed.
    unsafe {
        let place = rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )?;
        place.cast::<u8>().write_bytes(0xc3, length);
        rustix::mm::mprotect(place, length, MprotectFlags::READ | MprotectFlags::EXEC)?;
    }
    watch.expect(std::process::id(), "written-then-executable memory", |kind| {
        matches!(kind, EventKind::Code(CodeAct::WrittenThenExecutable { bytes }) if *bytes == length as u64)
    })?;
    Ok(())
}

/// A program that is nowhere in the file system.
pub(super) fn memfd_execution_is_seen() -> Result<()> {
    let watch = Watch::start()?;
    let memory = rustix::fs::memfd_create("unseen", MemfdFlags::empty())?;
    File::from(memory.try_clone()?).write_all(&fs::read("/bin/busybox")?)?;
    let mut child = Command::new(format!("/proc/self/fd/{}", memory.as_raw_fd())).arg("true").spawn()?;
    child.wait()?;
    watch.expect(child.id(), "execution of a memfd", |kind| {
        matches!(kind, EventKind::Code(CodeAct::NamelessExec { memfd: true }))
    })?;
    Ok(())
}

/// Opening the model-specific registers for writing, which miners do to switch prefetchers off.
pub(super) fn msr_write_is_seen() -> Result<()> {
    const MAJOR: u32 = 202;
    let loaded = Command::new("/bin/insmod").arg("/lib/modules/msr.ko").output()?;
    if !loaded.status.success() {
        return Err(Lacks(format!("module msr: {}", String::from_utf8_lossy(&loaded.stderr).trim())).into());
    }
    let watch = Watch::start()?;
    let device = "/dev/cpu/0/msr";
    let opened = OpenOptions::new().read(true).write(true).open(device).with_context(|| device.to_owned())?;
    drop(opened);
    watch.expect(std::process::id(), "write access to registers", |kind| {
        matches!(kind, EventKind::Code(CodeAct::DeviceOpen { major: MAJOR, write: true, .. }))
    })?;
    Ok(())
}
