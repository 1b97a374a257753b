//! Thing by thing: a descriptor in, what was found in it out.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};
use davy_model::{Confinement, SetAside};
use davy_scan::{Bounds, Engine, HashList, RuleSource, Rules, Source, WINDOW};
use davy_wire::worker::{ScanReply, ScanRequest, read_frame, write_frame};

use crate::intake::Intake;

/// Answers until the stream ends.
pub(crate) fn serve<S: AsFd>(
    from: &mut Intake<S>,
    to: &mut impl Write,
    confinement: Confinement,
) -> Result<()> {
    let mut sources = Vec::new();
    let mut hashes = HashList::default();
    let mut aside = Vec::new();
    let (archives, programs) = loop {
        match read_frame(from).context("reading what to look for")? {
            None => return Ok(()),
            Some(ScanRequest::Rules { origin, text }) => sources.push(RuleSource { origin, text }),
            Some(ScanRequest::Hashes(text)) => aside.extend(hashes.add(&text).into_iter().map(odd_line)),
            Some(ScanRequest::Begin { archives, programs }) => break (archives, programs),
            Some(_) => bail!("something is to be looked at before it is said for what"),
        }
    };
    let rules = Rules::compile(&sources);
    drop(sources);
    aside.extend(rules.aside().iter().cloned());
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let ready =
        ScanReply::Ready { confinement, rules: count(rules.len()), hashes: count(hashes.len()), aside };
    let mut engine = Engine::new(&rules, hashes, Bounds { archives, ..Bounds::default() });
    if programs {
        engine.tell_programs();
    }
    write_frame(to, &ready).context("answering")?;
    let mut memory = Memory { begun: false, buffer: Vec::new() };
    while let Some(request) = read_frame(from).context("reading what to look at")? {
        let Some(file) = from.file().map(File::from) else { bail!("no descriptor came with the question") };
        let reply = match request {
            ScanRequest::File { length } => match engine.scan(&Opened { file, length }) {
                Ok(report) => ScanReply::Report(report),
                Err(error) => ScanReply::Unreadable(error.to_string()),
            },
            ScanRequest::Memory { pieces, last } => memory.look(&mut engine, &file, &pieces, last),
            _ => bail!("what to look for is said already"),
        };
        write_frame(to, &reply).context("answering")?;
    }
    Ok(())
}

fn odd_line(line: usize) -> SetAside {
    SetAside {
        rule: format!("line {line}"),
        origin: "hash list".to_owned(),
        reason: "is no SHA-256 in hexadecimal".to_owned(),
    }
}

/// A file that was opened by somebody else. It is read and not mapped: one that shrinks meanwhile must not end the worker.
struct Opened {
    file: File,
    length: u64,
}

impl Source for Opened {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }
}

/// The memory of one process, as far as it has come.
struct Memory {
    begun: bool,
    buffer: Vec<u8>,
}

impl Memory {
    fn look(&mut self, engine: &mut Engine<'_>, file: &File, pieces: &[(u64, u64)], last: bool) -> ScanReply {
        if !self.begun {
            engine.begin_memory();
            self.begun = true;
        }
        let mut offset = 0;
        for (address, length) in pieces {
            let length = usize::try_from(*length).unwrap_or(WINDOW).min(WINDOW);
            self.buffer.resize(length, 0);
            if let Err(error) = file.read_exact_at(&mut self.buffer, offset) {
                self.begun = false;
                return ScanReply::Unreadable(error.to_string());
            }
            engine.memory(*address, &self.buffer);
            offset += length as u64;
        }
        if !last {
            return ScanReply::Next;
        }
        self.begun = false;
        ScanReply::Report(engine.end_memory())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixStream;

    use super::*;

    fn confinement() -> Confinement {
        let missing = vec!["all of it: this is a test".to_owned()];
        Confinement { unprivileged: false, files_closed: false, calls_filtered: false, memory: 0, missing }
    }

    fn begin() -> Vec<ScanRequest> {
        let text = "rule marked { strings: $a = \"tell-tale\" condition: $a } rule odd { condition: $b }";
        let rules = ScanRequest::Rules { origin: "mine".to_owned(), text: text.to_owned() };
        vec![rules, ScanRequest::Begin { archives: true, programs: false }]
    }

    fn asked(requests: &[ScanRequest], bytes: Option<&[u8]>) -> (Result<()>, Vec<ScanReply>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes.unwrap_or_default()).unwrap();
        for request in requests {
            let with =
                matches!(request, ScanRequest::File { .. } | ScanRequest::Memory { .. }) && bytes.is_some();
            crate::asking::send(&ours, request, with.then(|| file.as_fd())).unwrap();
        }
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        let end = serve(&mut Intake::new(theirs), &mut answers, confinement());
        let mut answers = &answers[..];
        (end, std::iter::from_fn(|| read_frame(&mut answers).unwrap()).collect())
    }

    fn rules_of(reply: &ScanReply) -> Vec<&str> {
        let ScanReply::Report(report) = reply else { panic!("{reply:?}") };
        report.matches.iter().map(|found| found.rule.as_str()).collect()
    }

    #[test]
    fn files_and_memory_are_looked_at_through_descriptors() {
        let bytes = b"a tell-tale file";
        let mut requests = begin();
        requests.push(ScanRequest::File { length: bytes.len() as u64 });
        requests.push(ScanRequest::Memory { pieces: vec![(4096, 6)], last: false });
        requests.push(ScanRequest::Memory { pieces: vec![(8192, 2), (12_288, 10)], last: true });
        let (end, replies) = asked(&requests, Some(bytes));
        end.unwrap();
        let [ScanReply::Ready { rules: 1, aside, .. }, file, ScanReply::Next, memory] = &replies[..] else {
            panic!("{replies:?}")
        };
        assert_eq!(aside[0].rule, "odd");
        assert_eq!((rules_of(file), rules_of(memory)), (vec!["marked"], vec!["marked"]));
    }

    #[test]
    fn a_question_without_its_descriptor_ends_it() {
        let mut requests = begin();
        requests.push(ScanRequest::File { length: 1 });
        assert!(asked(&requests, None).0.is_err());
        assert!(asked(&[ScanRequest::File { length: 1 }], Some(b"x")).0.is_err());
    }

    #[test]
    fn memory_that_is_not_there_is_said_so() {
        let mut requests = begin();
        requests.push(ScanRequest::Memory { pieces: vec![(0, 100)], last: true });
        let (end, replies) = asked(&requests, Some(b"short"));
        end.unwrap();
        assert!(matches!(replies[1], ScanReply::Unreadable(_)), "{replies:?}");
    }
}
