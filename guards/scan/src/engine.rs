use std::io::{self, Read};

use davy_model::{ScanMatch, ScanReport, Severity};
use sha2::{Digest, Sha256};
use yara_x::{MetaValue, blocks};

use crate::archive::{self, Spent};
use crate::hashes::{hex, sha256};
use crate::source::{Source, fill};
use crate::{Bounds, HashList, OVERLAP, Rules, WINDOW, program, wallet};

/// The most matches, gaps and patterns that a report names.
const MATCHES: usize = 64;
const GAPS: usize = 16;
const PATTERNS: usize = 8;

/// The most matches of one pattern that are counted.
const COUNTED: usize = 10_000;

const HASH_LISTED: &str = "its SHA-256 is on a list of bad files";

/// Looks at one thing after another. It holds a buffer of [`WINDOW`] bytes and what the rules need.
pub struct Engine<'r> {
    rules: &'r Rules,
    hashes: HashList,
    bounds: Bounds,
    whole: yara_x::Scanner<'r>,
    /// Made when the first thing longer than a window comes: it takes memory of its own.
    pieces: Option<blocks::Scanner<'r>>,
    buffer: Vec<u8>,
    /// Whether the structure of programs is told even when nothing matches.
    tells_programs: bool,
}

/// What is being looked at, on the way down through archives.
pub(crate) struct Visit {
    pub(crate) report: ScanReport,
    pub(crate) spent: Spent,
    /// The way through archives to what is looked at.
    pub(crate) inside: Vec<String>,
    memory: bool,
}

impl<'r> Engine<'r> {
    /// An engine of these rules.
    #[must_use]
    pub fn new(rules: &'r Rules, hashes: HashList, bounds: Bounds) -> Self {
        let mut whole = yara_x::Scanner::new(&rules.compiled);
        whole.max_matches_per_pattern(COUNTED).fast_scan(true);
        Self { rules, hashes, bounds, whole, pieces: None, buffer: Vec::new(), tells_programs: false }
    }

    /// Has the structure of every program told, not only of those that matched.
    pub fn tell_programs(&mut self) {
        self.tells_programs = true;
    }

