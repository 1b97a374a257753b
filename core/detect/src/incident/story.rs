//! The timeline of an incident.

use std::collections::BTreeMap;

use davy_model::{
    Evidence, Finding, FindingKind, FlowKey, ImageKind, ProcessKey, Signal, Technique, TimelineEntry,
    Timestamp,
};

use crate::campaign::shortened;
use crate::detector::Detector;
use crate::incident::beginning::Beginning;
use crate::lateral;
use crate::process_table::{Process, base_name};

/// Acts told of one incident. When full, no further ones are added; those there are still renewed.
const MAX_ENTRIES: usize = 80;
/// Bytes of a command line that are shown.
const MAX_COMMAND: usize = 160;

/// What an act is, so that it is told once however often it is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ActKey {
    /// The first act.
    Began,
    /// A program was executed.
    Ran(ProcessKey, Timestamp),
    /// A file was written.
    Wrote(String),
    /// An act of a campaign, by its text.
    Did(ProcessKey, String),
    /// It mined, or computed.
    Mined(ProcessKey),
    /// It talked to someone.
    Talked(FlowKey),
    /// It was told to whom it belongs without a flow.
    Hid(ProcessKey, Signal),
}

/// The acts of an incident.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    acts: BTreeMap<ActKey, TimelineEntry>,
}

impl Story {
    /// Tells an act, or tells it anew.
    pub(crate) fn tell(&mut self, key: ActKey, mut entry: TimelineEntry) {
        entry.techniques.sort();
        entry.techniques.dedup();
        if let Some(known) = self.acts.get_mut(&key) {
            // What was seen first says when it happened.
            entry.time = entry.time.min(known.time);
            *known = entry;
        } else if self.acts.len() < MAX_ENTRIES {
            self.acts.insert(key, entry);
        }
    }

    /// The beginning as it is told now.
    pub(crate) fn began(&self) -> Option<&TimelineEntry> {
        self.acts.get(&ActKey::Began)
    }

    /// All acts, oldest first, the beginning before all.
    pub(crate) fn timeline(&self) -> Vec<TimelineEntry> {
        let mut acts: Vec<(&ActKey, &TimelineEntry)> = self.acts.iter().collect();
        acts.sort_by(|a, b| {
            (*a.0 != ActKey::Began, a.1.time, a.0).cmp(&(*b.0 != ActKey::Began, b.1.time, b.0))
        });
        acts.into_iter().map(|(_, entry)| entry.clone()).collect()
    }
}

impl Detector {
    /// Tells a finding's part of the story.
    pub(crate) fn tell(&self, story: &mut Story, finding: &Finding, beginning: &Beginning) {
        let earlier = story.began().is_none_or(|began| beginning.time < began.time);
        if earlier {
            let user = beginning
                .process
                .and_then(|p| self.processes.get(&p))
                .map(|p| self.user(p.program.creds.euid));
            story.tell(
                ActKey::Began,
                entry(
                    beginning.time,
                    "began with",
                    beginning.text.clone(),
                    beginning.process,
                    user,
                    beginning.technique,
                ),
            );
        }
        let Some(subject) = finding.subject else { return };
        let mut path: Vec<&Process> = self.processes.get(&subject).into_iter().collect();
        if subject != beginning.root {
            for above in self.processes.ancestors(&subject) {
                path.push(above);
                if above.key == beginning.root || path.len() >= 16 {
                    break;
                }
            }
        }
        for process in path.iter().rev() {
            // All that is known of it, so that a finding about one thing does not make another untold.
            let case = self.cases.get(&process.unit);
            let known = case.map(|c| c.ledger.evidence(finding.time)).unwrap_or_default();
            self.tell_program(story, process, &known);
        }
        self.tell_evidence(story, finding, subject);
    }

