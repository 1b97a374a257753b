//! Files that were judged, kept open under a read lease so that their bytes cannot change unseen.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::permission::kernel::{drop_lease, holds_lease};

/// Files held at once; the one that was asked for longest ago goes first.
const BOUND: usize = 256;

/// What nobody asked for in this time is let go, so that a mount does not stay busy.
const IDLE: Duration = Duration::from_secs(5);

/// After an answer the kernel still has to close the file to writers for the exec. The lease is not given back before.
const LINGER: Duration = Duration::from_millis(50);

/// A file by device and inode. It is held open, so that no other can have these numbers.
type Place = (u32, u32, u64);

struct Held {
    file: OwnedFd,
    /// The verdict holds whoever asks; otherwise only the lease is of use.
    always: bool,
    last: Instant,
}

/// The held files.
#[derive(Default)]
pub(super) struct Vouched {
    held: HashMap<Place, Held>,
    /// Files whose verdict holds no longer, with the time until which their leases are kept: whoever was allowed a moment
    /// ago may not have them yet.
    leaving: VecDeque<(Instant, OwnedFd)>,
}

/// Where a file is. Nothing is asked of a server or a user's program for it.
pub(super) fn place(file: &OwnedFd) -> Option<Place> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(file, c"", flags, StatxFlags::INO).ok()?;
    Some((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

impl Vouched {
    /// Whether this file may be opened by anybody, as was decided before.
    pub(super) fn knows(&mut self, file: &OwnedFd, now: Instant) -> bool {
        let Some(held) = place(file).and_then(|place| self.held.get_mut(&place)) else { return false };
        // A lease that somebody waits for has not changed hands yet, but is about to.
        if !held.always || !holds_lease(&held.file) {
            return false;
        }
        held.last = now;
        true
    }

    /// Holds on to a file that was allowed.
    pub(super) fn hold(&mut self, file: OwnedFd, always: bool, now: Instant) {
        // Without a lease, or with one that a writer waits for already, nothing can be said of the bytes later.
        let Some(place) = place(&file).filter(|_| holds_lease(&file)) else {
            self.leave(file, now);
            return;
        };
        if self.held.len() >= BOUND
            && let Some(oldest) = self.held.iter().min_by_key(|(_, held)| held.last).map(|(place, _)| *place)
        {
            self.release(oldest);
        }
        if let Some(before) = self.held.insert(place, Held { file, always, last: now }) {
            drop_lease(&before.file);
        }
    }

    /// When a lease is to be given back, if one is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.leaving.front().map(|(until, _)| *until)
    }

    /// Gives back leases whose time has come.
    pub(super) fn give_back(&mut self, now: Instant) {
        while let Some((_, file)) = self.leaving.pop_front_if(|(until, _)| *until <= now) {
            drop_lease(&file);
        }
    }

    /// Lets go what is waited for or has not been of use.
    pub(super) fn look(&mut self, now: Instant) {
        let over = |held: &Held| {
            let idle = if held.always { IDLE } else { LINGER };
            now >= held.last + idle || !holds_lease(&held.file)
        };
        let over: Vec<Place> =
            self.held.iter().filter(|(_, held)| over(held)).map(|(place, _)| *place).collect();
        over.into_iter().for_each(|place| self.release(place));
    }

    /// Forgets every verdict.
    pub(super) fn forget(&mut self) {
        let places: Vec<Place> = self.held.keys().copied().collect();
        places.into_iter().for_each(|place| self.release(place));
    }

    fn release(&mut self, place: Place) {
        if let Some(held) = self.held.remove(&place) {
            self.leave(held.file, held.last);
        }
    }

    /// Keeps a lease until everybody who was allowed by `last` has what they asked for.
    fn leave(&mut self, file: OwnedFd, last: Instant) {
        if self.leaving.len() >= BOUND
            && let Some((_, oldest)) = self.leaving.pop_front()
        {
            drop_lease(&oldest);
        }
        // In the order of their times, nearly: one that comes late for its place stays a moment longer.
        self.leaving.push_back((last + LINGER, file));
    }
}
