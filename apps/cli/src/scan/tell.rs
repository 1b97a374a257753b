//! What a scan says: to people as it finds, with a line of progress on a terminal; to programs a document a line.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use davy_model::{FileId, ProgramFacts, ScanReport};
use davy_sweep::{Found, Ready, Tally, Watcher};
use davy_wire::Command;
use serde_json::{Value, json};

use crate::answer::Answering;
use crate::client::Client;
use crate::escape::plain;
use crate::failure::{Exit, Failure};
use crate::page::{Line, Page, Role};
use crate::{amount, document, words};

/// How often the line of progress is written.
const OFTEN: Duration = Duration::from_millis(200);

/// The most gaps that people are told one by one; programs are told all.
const GAPS: u64 = 20;

pub(super) struct Telling<'a> {
    answering: &'a Answering,
    /// Whom to ask for quarantine, when that is wanted.
    quarantine: Option<&'a Client>,
    begin: Instant,
    shown: Option<Instant>,
    gaps: u64,
    not_taken: u64,
    /// Why the answer could not be written; the scan then has nobody to tell.
    fault: Option<io::Error>,
}

impl<'a> Telling<'a> {
    pub(super) fn new(answering: &'a Answering, quarantine: Option<&'a Client>, begin: Instant) -> Self {
        Self { answering, quarantine, begin, shown: None, gaps: 0, not_taken: 0, fault: None }
    }

    /// Sums up, and says how the command ends.
    pub(super) fn end(mut self, tally: &Tally, restarts: u64) -> Result<Exit, Failure> {
        self.clear();
        let seconds = self.begin.elapsed().as_secs_f64();
        if self.answering.json {
            self.answering.document_line(
                &json!({ "scan": "end", "files": tally.files, "known_clean": tally.known,
                "found": tally.found, "gaps": tally.gaps, "bytes": tally.bytes, "members": tally.members,
                "seconds": (seconds * 1e3).round() / 1e3, "cut_short": tally.cut_short,
                "worker_restarts": restarts, "not_quarantined": self.not_taken }),
            )?;
        } else {
            let mut page = Page::new();
            summary(tally, seconds).into_iter().for_each(|line| page.push(line));
            self.answering.page(&page)?;
        }
        if let Some(error) = self.fault {
            return Err(error.into());
        }
        Ok(match tally {
            _ if self.not_taken > 0 => Exit::Failed,
            Tally { found: 1.., .. } => Exit::Found,
            Tally { cut_short: true, .. } => Exit::Failed,
            _ => Exit::Done,
        })
    }

    fn line(&mut self, line: Line) {
        let mut page = Page::new();
        page.extend(line.wrap(self.answering.width));
        self.write(&page);
    }

    fn write(&mut self, page: &Page) {
        self.clear();
        if let Err(error) = self.answering.page(page) {
            self.fault = Some(error);
        }
    }

    fn write_document(&mut self, value: &Value) {
        if let Err(error) = self.answering.document_line(value) {
            self.fault = Some(error);
        }
    }

    /// Takes the line of progress away.
    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }

    fn take_away(
        &mut self,
        path: &Path,
        file: FileId,
        report: &ScanReport,
    ) -> Option<Result<String, Failure>> {
        let client = self.quarantine?;
        let Some(path) = path.to_str() else {
            self.not_taken += 1;
            return Some(Err(Failure::new(Exit::Failed, "its path is not UTF-8; move it away by hand")));
        };
        let rules: Vec<&str> = report.matches.iter().map(|found| found.rule.as_str()).collect();
        let reason = format!("found by a scan: {}", rules.join(", "));
        let outcome = client.command(Command::Quarantine { path: path.to_owned(), file, reason });
        self.not_taken += u64::from(outcome.is_err());
        Some(outcome)
    }
}