    /// What a process executed, and what its disguise is.
    fn tell_program(&self, story: &mut Story, process: &Process, evidence: &[Evidence]) {
        if let Some(written) = self.written.get(&process.program.image.file) {
            let writer = self.processes.get(&written.process);
            let by = writer.map(|w| format!(" by {}", w.comm)).unwrap_or_default();
            let user = writer.map(|w| self.user(w.program.creds.euid));
            story.tell(
                ActKey::Wrote(written.path.clone()),
                entry(
                    written.time,
                    "which wrote",
                    format!("{}{by}", written.path),
                    Some(written.process),
                    user,
                    Some("T1105"),
                ),
            );
        }
        for past in &process.history {
            let told = entry(
                past.time,
                "which ran",
                command(&past.program.args, &past.program.image.path),
                Some(process.key),
                Some(self.user(past.program.creds.euid)),
                None,
            );
            story.tell(ActKey::Ran(process.key, past.time), told);
        }
        let Some(executed) = process.executed else { return };
        let mut text = match process.program.image.kind {
            ImageKind::File => command(&process.program.args, &process.program.image.path),
            ImageKind::Memfd => format!("\"{}\" from memory", process.comm),
            ImageKind::Deleted => format!("\"{}\" from a deleted file", process.comm),
        };
        let mut techniques = Vec::new();
        let disguise = evidence.iter().filter(|e| e.process == Some(process.key)).filter(|e| {
            matches!(
                e.signal,
                Signal::Masquerade
                    | Signal::Fileless
                    | Signal::OddParent
                    | Signal::CommandLine
                    | Signal::Service
            )
        });
        for (i, piece) in disguise.take(4).enumerate() {
            text.push_str(if i == 0 { ": " } else { "; " });
            text.push_str(&piece.text);
            techniques.extend(piece.technique.clone());
        }
        let user = Some(self.user(process.program.creds.euid));
        let mut told = entry(executed, "which ran", text, Some(process.key), user, None);
        told.techniques = techniques;
        story.tell(ActKey::Ran(process.key, executed), told);
    }

    fn tell_evidence(&self, story: &mut Story, finding: &Finding, subject: ProcessKey) {
        let user = self.processes.get(&subject).map(|p| self.user(p.program.creds.euid));
        let works = |e: &&Evidence| {
            matches!(
                e.signal,
                Signal::RoundingMode | Signal::ComputeShape | Signal::MemoryShape | Signal::Gpu
            )
        };
        if finding.kind == FindingKind::Mining {
            let text: Vec<&str> = finding.evidence.iter().filter(works).map(|e| e.text.as_str()).collect();
            let text =
                if text.is_empty() { "by its own words on the wire".to_owned() } else { text.join("; ") };
            let first = self.cases.get(&self.processes.unit_of(&subject)).and_then(|c| c.computing_since);
            let time = first.unwrap_or(finding.first);
            let told = entry(time, "which mined", text, Some(subject), user.clone(), Some("T1496.001"));
            story.tell(ActKey::Mined(subject), told);
        }
        for piece in &finding.evidence {
            let who = piece.process.or(Some(subject));
            let technique = piece.technique.as_ref().map(|t| t.0.as_str());
            match piece.signal {
                Signal::Stratum | Signal::PoolShape | Signal::PoolList => {
                    if let Some(flow) = piece.flow {
                        self.tell_flow(story, flow, finding, &user);
                    }
                }
                Signal::Persistence => {
                    let text = piece.text.strip_prefix("wrote ").unwrap_or(&piece.text).to_owned();
                    let key = ActKey::Wrote(text.clone());
                    story.tell(key, entry(piece.time, "which wrote", text, who, user.clone(), technique));
                }
                Signal::Campaign | Signal::Preparation if !piece.text.contains(" above it ") => {
                    let key = ActKey::Did(subject, piece.text.clone());
                    let done_by =
                        who.and_then(|p| self.processes.get(&p)).map(|p| self.user(p.program.creds.euid));
                    story.tell(
                        key,
                        entry(
                            piece.time,
                            "which did",
                            piece.text.clone(),
                            who,
                            done_by.or(user.clone()),
                            technique,
                        ),
                    );
                }
                Signal::Scan => {
                    let key = ActKey::Did(subject, piece.text.clone());
                    story.tell(
                        key,
                        entry(piece.time, "which", piece.text.clone(), who, user.clone(), technique),
                    );
                }
                Signal::Outbound => {
                    // The number of times grows; it is one act all the same.
                    let times = piece.numbers.get("attempts").map_or(0.0, |times| *times);
                    let key = ActKey::Did(
                        who.unwrap_or(subject),
                        piece.text.replacen(&format!(", {times} times"), "", 1),
                    );
                    let text = piece.text.split_once("\" ").map_or(piece.text.as_str(), |(_, did)| did);
                    let told = entry(piece.time, "which", text.to_owned(), who, user.clone(), technique);
                    story.tell(key, told);
                }
                Signal::Lateral => {
                    let began = piece.numbers.get(lateral::BEGAN).copied().unwrap_or_default();
                    let key = ActKey::Did(subject, format!("lateral {began}"));
                    story.tell(
                        key,
                        entry(piece.time, "which", piece.text.clone(), who, user.clone(), technique),
                    );
                }
                Signal::Trust => {
                    let key = ActKey::Did(subject, piece.text.clone());
                    let told =
                        entry(piece.time, "which tried", piece.text.clone(), who, user.clone(), technique);
                    story.tell(key, told);
                }
                Signal::Masquerade
                | Signal::Fileless
                | Signal::OddParent
                | Signal::CommandLine
                | Signal::Service => {
                    // A process found running has no exec to tell this with.
                    let told = who.and_then(|p| self.processes.get(&p)).is_some_and(|p| p.executed.is_some());
                    if !told && let Some(process) = who {
                        let key = ActKey::Hid(process, piece.signal);
                        story.tell(
                            key,
                            entry(piece.time, "which is", piece.text.clone(), who, user.clone(), technique),
                        );
                    }
                }
                _ => {}
            }
        }
    }

