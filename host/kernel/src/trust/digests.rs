//! The table of digests: a digest has a place, and the place a saying, which files that were read point to.

use davy_model::Sha256;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, IntoBytes};

use crate::abi::{DigestJudgement, DigestPlace};
use crate::error::{During, Error, Result};

/// As `enum digest_verdict`.
const ALLOW: u8 = 1;
const DENY: u8 = 2;

/// Serials have as many bits as a file's state keeps of them.
const SERIALS: u32 = 1 << 24;

/// What is said of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may run.
    Allow(Rights),
    /// It must not run, whatever else is said of it.
    Deny,
}

/// What a program may do beyond running. All of it is given to the process that executes it, for as long as it runs this
/// program, and to its threads and copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// It runs what its arguments name: those files are judged as scripts.
    pub interpreter: bool,
    /// Files that it alone wrote are trusted for this many seconds; zero for none are.
    pub trusted_writer_secs: u32,
    /// Only while root runs it is it a trusted writer (a package manager).
    pub writes_as_root: bool,
    /// When a trusted writer started it, it is one too (what a package manager has write for it).
    pub writes_for_writers: bool,
    /// It may make memory executable that it wrote (a just-in-time compiler).
    pub may_write_and_execute: bool,
    /// It may load BPF programs.
    pub may_load_bpf: bool,
    /// It may trace, and write to the memory of processes.
    pub may_trace: bool,
    /// It may be executed without a name, as container runtimes do with a copy of themselves.
    pub may_be_nameless: bool,
    /// The profiles whose service it is, one bit each: they bind it, and what comes from it.
    pub services: u32,
    /// The profiles that do not bind what it begins.
    pub releases: u32,
    /// What it is that a service may have no use for, one bit each, as [`super::TrustGate::forbid`] has them.
    pub classes: u8,
}

impl Rights {
    /// As the `PROGRAM_` constants.
    fn flags(self) -> u32 {
        u32::from(self.interpreter)
            | u32::from(self.trusted_writer_secs > 0) << 1
            | u32::from(self.may_write_and_execute) << 2
            | u32::from(self.may_load_bpf) << 3
            | u32::from(self.may_trace) << 4
            | u32::from(self.may_be_nameless) << 5
            | u32::from(self.writes_as_root) << 6
            | u32::from(self.writes_for_writers) << 7
    }
}

/// A verdict, by whom, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saying {
    /// What is said.
    pub verdict: Verdict,
    /// A number of the caller's for who says it. What the program writes carries it, where it is a trusted writer.
    pub source: u16,
    /// When it ends, in seconds of the boot-time clock; `None` for never. Nobody vouches for the content then.
    pub until: Option<u32>,
}

impl Saying {
    /// That a content may run, for good, and do no more than that.
    #[must_use]
    pub fn allow() -> Self {
        Self { verdict: Verdict::Allow(Rights::default()), source: 0, until: None }
    }

    fn record(self, serial: u32) -> DigestJudgement {
        let rights = match self.verdict {
            Verdict::Allow(rights) => rights,
            Verdict::Deny => Rights::default(),
        };
        DigestJudgement {
            serial,
            // Zero is no end; a word that ended when the machine began has one.
            until: self.until.map_or(0, |until| until.max(1)),
            flags: rights.flags(),
            marks: rights.trusted_writer_secs,
            source: self.source,
            verdict: if self.verdict == Verdict::Deny { DENY } else { ALLOW },
            classes: rights.classes,
            reserved: [0; 4],
            services: rights.services,
            releases: rights.releases,
        }
    }

    fn writes(self) -> bool {
        matches!(self.verdict, Verdict::Allow(rights) if rights.trusted_writer_secs > 0)
    }
}

/// The tables.
pub(super) struct Digests {
    places: MapHandle,
    judgements: MapHandle,
    /// Contents that trusted writers wrote, as the programs know them.
    written: MapHandle,
    /// Places that no digest has, the next one last.
    free: Vec<u32>,
    /// Places of trusted writers.
    writers: Vec<u32>,
}

