//! Who may send nothing for a time: what the arbiter decided is held in the kernel here, kept over restarts, and shown.

mod book;
mod desk;
mod spared;

pub(crate) use book::whole;
pub(crate) use desk::{BansDesk, take_away};

/// The most bans that hold at once. Each is a line of the journal that an agent which comes later has to find again.
pub(crate) const MAX_BANS: u64 = 8192;

/// The longest ban, in seconds: a week.
pub(crate) const MAX_BAN: u32 = 7 * 24 * 3600;

/// A length of time in words.
pub(crate) fn words(seconds: u32) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600, seconds / 60);
    match seconds {
        s if s % 86_400 == 0 => format!("{days} d"),
        s if s % 3600 == 0 => format!("{hours} h"),
        s if s % 60 == 0 => format!("{minutes} min"),
        s => format!("{s} s"),
    }
}
