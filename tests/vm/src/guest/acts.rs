//! Processes for cases to look at. Each ends by itself, or with its case's cgroup.
#![allow(unsafe_code)]

use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libbpf_rs::{Link, MapCore, MapHandle};
use rustix::fs::{IFlags, ioctl_setflags};

/// How long a load runs when nobody ends it.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn run(act: &[&str]) -> ExitCode {
    match act {
        ["spin", "rounding"] => spin(true),
        ["spin", "plain"] => spin(false),
        ["connect", to] => match TcpStream::connect(to) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        },
        ["set-attribute", path, name, value] => told(attribute(path, name, Some(value))),
        ["remove-attribute", path, name] => told(attribute(path, name, None)),
        ["make-immutable", path] => told(flags(path, IFlags::IMMUTABLE)),
        ["make-mutable", path] => told(flags(path, IFlags::empty())),
        ["set-access-list", path] => told(attribute(path, ACCESS_LIST, Some(OPEN_TO_A_GROUP))),
        ["detach", pin] => told(Link::open(pin).and_then(|link| link.detach())),
        ["take-link", id] => told(take_link(id)),
        ["empty", pin] => told(MapHandle::from_pinned_path(pin).and_then(|map| empty(&map))),
        ["empty-by-id", id] => {
            told(MapHandle::from_map_id(id.parse().unwrap_or(0)).and_then(|map| empty(&map)))
        }
        ["trust-everything", ready] => crate::cases::trust_everything(ready),
        ["trust-agent", cgroup, flag] => crate::cases::trust_agent(cgroup, flag),
        _ => crate::code_acts::run(act).unwrap_or(ExitCode::from(2)),
    }
}

/// `system.posix_acl_access`, and one that grants a group of its own: version 2, then tag, rights and id of each.
const ACCESS_LIST: &str = "system.posix_acl_access";
const OPEN_TO_A_GROUP: &str = concat!(
    "\x02\0\0\0",
    "\x01\0\x06\0NONE",
    "\x04\0\x04\0NONE",
    "\x08\0\x06\0\x05\0\0\0",
    "\x10\0\x06\0NONE",
    "\x20\0\x04\0NONE",
);

/// What came of an attempt, in the words of the system.
fn told<E: std::fmt::Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn attribute(path: &str, name: &str, value: Option<&str>) -> rustix::io::Result<()> {
    match value {
        // The undefined id is four bytes of ones, which no text can hold.
        Some(value) => {
            let mut bytes = value.as_bytes().to_vec();
            while let Some(at) = bytes.windows(4).position(|four| four == b"NONE") {
                bytes[at..at + 4].fill(0xff);
            }
            rustix::fs::setxattr(path, name, &bytes, rustix::fs::XattrFlags::empty())
        }
        None => rustix::fs::removexattr(path, name),
    }
}

/// As chattr(1) does it: the file is opened for reading only.
fn flags(path: &str, flags: IFlags) -> std::io::Result<()> {
    Ok(ioctl_setflags(std::fs::File::open(path)?, flags)?)
}

fn take_link(id: &str) -> std::io::Result<()> {
    // SAFETY: the call takes a number and gives a new descriptor or an error.
    let fd = unsafe { libbpf_rs::libbpf_sys::bpf_link_get_fd_by_id(id.parse().unwrap_or(0)) };
    if fd < 0 {
        return Err(std::io::Error::from_raw_os_error(-fd));
    }
    Ok(())
}

fn empty(map: &MapHandle) -> libbpf_rs::Result<()> {
    map.keys().collect::<Vec<_>>().iter().try_for_each(|key| map.delete(key))
}

/// Computes without a system call but the clock's; with `rounding`, in RandomX's FPU state: flush to zero, denormals
/// are zero, and the rounding mode changed all the time.
fn spin(rounding: bool) -> ExitCode {
    let end = Instant::now() + LIMIT;
    let mut value = 1.000_000_1_f64;
    let mut round = 0u32;
    while Instant::now() < end {
        for _ in 0..10_000 {
            if rounding {
                round = round.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                set_mxcsr(0x9fc0 | ((round >> 28) & 3) << 13);
            }
            for _ in 0..200 {
                value = std::hint::black_box(value * 1.000_000_3);
            }
            if !value.is_finite() {
                value = 1.000_000_1;
            }
        }
    }
    ExitCode::SUCCESS
}

fn set_mxcsr(value: u32) {
    // SAFETY: loads the SSE control register from a local with all exceptions masked and no reserved bit set. The
    // arithmetic that follows only loses precision by it.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, readonly)) }
}
