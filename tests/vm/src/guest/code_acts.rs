//! Ways to make code run, done by one process so that its scope decides. Each says what the kernel answered.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Error, Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect};

const PAGE: usize = 4096;

/// Does the act of this name; `None` when there is none.
pub(crate) fn run(act: &[&str]) -> Option<ExitCode> {
    let done = match act {
        ["memfd", file, rest @ ..] => memfd(file, rest),
        ["tmpfile", folder, file, rest @ ..] => tmpfile(folder, file, rest),
        ["deleted", file, rest @ ..] => deleted(file, rest),
        ["by-descriptor", loader, file, rest @ ..] => by_descriptor(loader, file, rest),
        ["as-user", uid, program, rest @ ..] => as_user(uid, program, rest),
        ["map", file] => map(file, ProtFlags::READ | ProtFlags::EXEC).map(drop),
        ["map-memfd", file] => map_memfd(file),
        ["map-memfd-often", file, flag] => map_memfd_often(file, flag),
        ["map-then-protect", file] => map_then_protect(file),
        ["map-after-copy", file, good] => map_after_copy(file, good),
        ["map-and-write", file] => map_and_write(file),
        ["hold-mapped", file, flag] => hold_mapped(file, flag),
        ["write-then-run-memory"] => write_then_run_memory(),
        ["memory", "rwx"] => anonymous(ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC),
        ["memory", "rx"] => anonymous(ProtFlags::READ | ProtFlags::EXEC),
        ["own-memory"] => OpenOptions::new().write(true).open("/proc/self/mem").map(drop),
        ["shared-write", from, to] => shared_write(from, to),
        ["page-zero", program] => page_zero(program),
        ["read-implies-exec"] => read_implies_exec(),
        ["traceme"] => traceme(),
        ["write-into", pid] => write_into(pid),
        ["load-bpf"] => load_bpf(),
        ["load-module", how, file] => load_module(how, file),
        ["race", good, bad, target] => race(good, bad, target),
        ["race-of-names", good, bad, target] => race_of_names(good, bad, target),
        ["write-by-ring", from, to] => crate::ring::copy(from, to),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn exec(path: &str, arguments: &[&str]) -> io::Result<()> {
    Err(Command::new(path).arg0("busybox").args(arguments).exec())
}

fn as_user(uid: &str, program: &str, arguments: &[&str]) -> io::Result<()> {
    let uid = uid.parse().map_err(Error::other)?;
    Err(Command::new(program).arg0("busybox").args(arguments).uid(uid).gid(uid).exec())
}

fn held(file: &impl AsRawFd) -> io::Result<String> {
    // Kept over the exec: a script's interpreter opens it by this name.
    // SAFETY: clears the close-on-exec flag of a descriptor that is open.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
    if done < 0 { Err(Error::last_os_error()) } else { Ok(format!("/proc/self/fd/{}", file.as_raw_fd())) }
}

fn memfd_of(file: &str) -> io::Result<File> {
    let mut memory = File::from(rustix::fs::memfd_create("unseen", MemfdFlags::empty())?);
    memory.write_all(&fs::read(file)?)?;
    memory.rewind()?;
    Ok(memory)
}

fn memfd(file: &str, arguments: &[&str]) -> io::Result<()> {
    let memory = memfd_of(file)?;
    exec(&held(&memory)?, arguments)
}

fn tmpfile(folder: &str, file: &str, arguments: &[&str]) -> io::Result<()> {
    let mut unnamed =
        OpenOptions::new().read(true).write(true).mode(0o755).custom_flags(libc::O_TMPFILE).open(folder)?;
    unnamed.write_all(&fs::read(file)?)?;
    let readable = File::open(format!("/proc/self/fd/{}", unnamed.as_raw_fd()))?;
    drop(unnamed);
    exec(&held(&readable)?, arguments)
}

fn deleted(file: &str, arguments: &[&str]) -> io::Result<()> {
    let open = File::open(file)?;
    fs::remove_file(file)?;
    exec(&held(&open)?, arguments)
}

fn by_descriptor(loader: &str, file: &str, arguments: &[&str]) -> io::Result<()> {
    let memory = memfd_of(file)?;
    let path = held(&memory)?;
    exec(loader, &[&[path.as_str()], arguments].concat())
}

fn map(file: &str, protection: ProtFlags) -> io::Result<*mut u8> {
    let file = File::open(file)?;
    // SAFETY: a new mapping that nothing else refers to; it stays until the process ends.
    let place = unsafe { mmap(std::ptr::null_mut(), PAGE, protection, MapFlags::PRIVATE, &file, 0) }?;
    Ok(place.cast())
}

fn map_memfd(file: &str) -> io::Result<()> {
    let memory = memfd_of(file)?;
    // SAFETY: as in `map`.
    unsafe {
        mmap(std::ptr::null_mut(), PAGE, ProtFlags::READ | ProtFlags::EXEC, MapFlags::SHARED, &memory, 0)
    }?;
    Ok(())
}

/// Tries until a file is removed; each time the whole of the memfd is read for it, in a scope.
fn map_memfd_often(file: &str, flag: &str) -> io::Result<()> {
    let memory = memfd_of(file)?;
    while fs::exists(flag)? {
        let protection = ProtFlags::READ | ProtFlags::EXEC;
        // SAFETY: a new mapping that nothing refers to, taken away again.
        unsafe {
            if let Ok(place) = mmap(std::ptr::null_mut(), PAGE, protection, MapFlags::SHARED, &memory, 0) {
                rustix::mm::munmap(place, PAGE)?;
            }
        }
    }
    Ok(())
}

fn map_then_protect(file: &str) -> io::Result<()> {
    let place = map(file, ProtFlags::READ)?;
    // SAFETY: one page of a mapping of our own.
    unsafe { mprotect(place.cast(), PAGE, MprotectFlags::READ | MprotectFlags::EXEC) }?;
    Ok(())
}

/// Maps what was opened before the overlay it lies on took another content.
fn map_after_copy(file: &str, good: &str) -> io::Result<()> {
    let before = File::open(file)?;
    let expected = fs::read(file)?;
    fs::write(file, fs::read(good)?)?;
    // SAFETY: a new mapping that nothing else refers to, looked at inside its length while the file has as many bytes.
    unsafe {
        let protection = ProtFlags::READ | ProtFlags::EXEC;
        let place = mmap(std::ptr::null_mut(), PAGE, protection, MapFlags::PRIVATE, &before, 0)?;
        let mapped = std::slice::from_raw_parts(place.cast::<u8>(), expected.len().min(PAGE));
        if mapped == &expected[..mapped.len()] {
            Ok(())
        } else {
            Err(Error::other("the new content is mapped"))
        }
    }
}

/// Private pages of a file, overwritten and then made executable: no longer the file's content.
fn map_and_write(file: &str) -> io::Result<()> {
    let place = map(file, ProtFlags::READ | ProtFlags::WRITE)?;
    // SAFETY: one page of a private, writable mapping of our own.
    unsafe {
        place.write_bytes(0xc3, PAGE);
        mprotect(place.cast(), PAGE, MprotectFlags::READ | MprotectFlags::EXEC)?;
    }
    Ok(())
}

/// Maps a file as code, says so by a file of its own, and stays until that is removed.
fn hold_mapped(file: &str, flag: &str) -> io::Result<()> {
    map(file, ProtFlags::READ | ProtFlags::EXEC)?;
    fs::write(flag, "")?;
    while fs::exists(flag)? {
        thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

fn write_then_run_memory() -> io::Result<()> {
    // SAFETY: a new anonymous mapping of our own, written inside its length, and called as a function that only returns.
    unsafe {
        let place = mmap_anonymous(
            std::ptr::null_mut(),
            PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )?;
        place.cast::<u8>().write_bytes(0xc3, PAGE);
        mprotect(place, PAGE, MprotectFlags::READ | MprotectFlags::EXEC)?;
        let function: extern "C" fn() = std::mem::transmute(place);
        function();
    }
    Ok(())
}

fn anonymous(protection: ProtFlags) -> io::Result<()> {
    // SAFETY: a new mapping of our own.
    unsafe { mmap_anonymous(std::ptr::null_mut(), PAGE, protection, MapFlags::PRIVATE) }?;
    Ok(())
}

/// Overwrites a file through a shared mapping alone.
fn shared_write(from: &str, to: &str) -> io::Result<()> {
    let bytes = fs::read(from)?;
    let file = OpenOptions::new().read(true).write(true).open(to)?;
    file.set_len(bytes.len() as u64)?;
    // SAFETY: a new shared mapping of our own, written inside its length, which is the file's.
    unsafe {
        let place = mmap(
            std::ptr::null_mut(),
            bytes.len(),
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &file,
            0,
        )?;
        drop(file);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.cast(), bytes.len());
        rustix::mm::munmap(place, bytes.len())?;
    }
    Ok(())
}

fn personality(persona: libc::c_int) -> io::Result<()> {
    // SAFETY: changes how this process's next mappings and programs are laid out, no memory that is there.
    let before = unsafe { libc::personality(persona as libc::c_ulong) };
    if before < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// The kernel maps page zero executable without a file, and without calling it anonymous.
fn page_zero(program: &str) -> io::Result<()> {
    personality(libc::MMAP_PAGE_ZERO)?;
    exec(program, &["true"])
}

/// Asks for readable memory and gets executable memory.
fn read_implies_exec() -> io::Result<()> {
    personality(libc::READ_IMPLIES_EXEC)?;
    anonymous(ProtFlags::READ | ProtFlags::WRITE)
}

fn traceme() -> io::Result<()> {
    // SAFETY: a child that asks to be traced and ends with the answer; it makes only system calls.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let done = libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::_exit(if done == 0 { 0 } else { *libc::__errno_location() });
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        match libc::WEXITSTATUS(status) {
            0 => Ok(()),
            error => Err(Error::from_raw_os_error(error)),
        }
    }
}

/// Writes into another's memory where it is mapped; whatever lies there is written back as it was.
fn write_into(pid: &str) -> io::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).ok_or(Error::other("no stack"))?;
    let begin = stack.split('-').next().and_then(|hex| usize::from_str_radix(hex, 16).ok());
    let mut byte = [0u8; 1];
    let own = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let other = libc::iovec { iov_base: begin.unwrap_or(0) as *mut _, iov_len: 1 };
    let pid = pid.parse().map_err(Error::other)?;
    // SAFETY: the local place is valid for its length; the kernel checks the other's.
    let written = unsafe {
        if libc::process_vm_readv(pid, &raw const own, 1, &raw const other, 1, 0) == 1 {
            libc::process_vm_writev(pid, &raw const own, 1, &raw const other, 1, 0)
        } else {
            -1
        }
    };
    if written == 1 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// A program that returns at once: two instructions.
fn load_bpf() -> io::Result<()> {
    use libbpf_rs::libbpf_sys::{BPF_PROG_TYPE_SOCKET_FILTER, bpf_insn, bpf_prog_load};
    let mut code = [bpf_insn::default(); 2];
    code[0].code = 0xb7;
    code[1].code = 0x95;
    // SAFETY: the texts end with a zero, the code is valid for its length, and no options are given.
    let loaded = unsafe {
        bpf_prog_load(
            BPF_PROG_TYPE_SOCKET_FILTER,
            c"two".as_ptr(),
            c"GPL".as_ptr(),
            code.as_ptr(),
            code.len() as u64,
            std::ptr::null_mut(),
        )
    };
    if loaded < 0 {
        return Err(Error::from_raw_os_error(-loaded));
    }
    // SAFETY: the descriptor is new, and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(loaded) });
    Ok(())
}

fn load_module(how: &str, file: &str) -> io::Result<()> {
    let none = CString::default();
    let mut open = File::open(file)?;
    // SAFETY: the image is valid for its length and the text ends with a zero; the kernel checks both.
    let done = unsafe {
        if how == "file" {
            libc::syscall(libc::SYS_finit_module, open.as_raw_fd(), none.as_ptr(), 0)
        } else {
            let mut image = Vec::new();
            open.read_to_end(&mut image)?;
            libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), none.as_ptr())
        }
    };
    if done == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// Puts a good and a bad program under one name in turns, by renaming and by exchanging, while it is executed all the time.
/// Says how often which ran.
fn race_of_names(good: &str, bad: &str, target: &str) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let other = format!("{target}.other");
    fs::copy(good, target)?;
    fs::copy(bad, &other)?;
    race_against(target, |_| {
        let _ = renameat_with(CWD, &other, CWD, target, RenameFlags::EXCHANGE);
    });
    Ok(())
}

