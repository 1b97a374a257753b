use davy_model::ProcessKey;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::process::{self, Stat};

/// A process held by a pidfd, proven to be the one that its key names: whatever happens to the pid, a signal
/// sent through it reaches this process or nobody.
pub(crate) struct Held {
    fd: OwnedFd,
}

impl Held {
    /// Takes hold; `None` when it has ended or somebody else has its pid.
    pub(crate) fn take(key: &ProcessKey) -> Option<Self> {
        if key.boot != process::boot() {
            return None;
        }
        let pid = Pid::from_raw(i32::try_from(key.pid).ok()?)?;
        let held = Self { fd: pidfd_open(pid, PidfdFlags::empty()).ok()? };
        // What /proc says under the pid is about the held process only if that had not ended (and been
        // collected) by then: its pid cannot go to another one before. So the order is: hold, read, still running?
        let stat = Stat::of(key.pid)?;
        (stat.start_ticks == key.start_ticks && held.runs()).then_some(held)
    }

    /// Whether it runs still; a pidfd becomes readable when its process ends (pidfd_open(2)).
    fn runs(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
    }

    /// Sends a signal. One that finds nobody has done its duty.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match pidfd_send_signal(&self.fd, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent,
        }
    }
}
