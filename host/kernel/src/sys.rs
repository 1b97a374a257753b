//! The system calls and instructions that have no safe wrapper. The only unsafe code of this room.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Makes a child that ends at once with `code`, and waits for it. The child runs nothing but `_exit`, so it is
/// safe whatever other threads hold.
pub(crate) fn brief_child(code: i32) -> io::Result<u32> {
    child(move || code)
}

/// Runs `act` in a child and ends it with what `act` returns; waits for it, and gives its pid when that was the
/// code of success zero, or else an error with the code as its number.
///
/// `act` runs in a copy of a process that may have had threads: it must only make system calls, and neither
/// allocate nor take locks.
pub(crate) fn child(act: impl FnOnce() -> i32) -> io::Result<u32> {
    // SAFETY: the child calls `act`, which by the contract above only makes system calls, and `_exit`, both of
    // which are async-signal-safe (signal-safety(7)).
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = act();
            // SAFETY: ends this child without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        _ => wait(pid),
    }
}

/// Waits until there is something to read, or the time is over. Says which; an interruption is as the end of the time.
pub(crate) fn readable(descriptor: i32, time: Duration) -> bool {
    let mut asked = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    let milliseconds = libc::c_int::try_from(time.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one entry is told, and it is a valid place for the call's duration.
    unsafe { libc::poll(&raw mut asked, 1, milliseconds) == 1 }
}

fn wait(pid: i32) -> io::Result<u32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the call's duration, and `pid` is our own child.
        let done = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if done == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    if libc::WIFEXITED(status) {
        match libc::WEXITSTATUS(status) {
            0 => Ok(pid.unsigned_abs()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    } else {
        Err(io::Error::other("the child was ended by a signal"))
    }
}

/// Moves the caller to a cgroup by its open `cgroup.procs`, and connects to a loopback port by TCP. Gives zero or an
/// error number. Only makes system calls, as [`child`] demands.
pub(crate) fn enter_and_connect(procs: i32, port: u16) -> i32 {
    let own = b"0";
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(std::net::Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the buffers are valid for the lengths given; the descriptors belong to this process.
    let done = unsafe {
        if libc::write(procs, own.as_ptr().cast(), own.len()) != 1 {
            -1
        } else {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            if socket < 0 { -1 } else { libc::connect(socket, (&raw const address).cast(), length) }
        }
    };
    if done == 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) }
}

/// Moves the caller to a cgroup by its open `cgroup.procs`, and maps a page of an open file executable. Gives zero or an
/// error number. Only makes system calls, as [`child`] demands.
pub(crate) fn enter_and_map_executable(procs: i32, file: i32) -> i32 {
    let own = b"0";
    // SAFETY: the buffer is valid for the length given; the descriptors belong to this process; the mapping is a new one
    // that nothing refers to.
    let done = unsafe {
        libc::write(procs, own.as_ptr().cast(), own.len()) == 1
            && libc::mmap(
                std::ptr::null_mut(),
                1,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE,
                file,
                0,
            ) != libc::MAP_FAILED
    };
    if done { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) }
}

/// Maps a page of a file readable and executable, and takes the mapping away again.
pub(crate) fn map_executable_once(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a new mapping that nothing refers to; the descriptor is open for the call's duration.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        let place = libc::mmap(std::ptr::null_mut(), 1, protection, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
        if place == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::munmap(place, 1);
    }
    Ok(())
}

/// Sleeps with the SSE control register set to `value`, and puts it back.
#[cfg(target_arch = "x86_64")]
pub(crate) fn sleep_with_mxcsr(value: u32, time: Duration) {
    let request = libc::timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    let mut before = 0u32;
    // SAFETY: the register is saved, set to a value whose exceptions are all masked (the caller's contract is a
    // rounding mode over the initial 0x1f80), and restored before any Rust floating-point code runs again. Between
    // the two is one system call.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack));
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, readonly));
        libc::nanosleep(&raw const request, std::ptr::null_mut());
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const before, options(nostack, readonly));
    }
}

/// A packet socket on one interface of this network namespace whose filter is the BPF program of this descriptor. The filter is
/// there before the first packet is. Needs CAP_NET_RAW.
pub(crate) fn filtered_packets(program: i32, interface: u32) -> io::Result<OwnedFd> {
    /// Every protocol, in network order.
    const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the call takes no pointers. Of protocol zero, the socket gets no packet before it is bound.
    let made = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(made) };
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut place: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    place.sll_family = libc::AF_PACKET as libc::c_ushort;
    place.sll_protocol = ALL;
    place.sll_ifindex = libc::c_int::try_from(interface).map_err(io::Error::other)?;
    // SAFETY: each pointer is to a valid place of the length that is told, for the call's duration.
    let done = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let attached = libc::setsockopt(
            made,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const program).cast(),
            length,
        );
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        if attached == 0 { libc::bind(made, (&raw const place).cast(), length) } else { attached }
    };
    if done == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// The interface that a packet socket is bound to, while it is there.
pub(crate) fn bound_interface(socket: BorrowedFd<'_>) -> Option<u32> {
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut place: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointers are to valid places, of the length that is told, for the call's duration.
    let done = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut place).cast(), &raw mut length) };
    if done != 0 {
        return None;
    }
    u32::try_from(place.sll_ifindex).ok().filter(|index| *index != 0)
}

/// The id of the BPF program after `id`; `None` after the last. Needs CAP_SYS_ADMIN.
pub(crate) fn next_program_id(id: u32) -> Option<u32> {
    let mut next = 0;
    // SAFETY: `next` is a valid place for the call's duration.
    let done = unsafe { libbpf_rs::libbpf_sys::bpf_prog_get_next_id(id, &raw mut next) };
    (done == 0).then_some(next)
}

/// Has a link run another program of the same kind.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes descriptors that live through the call, and no options.
    let done = unsafe {
        libbpf_rs::libbpf_sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), std::ptr::null())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-done)) }
}

/// CPU time that all threads of a process have used, in nanoseconds; those that ended included.
pub(crate) fn cpu_time(pid: u32) -> Option<u64> {
    let pid = i32::try_from(pid).ok()?;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // The clock id that clock_getcpuclockid(3) makes of a pid: its complement, and 2 for the scheduler's clock.
    let clock = (!pid << 3) | 2;
    // SAFETY: `time` is a valid place for the call's duration; a wrong clock id is an error, not a fault.
    let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if done != 0 {
        return None;
    }
    u64::try_from(time.tv_sec)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(u64::try_from(time.tv_nsec).ok()?)
}
