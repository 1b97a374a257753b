//! Archives, opened by libraries and bounded here: how deep, how many members, how many bytes, how many times their size.

mod meter;
mod seven;
mod stream;
mod tape;
mod zipped;

use std::io;

use davy_model::Severity;

use crate::engine::Visit;
use crate::source::{Source, fill};
use crate::{Bounds, Engine};

pub(crate) use meter::{Account, Meter, Spent, Trip};

/// The longest name of a member that is kept, in characters.
const NAME: usize = 200;

/// Bytes from which the kind is told.
const HEAD: usize = 512;

/// What the first bytes say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Zip,
    SevenZip,
    Tar,
    Stream(stream::Coding),
}

impl Kind {
    fn of(head: &[u8]) -> Option<Self> {
        match head {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => Some(Self::SevenZip),
            _ if is_tar(head) => Some(Self::Tar),
            _ => stream::Coding::of(head).map(Self::Stream),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::SevenZip => "7z",
            Self::Tar => "tar",
            Self::Stream(coding) => coding.name(),
        }
    }
}

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

/// Whether the first bytes are those of an archive.
pub(crate) fn is_archive(bytes: &[u8]) -> bool {
    Kind::of(&bytes[..bytes.len().min(HEAD)]).is_some()
}

/// Opens what is an archive and has its members looked at.
pub(crate) fn open(engine: &mut Engine<'_>, source: &dyn Source, visit: &mut Visit) {
    let bounds = engine.bounds();
    let mut head = [0; HEAD];
    let have = fill(source, 0, &mut head).unwrap_or(0);
    let Some(kind) = Kind::of(&head[..have]).filter(|_| bounds.archives) else { return };
    if visit.spent.trip().is_some() {
        return;
    }
    if visit.inside.len() >= bounds.depth {
        bomb(visit, &format!("archives are nested more than {} deep", bounds.depth));
        return;
    }
    if visit.inside.is_empty() {
        visit.spent = Spent::new(bounds, source.len());
    }
    let outcome = match kind {
        Kind::Zip => zipped::open(engine, source, visit),
        Kind::SevenZip => seven::open(engine, source, visit),
        Kind::Tar => tape::open(engine, crate::source::Cursor::new(source), visit),
        Kind::Stream(coding) => stream::open(engine, coding, source, &head[..have], visit),
    };
    match (visit.spent.trip(), outcome) {
        (Some(trip), _) => tripped(visit, trip, bounds),
        (None, Err(error)) => {
            visit.gap(&format!("the {} archive cannot be read to its end: {error}", kind.name()))
        }
        (None, Ok(())) => {}
    }
}

/// Says once what stopped the opening of archives.
fn tripped(visit: &mut Visit, trip: Trip, bounds: Bounds) {
    if visit.spent.tell() {
        match trip {
            Trip::Ratio => bomb(visit, &format!("it unpacks to more than {} times its size", bounds.ratio)),
            Trip::Bytes => visit
                .gap(&format!("it unpacks to more than {} bytes; the rest was not looked at", bounds.bytes)),
            Trip::Members => {
                visit.gap(&format!("it has more than {} members; the rest was not looked at", bounds.members))
            }
        }
    }
}

fn bomb(visit: &mut Visit, why: &str) {
    let told = visit.report.matches.iter().any(|found| found.rule == "archive_bomb");
    if !told {
        visit.found(
            "archive_bomb",
            "davy",
            Severity::Medium,
            &format!("an archive that is to choke whoever opens it: {why}"),
        );
    }
}

/// Has a member looked at that is unpacked by `from`.
fn member(
    engine: &mut Engine<'_>,
    name: &str,
    account: &Account,
    from: &mut dyn io::Read,
    visit: &mut Visit,
) -> io::Result<()> {
    visit.spent.member()?;
    visit.report.members += 1;
    visit.inside.push(name.chars().take(NAME).collect());
    let mut meter = Meter::new(from, account, &visit.spent);
    let outcome = engine.look_through(&mut meter, visit);
    visit.inside.pop();
    // One member that is broken does not hide those behind it, but a bound that was reached ends all.
    match outcome {
        Err(error) if visit.spent.trip().is_some() => Err(error),
        Err(error) => {
            visit.gap(&format!("{name}: cannot be unpacked: {error}"));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
