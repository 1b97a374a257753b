use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use crate::Bounds;

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trip {
    /// Bytes unpacked to bytes packed.
    Ratio,
    /// Bytes unpacked.
    Bytes,
    /// Members.
    Members,
}

/// What the archives of one file have cost so far. Copies count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent {
    counts: Rc<Counts>,
    /// Bytes of members that wait in memory.
    pub(crate) held: usize,
}

#[derive(Debug, Default)]
struct Counts {
    bounds: Bounds,
    /// Bytes of the file that all this comes out of.
    packed: u64,
    bytes: Cell<u64>,
    members: Cell<u32>,
    trip: Cell<Option<Trip>>,
    told: Cell<bool>,
}

impl Spent {
    pub(crate) fn new(bounds: Bounds, packed: u64) -> Self {
        Self { counts: Rc::new(Counts { bounds, packed, ..Counts::default() }), held: 0 }
    }

    /// The bound that was reached, which ends the opening of archives in this file.
    pub(crate) fn trip(&self) -> Option<Trip> {
        self.counts.trip.get()
    }

    /// Whether it has still to be told; from now on it is.
    pub(crate) fn tell(&self) -> bool {
        !self.counts.told.replace(true)
    }

    pub(crate) fn member(&self) -> io::Result<()> {
        let members = self.counts.members.get() + 1;
        self.counts.members.set(members);
        if members > self.counts.bounds.members { self.stop(Trip::Members) } else { Ok(()) }
    }

    fn bytes(&self, more: u64) -> io::Result<()> {
        let bytes = self.counts.bytes.get() + more;
        self.counts.bytes.set(bytes);
        if self.beyond_ratio(bytes, self.counts.packed) {
            return self.stop(Trip::Ratio);
        }
        if bytes > self.counts.bounds.bytes { self.stop(Trip::Bytes) } else { Ok(()) }
    }

    fn beyond_ratio(&self, bytes: u64, packed: u64) -> bool {
        let Bounds { ratio, ratio_from, .. } = self.counts.bounds;
        bytes > ratio_from && bytes > packed.saturating_mul(ratio)
    }

    fn stop<T>(&self, trip: Trip) -> io::Result<T> {
        self.counts.trip.set(Some(trip));
        Err(io::Error::other("a bound on archives was reached"))
    }
}

/// What one archive has unpacked to, against its own size. Copies count together.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    packed: u64,
    bytes: Rc<Cell<u64>>,
}

impl Account {
    pub(crate) fn new(packed: u64) -> Self {
        Self { packed, bytes: Rc::default() }
    }
}

/// Counts what is unpacked, and ends it at a bound.
pub(crate) struct Meter<R> {
    from: R,
    account: Account,
    spent: Spent,
    /// Whether it counts for the whole file: a stream's bytes count once more where its members are.
    totals: bool,
}

impl<R: Read> Meter<R> {
    /// Of a member.
    pub(crate) fn new(from: R, account: &Account, spent: &Spent) -> Self {
        Self { from, account: account.clone(), spent: spent.clone(), totals: true }
    }

    /// Of a stream that members come out of.
    pub(crate) fn of_stream(from: R, account: &Account, spent: &Spent) -> Self {
        Self { totals: false, ..Self::new(from, account, spent) }
    }
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        if self.totals {
            self.spent.bytes(read as u64)?;
        }
        let bytes = self.account.bytes.get() + read as u64;
        self.account.bytes.set(bytes);
        if self.spent.beyond_ratio(bytes, self.account.packed) {
            return self.spent.stop(Trip::Ratio);
        }
        Ok(read)
    }
}