impl Watcher for Telling<'_> {
    /// Says with what rules it goes, and names those that do not take part.
    fn begins(&mut self, ready: &Ready) {
        if self.answering.json {
            return self
                .write_document(&json!({ "scan": "begin", "rules": ready.rules, "hashes": ready.hashes,
                "set_aside": ready.aside, "confinement": ready.confinement }));
        }
        for aside in &ready.aside {
            let place = format!(" ({})", aside.origin);
            self.line(
                Line::in_role(Role::Warning, "set aside ")
                    .and(Role::Strong, &aside.rule)
                    .and(Role::Quiet, place)
                    .and(Role::Plain, format!(": {}", aside.reason)),
            );
        }
        for missing in &ready.confinement.missing {
            self.line(Line::in_role(Role::Warning, "the scan worker: ").and(Role::Plain, missing));
        }
    }

    fn found(&mut self, found: &Found<'_>) {
        let Found { path, file, pid, report } = found;
        let wanted = file.filter(|_| !report.matches.is_empty());
        let taken = wanted.and_then(|file| self.take_away(path, file, report));
        if self.answering.json {
            let mut value = document::raw(report);
            value["scan"] = json!("found");
            value["path"] = json!(path.to_string_lossy());
            value["file"] = json!(file);
            value["pid"] = json!(pid);
            value["quarantine"] = match taken {
                None => Value::Null,
                Some(Ok(sentence)) => json!({ "done": true, "note": sentence }),
                Some(Err(failure)) => json!({ "done": false, "note": failure.message }),
            };
            return self.write_document(&value);
        }
        let mut page = Page::new();
        describe(found).into_iter().for_each(|line| page.extend(line.wrap(self.answering.width)));
        match taken {
            None => {}
            Some(Ok(sentence)) => page.push(Line::in_role(Role::Good, format!("  {sentence}"))),
            Some(Err(failure)) => {
                page.push(Line::in_role(Role::Alarm, "  not taken away: ").and(Role::Plain, failure.message));
            }
        }
        self.write(&page);
    }

    fn gap(&mut self, path: &Path, why: &str) {
        self.gaps += 1;
        if self.answering.json {
            return self
                .write_document(&json!({ "scan": "gap", "path": path.to_string_lossy(), "why": why }));
        }
        if self.answering.quiet || (self.gaps > GAPS && self.answering.verbose == 0) {
            return;
        }
        let line = Line::in_role(Role::Quiet, format!("not looked at: {}: {why}", path.display()));
        self.line(line);
        if self.gaps == GAPS && self.answering.verbose == 0 {
            self.line(Line::in_role(Role::Quiet, "further ones are counted and not told; -v tells them"));
        }
    }

    fn progress(&mut self, tally: &Tally, path: &Path) {
        let Answering { json, quiet, error_terminal, width, .. } = *self.answering;
        if json || quiet || !error_terminal || self.shown.is_some_and(|at| at.elapsed() < OFTEN) {
            return;
        }
        if self.shown.is_none() && self.begin.elapsed() < OFTEN {
            return;
        }
        let seconds = self.begin.elapsed().as_secs_f64();
        let rate = amount::bytes((tally.bytes as f64 / seconds) as u64);
        let files = amount::of(tally.files, "file", "files");
        let head = format!("{files}, {}, {rate}/s, {} found  ", amount::bytes(tally.bytes), tally.found);
        let shown = path.to_string_lossy();
        let text: String = format!("{head}{}", plain(&shown)).chars().take(width.saturating_sub(1)).collect();
        let _ = io::stderr().write_all(format!("\r{text}\x1b[K").as_bytes());
        self.shown = Some(Instant::now());
    }
}

fn describe(found: &Found<'_>) -> Vec<Line> {
    let Found { path, pid, report, .. } = found;
    let mut head = Line::in_role(Role::Strong, path.display().to_string());
    if let Some(pid) = pid {
        head = head.and(Role::Plain, format!(" (memory of process {pid})"));
    }
    let mut lines = vec![head];
    for found in &report.matches {
        let (role, severity) = words::severity(found.severity);
        let mut line = Line::in_role(role, format!("  {severity:<9}")).and(Role::Strong, &found.rule);
        if found.origin != "davy" {
            line = line.and(Role::Quiet, format!(" ({})", found.origin));
        }
        lines.push(line.and(Role::Plain, format!("  {}", found.description)));
        if !found.inside.is_empty() {
            lines
                .push(Line::in_role(Role::Quiet, format!("           inside: {}", found.inside.join(" > "))));
        }
    }
    if let Some(program) = &report.program {
        lines.push(Line::in_role(Role::Quiet, format!("  program: {}", program_words(program))));
    }
    for wallet in &report.wallets {
        lines.push(Line::in_role(Role::Quiet, format!("  {} wallet: {}", wallet.currency, wallet.address)));
    }
    if let Some(sha256) = &report.sha256 {
        lines.push(Line::in_role(Role::Quiet, format!("  SHA-256: {sha256}")));
    }
    lines
}

/// The structure of a program in a line.
fn program_words(program: &ProgramFacts) -> String {
    let mut parts = vec![format!("{} {}", program.machine, program.kind)];
    let linked = if program.static_linked { "static" } else { "dynamic" };
    parts.push(linked.to_owned());
    if program.stripped {
        parts.push("stripped".to_owned());
    }
    parts.extend(program.language.iter().map(|language| format!("made with {language}")));
    parts.extend(program.packer.iter().map(|packer| match packer.as_str() {
        "unknown" => "looks packed".to_owned(),
        packer => format!("packed with {packer}"),
    }));
    parts.push(format!("{:.1} bits a byte", program.entropy));
    if !program.embedded.is_empty() {
        parts.push(amount::of(program.embedded.len() as u64, "program within it", "programs within it"));
    }
    parts.extend(program.oddities.iter().cloned());
    parts.join(", ")
}

fn summary(tally: &Tally, seconds: f64) -> Vec<Line> {
    let (role, found) = match tally.found {
        0 => (Role::Good, "nothing found".to_owned()),
        n => (Role::Alarm, format!("found something in {}", amount::of(n, "place", "places"))),
    };
    let mut what = format!(
        "{}, {} in {}",
        amount::of(tally.files, "file", "files"),
        amount::bytes(tally.bytes),
        amount::duration(seconds)
    );
    if tally.known > 0 {
        what.push_str(&format!("; {} known to be clean", amount::count(tally.known)));
    }
    let mut lines = vec![Line::in_role(Role::Plain, format!("{what}: ")).and(role, found)];
    if tally.gaps > 0 {
        let gaps = format!("{} not looked at, or not in full", amount::count(tally.gaps));
        lines.push(Line::in_role(Role::Warning, gaps));
    }
    if tally.cut_short {
        lines.push(Line::in_role(
            Role::Warning,
            "cut short; the same command goes on where it ended (with --all: add --resume)",
        ));
    }
    lines
}