    /// One entry a flow, with all that is known of it.
    fn tell_flow(&self, story: &mut Story, key: FlowKey, finding: &Finding, user: &Option<String>) {
        let pieces: Vec<&Evidence> = finding.evidence.iter().filter(|e| e.flow == Some(key)).collect();
        let flow = self.flows.get(&key);
        let remote =
            flow.map_or_else(|| "an address no longer known".to_owned(), crate::flow_table::Flow::remote);
        let how = if flow.is_some_and(|f| f.tls) { " in TLS" } else { "" };
        let mut text = format!("{remote}{how}");
        for (i, piece) in pieces.iter().enumerate() {
            // The pieces name the other end themselves; here it stands once, before them.
            let said = piece
                .text
                .replace(&format!("talks to {remote}{how}: "), "")
                .replace(&format!("talks to {remote}, which "), "which ")
                .replace(&format!(" with {remote}"), "");
            text.push_str(if i == 0 { ": " } else { "; " });
            text.push_str(&said);
        }
        if !pieces.iter().any(|e| e.signal == Signal::PoolList) {
            text.push_str(", on no list");
        }
        let time = flow.map_or(finding.first, |f| f.opened);
        let owner = flow.and_then(|f| f.owner).or(finding.subject);
        let mut told = entry(time, "talking to", text, owner, user.clone(), None);
        told.techniques = pieces.iter().filter_map(|e| e.technique.clone()).collect();
        story.tell(ActKey::Talked(key), told);
    }

    /// A user by name, or by number.
    pub(crate) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

/// Tells what a scan found in a file of no known process: it begins with itself.
pub(super) fn tell_loose(story: &mut Story, finding: &Finding) {
    for piece in &finding.evidence {
        let key = if story.began().is_none() { ActKey::Began } else { ActKey::Wrote(piece.text.clone()) };
        let relation = if key == ActKey::Began { "began with" } else { "and" };
        let technique = piece.technique.as_ref().map(|t| t.0.as_str());
        story.tell(key, entry(piece.time, relation, piece.text.clone(), None, None, technique));
    }
}

fn entry(
    time: Timestamp,
    relation: &str,
    text: String,
    process: Option<ProcessKey>,
    user: Option<String>,
    technique: Option<&str>,
) -> TimelineEntry {
    let techniques = technique.map(Technique::new).into_iter().collect();
    TimelineEntry { time, relation: relation.to_owned(), text, process, user, techniques }
}

/// A command line for people: the program by its last name, arguments with blanks in quotes.
fn command(args: &[String], path: &str) -> String {
    if args.is_empty() {
        return path.to_owned();
    }
    let mut text = String::new();
    for (i, argument) in args.iter().enumerate() {
        if i > 0 {
            text.push(' ');
        }
        let shown = if i == 0 && argument.starts_with('/') && base_name(argument) == base_name(path) {
            path
        } else {
            argument
        };
        if shown.contains(char::is_whitespace) || shown.is_empty() {
            text.push_str(&format!("\"{shown}\""));
        } else {
            text.push_str(shown);
        }
        if text.len() > MAX_COMMAND {
            break;
        }
    }
    let cut = shortened(&text, MAX_COMMAND);
    if cut.len() < text.len() { format!("{cut}...") } else { text }
}
