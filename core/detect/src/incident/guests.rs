//! Findings that were made elsewhere, and join the incident of the processes that they name.

use davy_model::{Evidence, Finding, ProcessKey, Timestamp};

use super::{Cause, MAX_PARTS, QUIET_SECS};
use crate::detector::Detector;
use crate::incident::beginning::Beginning;

/// Findings kept. When full, the one that was told first goes: it joins nothing any more, and stays where it joined.
const MAX_GUESTS: usize = 64;

/// A finding of another part of Davy.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    slot: u64,
    finding: Finding,
    /// Whether it was told anew since it joined.
    news: bool,
}

/// A process that a guest names, and its part of it.
struct Part {
    causes: [Cause; 2],
    beginning: Beginning,
    finding: Finding,
}

impl Detector {
    /// Takes in a finding that has its number and was made elsewhere, or takes it in anew. It joins the incident of any of the
    /// processes that its evidence names, also one that begins within two minutes; it opens none, for what it tells may be a gap
    /// in a policy as well. At most 64 are kept.
    pub fn adopt(&mut self, finding: &Finding) {
        if let Some(known) = self.guests.iter_mut().find(|guest| guest.finding.id == finding.id) {
            known.finding = finding.clone();
            known.news = true;
            return;
        }
        if self.guests.len() >= MAX_GUESTS {
            self.guests.remove(0);
        }
        let slot = self.slot();
        self.guests.push(Guest { slot, finding: finding.clone(), news: true });
    }

    pub(super) fn join_guests(&mut self, now: Timestamp) {
        if self.incidents.is_empty() {
            return;
        }
        let mut guests = std::mem::take(&mut self.guests);
        for guest in &mut guests {
            let joined = self.incident_of(guest.slot).is_some();
            if !joined || std::mem::take(&mut guest.news) {
                self.join_guest(guest, now);
            }
        }
        self.guests = guests;
    }

    fn join_guest(&mut self, guest: &Guest, now: Timestamp) {
        let parts = self.parts_of(&guest.finding, now);
        let place = self.incidents.iter().position(|i| i.findings.contains_key(&guest.slot)).or_else(|| {
            self.incidents.iter().position(|i| parts.iter().any(|part| i.joins(&part.causes, now)))
        });
        let Some(place) = place else { return };
        let mut incident = self.incidents.swap_remove(place);
        // What others did who are told of in the same finding is not this story's, and joins it to no other.
        let own: Vec<&Part> = parts.iter().filter(|part| incident.joins(&part.causes, now)).collect();
        for part in own {
            self.tell(&mut incident.story, &part.finding, &part.beginning);
            incident.suspects.extend(&part.finding.processes);
            self.add_nodes(&mut incident, &part.beginning.root, &part.finding);
        }
        incident.findings.insert(guest.slot, guest.finding.clone());
        while incident.findings.len() > MAX_PARTS {
            incident.findings.pop_first();
        }
        incident.last = now;
        incident.changed = true;
        self.incidents.push(incident);
    }

    /// The processes that did something lately, each with what it did.
    fn parts_of(&self, finding: &Finding, now: Timestamp) -> Vec<Part> {
        let lately = |piece: &&Evidence| now.secs_since(piece.time) <= QUIET_SECS;
        let mut processes: Vec<ProcessKey> =
            finding.evidence.iter().filter(lately).filter_map(|piece| piece.process).collect();
        processes.sort();
        processes.dedup();
        let part = |process: ProcessKey| {
            let own = finding.evidence.iter().filter(|piece| piece.process == Some(process)).cloned();
            let beginning = self.beginning(&process);
            let unit = self.processes.unit_of(&process);
            Part {
                causes: [Cause::Tree(beginning.root), Cause::Unit(unit)],
                beginning,
                finding: Finding {
                    subject: Some(process),
                    processes: vec![process],
                    evidence: own.collect(),
                    ..finding.clone()
                },
            }
        };
        processes.into_iter().map(part).collect()
    }
}