impl Digests {
    /// Finds out which places are taken; an earlier gate may have filled them.
    pub(super) fn new(places: MapHandle, judgements: MapHandle, written: MapHandle) -> Result<Self> {
        let bound = judgements.max_entries();
        let mut taken = vec![false; bound as usize];
        let mut writers = Vec::new();
        for digest in places.keys() {
            let Some(found) = look_up(&places, &digest)? else { continue };
            let Some(place) = taken.get_mut(found.place as usize) else { continue };
            *place = true;
            let said = judgements.lookup(&found.place.to_ne_bytes(), MapFlags::ANY).during(reading)?;
            let said = said.and_then(|bytes| DigestJudgement::read_from_bytes(&bytes).ok());
            if said.is_some_and(|said| said.marks > 0) {
                writers.push(found.place);
            }
        }
        let free = (0..bound).rev().filter(|place| !taken[*place as usize]).collect();
        Ok(Self { places, judgements, written, free, writers })
    }

    /// Says something of contents. What was said before of the same content is replaced. Gives how many are new.
    pub(super) fn say(&mut self, sayings: &[(Sha256, Saying)]) -> Result<u32> {
        let mut new = 0;
        for (digest, saying) in sayings {
            let known = look_up(&self.places, &digest.0)?;
            let place = match known {
                Some(known) => known.place,
                None => self
                    .free
                    .pop()
                    .ok_or(Error::Full { what: "the table of digests", bound: self.places.max_entries() })?,
            };
            let serial = self.serial(place)?;
            // The saying first: a digest that is found must have one.
            let written = self.put(place, saying.record(serial)).and_then(|()| {
                let to = DigestPlace { place, serial };
                self.places.update(&digest.0, to.as_bytes(), MapFlags::ANY).during(saying_so)
            });
            if let Err(error) = written {
                if known.is_none() {
                    self.free.push(place);
                }
                return Err(error);
            }
            new += u32::from(known.is_none());
            self.writers.retain(|writer| *writer != place);
            if saying.writes() {
                self.writers.push(place);
            }
        }
        Ok(new)
    }

    /// Takes back what was said of contents; files that were read lose it at once. Gives of how many something was said.
    pub(super) fn withdraw(&mut self, digests: &[Sha256]) -> Result<u32> {
        let mut known = 0;
        for digest in digests {
            // It is not there unless a trusted writer wrote it.
            let _ = self.written.delete(&digest.0);
            let Some(DigestPlace { place, .. }) = look_up(&self.places, &digest.0)? else { continue };
            // Another serial, so that files that point to the place mean nothing when it is used again.
            let serial = (self.serial(place)? + 1) % SERIALS;
            self.put(place, DigestJudgement { serial, ..DigestJudgement::default() })?;
            self.places.delete(&digest.0).during(|| "withdrawing a digest".to_owned())?;
            self.free.push(place);
            self.writers.retain(|writer| *writer != place);
            known += 1;
        }
        Ok(known)
    }

    pub(super) fn all(&self) -> Vec<Sha256> {
        self.places.keys().filter_map(|bytes| Some(Sha256(bytes.try_into().ok()?))).collect()
    }

    pub(super) fn writers(&self) -> u32 {
        u32::try_from(self.writers.len()).unwrap_or(u32::MAX)
    }

    fn serial(&self, place: u32) -> Result<u32> {
        let said = self.judgements.lookup(&place.to_ne_bytes(), MapFlags::ANY).during(reading)?;
        Ok(said.and_then(|bytes| DigestJudgement::read_from_bytes(&bytes).ok()).map_or(0, |said| said.serial))
    }

    fn put(&self, place: u32, judgement: DigestJudgement) -> Result<()> {
        self.judgements.update(&place.to_ne_bytes(), judgement.as_bytes(), MapFlags::ANY).during(saying_so)
    }
}

fn look_up(places: &MapHandle, digest: &[u8]) -> Result<Option<DigestPlace>> {
    let found = places.lookup(digest, MapFlags::ANY).during(reading)?;
    Ok(found.and_then(|bytes| DigestPlace::read_from_bytes(&bytes).ok()))
}

fn reading() -> String {
    "reading the table of digests".to_owned()
}

fn saying_so() -> String {
    "writing to the table of digests".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_the_programs_flags() {
        let all = Rights {
            interpreter: true,
            trusted_writer_secs: 60,
            writes_as_root: true,
            writes_for_writers: true,
            may_write_and_execute: true,
            may_load_bpf: true,
            may_trace: true,
            may_be_nameless: true,
            ..Rights::default()
        };
        assert_eq!(all.flags(), 255);
        assert_eq!(Rights { trusted_writer_secs: 1, ..Rights::default() }.flags(), 2);
        let denied = Saying { verdict: Verdict::Deny, source: 3, until: Some(9) }.record(7);
        assert_eq!((denied.verdict, denied.flags, denied.serial, denied.until), (DENY, 0, 7, 9));
    }
}