    /// Looks at a file and, where it is an archive, at what it holds.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn scan(&mut self, source: &dyn Source) -> io::Result<ScanReport> {
        let mut visit = Visit::new(false);
        self.look(source, &mut visit)?;
        Ok(visit.report)
    }

    /// Begins to look at a process's memory, which comes piece by piece.
    pub fn begin_memory(&mut self) {
        // A scanner keeps what it saw until it is finished, also when nobody asked it to.
        self.pieces = None;
    }

    /// Looks at a piece of memory that lies at `address`.
    pub fn memory(&mut self, address: u64, bytes: &[u8]) {
        let base = usize::try_from(address).unwrap_or(usize::MAX - bytes.len());
        let _ = self.pieces().scan(base, bytes);
    }

    /// What the pieces of memory together show.
    pub fn end_memory(&mut self) -> ScanReport {
        let mut visit = Visit::new(true);
        self.finish_pieces(&[], &mut visit);
        visit.report
    }

    fn look(&mut self, source: &dyn Source, visit: &mut Visit) -> io::Result<()> {
        let Some(length) = usize::try_from(source.len()).ok().filter(|length| *length <= WINDOW) else {
            return self.look_in_pieces(source, visit);
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.len() < length {
            buffer.resize(length.next_power_of_two(), 0);
        }
        let outcome = fill(source, 0, &mut buffer[..length]).map(|have| self.look_at(&buffer[..have], visit));
        self.buffer = buffer;
        outcome
    }

    /// Looks at bytes that are there as a whole.
    pub(crate) fn look_at(&mut self, bytes: &[u8], visit: &mut Visit) {
        visit.report.bytes += bytes.len() as u64;
        let before = visit.report.matches.len();
        let digest = (!self.hashes.is_empty()).then(|| sha256(bytes));
        if digest.is_some_and(|digest| self.hashes.has(&digest)) {
            visit.found("hash_list", "hash list", Severity::High, HASH_LISTED);
        }
        match self.whole.scan(bytes) {
            Ok(results) => visit.take(&results, bytes),
            Err(error) => visit.gap(&format!("the rules did not come to an end: {error}")),
        }
        if visit.report.matches.len() > before {
            visit.describe(bytes, digest);
        } else if self.tells_programs && visit.inside.is_empty() {
            visit.report.program = program::facts(bytes);
        }
        archive::open(self, &bytes, visit);
    }

    fn look_in_pieces(&mut self, source: &dyn Source, visit: &mut Visit) -> io::Result<()> {
        let before = visit.report.matches.len();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(WINDOW, 0);
        self.pieces = None;
        let mut at = 0;
        let mut digest = Sha256::new();
        let mut outcome = Ok(());
        while at < source.len() {
            match fill(source, at, &mut buffer) {
                Ok(0) => break,
                Ok(have) => {
                    let _ = self.pieces().scan(usize::try_from(at).unwrap_or(usize::MAX), &buffer[..have]);
                    let known = if at == 0 { 0 } else { OVERLAP.min(have) };
                    visit.report.bytes += (have - known) as u64;
                    digest.update(&buffer[known..have]);
                    if have < WINDOW {
                        break;
                    }
                    at += (WINDOW - OVERLAP) as u64;
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        outcome?;
        let digest: [u8; 32] = digest.finalize().into();
        if self.hashes.has(&digest) {
            visit.found("hash_list", "hash list", Severity::High, HASH_LISTED);
        }
        let head = fill(source, 0, &mut buffer)?;
        self.finish_pieces(&buffer[..head], visit);
        if visit.report.matches.len() > before {
            visit.describe(&buffer[..head], Some(digest));
        } else if self.tells_programs {
            visit.report.program = program::facts(&buffer[..head]);
        }
        self.buffer = buffer;
        archive::open(self, source, visit);
        Ok(())
    }

    /// Looks at a member of an archive as it is unpacked: as a whole when it fits into a window, and then what it holds too;
    /// in pieces otherwise.
    pub(crate) fn look_through(&mut self, from: &mut dyn Read, visit: &mut Visit) -> io::Result<()> {
        let room = WINDOW.min(self.bounds.held.saturating_sub(visit.spent.held));
        let mut bytes = Vec::new();
        from.take(room as u64).read_to_end(&mut bytes)?;
        if bytes.len() < room {
            let held = bytes.len();
            visit.spent.held += held;
            self.look_at(&bytes, visit);
            visit.spent.held -= held;
            return Ok(());
        }
        if archive::is_archive(&bytes) {
            visit.gap("too long to be opened itself; its bytes were looked at");
        }
        self.pieces = None;
        let (mut at, mut have, mut outcome) = (0, bytes.len(), Ok(()));
        bytes.resize(room.max(2 * OVERLAP), 0);
        let keep = OVERLAP.min(bytes.len() / 2);
        loop {
            let _ = self.pieces().scan(at, &bytes[..have]);
            visit.report.bytes += have as u64;
            let kept = keep.min(have);
            bytes.copy_within(have - kept..have, 0);
            at += have - kept;
            match read_full(from, &mut bytes[kept..]) {
                Ok(0) => break,
                Ok(more) => have = kept + more,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        drop(bytes);
        self.finish_pieces(&[], visit);
        outcome
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    fn pieces(&mut self) -> &mut blocks::Scanner<'r> {
        self.pieces.get_or_insert_with(|| {
            let mut pieces = blocks::Scanner::new(&self.rules.compiled);
            pieces.max_matches_per_pattern(COUNTED).fast_scan(true);
            pieces
        })
    }

    fn finish_pieces(&mut self, head: &[u8], visit: &mut Visit) {
        let mut pieces = self.pieces.take();
        match pieces.as_mut().map(blocks::Scanner::finish) {
            Some(Ok(results)) => visit.take(&results, head),
            Some(Err(error)) => visit.gap(&format!("the rules did not come to an end: {error}")),
            None => {}
        }
    }
}

fn read_full(from: &mut dyn Read, into: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < into.len() {
        match from.read(&mut into[have..])? {
            0 => break,
            more => have += more,
        }
    }
    Ok(have)
}

impl Visit {
    fn new(memory: bool) -> Self {
        Self { report: ScanReport::default(), spent: Spent::default(), inside: Vec::new(), memory }
    }

    /// Takes down a match that no rule says.
    pub(crate) fn found(&mut self, rule: &str, origin: &str, severity: Severity, description: &str) {
        self.push(ScanMatch {
            rule: rule.to_owned(),
            origin: origin.to_owned(),
            severity,
            description: description.to_owned(),
            inside: self.inside.clone(),
            patterns: Vec::new(),
        });
    }

    /// Takes down what could not be looked at.
    pub(crate) fn gap(&mut self, why: &str) {
        if self.report.gaps.len() < GAPS {
            let place =
                if self.inside.is_empty() { String::new() } else { format!("{}: ", self.inside.join(" > ")) };
            self.report.gaps.push(format!("{place}{why}"));
        }
    }

    fn push(&mut self, found: ScanMatch) {
        if self.report.matches.len() < MATCHES {
            self.report.matches.push(found);
        }
    }

    fn take(&mut self, results: &yara_x::ScanResults<'_, '_>, looked_at: &[u8]) {
        for rule in results.matching_rules() {
            let tagged = |name: &str| rule.tags().any(|tag| tag.identifier() == name);
            // A rule may be about memory alone, or about files alone.
            if (tagged("memory") && !self.memory) || (tagged("file") && self.memory) {
                continue;
            }
            let mut severity = Severity::Medium;
            let mut description = String::new();
            let mut needs_wallet = false;
            for (key, value) in rule.metadata() {
                match (key, value) {
                    ("severity", MetaValue::String(word)) => severity = severity_of(word).unwrap_or(severity),
                    ("description", MetaValue::String(text)) => text.clone_into(&mut description),
                    ("verify", MetaValue::String("wallet")) => needs_wallet = true,
                    _ => {}
                }
            }
            if needs_wallet && !has_wallet(&rule, looked_at) {
                continue;
            }
            let patterns = rule.patterns().filter_map(|pattern| {
                let first = pattern.matches().next()?;
                Some((pattern.identifier().to_owned(), first.range().start as u64))
            });
            self.push(ScanMatch {
                rule: rule.identifier().to_owned(),
                origin: rule.namespace().to_owned(),
                severity,
                description,
                inside: self.inside.clone(),
                patterns: patterns.take(PATTERNS).collect(),
            });
        }
    }

    /// What else is worth knowing of something that matched.
    fn describe(&mut self, bytes: &[u8], digest: Option<[u8; 32]>) {
        if self.report.program.is_none() {
            self.report.program = program::facts(bytes);
        }
        for wallet in wallet::wallets(bytes) {
            if self.report.wallets.len() < GAPS && !self.report.wallets.contains(&wallet) {
                self.report.wallets.push(wallet);
            }
        }
        if self.inside.is_empty() {
            self.report.sha256 = Some(hex(&digest.unwrap_or_else(|| sha256(bytes))));
        }
    }
}

/// Whether what was looked at, or what a pattern of the rule matched, has an address whose checksum holds.
fn has_wallet(rule: &yara_x::Rule<'_, '_>, looked_at: &[u8]) -> bool {
    !wallet::wallets(looked_at).is_empty()
        || rule.patterns().flat_map(|p| p.matches()).any(|found| !wallet::wallets(found.data()).is_empty())
}

fn severity_of(word: &str) -> Option<Severity> {
    Some(match word {
        "info" => Severity::Info,
        "low" => Severity::Low,
        "medium" => Severity::Medium,
        "high" => Severity::High,
        "critical" => Severity::Critical,
        _ => return None,
    })
}