/// Writes a good and a bad program over the same file in turns, in place, while it is executed all the time. Says how often
/// which ran.
fn race(good: &str, bad: &str, target: &str) -> io::Result<()> {
    let texts = [fs::read(good)?, fs::read(bad)?];
    fs::copy(good, target)?;
    race_against(target, |turn| {
        // Busy while it runs; then the other is tried again.
        if let Ok(mut file) = OpenOptions::new().write(true).open(target) {
            let _ = file.write_all(&texts[turn % 2]);
        }
    });
    Ok(())
}

/// Executes a program again and again while `change` is at it, at another pace each turn. Says how often the good one ran, which
/// ends with 3, and the bad one, which ends with 5.
fn race_against(target: &str, change: impl Fn(usize) + Sync) {
    const TIMES: u32 = 200;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (mut ran_good, mut ran_bad, mut not) = (0, 0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                change(turn);
                thread::sleep(std::time::Duration::from_micros(u64::try_from(turn % 7).unwrap_or(0) * 300));
            }
        });
        for _ in 0..TIMES {
            match Command::new(target).status().map(|status| status.code()) {
                Ok(Some(3)) => ran_good += 1,
                Ok(Some(5)) => ran_bad += 1,
                Ok(_) | Err(_) => not += 1,
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    println!("good {ran_good} bad {ran_bad} not {not}");
}
