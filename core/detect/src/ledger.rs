//! The evidence kept for one process tree and its sum.

use std::collections::BTreeMap;

use davy_model::{Evidence, FlowKey, ProcessKey, Signal, Technique, Timestamp};

use crate::weights::{CLASSES, Class, PRIOR, fading};

/// Pieces of evidence kept a tree. When full, the weakest goes.
const MAX_ENTRIES: usize = 40;

/// What evidence is about, finer than its signal; one piece of evidence is kept of each.
pub(crate) type Topic = &'static str;

#[derive(Clone, Debug)]
struct Entry {
    topic: Topic,
    first: Timestamp,
    /// The most it ever weighed, so that a weight that goes up and down is no growth each time.
    peak: f32,
    evidence: Evidence,
}

/// The evidence of one tree, one piece a topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
    /// Rises when a new topic comes or one grows by a bit, so that findings are renewed only then.
    grown: u64,
}

impl Ledger {
    /// Notes evidence of a topic. What was noted before of that topic is replaced; a state measured again may weaken.
    pub(crate) fn note(&mut self, topic: Topic, evidence: Evidence) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.topic == topic) {
            if evidence.weight >= entry.peak + 1.0 {
                self.grown += 1;
                entry.peak = evidence.weight;
            }
            entry.evidence = evidence;
            return;
        }
        if self.entries.len() >= MAX_ENTRIES {
            let weakest = self
                .entries
                .iter()
                .enumerate()
                .min_by(|(_, a), (_, b)| a.evidence.weight.total_cmp(&b.evidence.weight))
                .map(|(i, _)| i);
            if let Some(i) = weakest {
                self.entries.swap_remove(i);
            }
        }
        self.grown += 1;
        self.entries.push(Entry { topic, first: evidence.time, peak: evidence.weight, evidence });
    }

    /// Notes evidence unless stronger evidence of that topic is there already; then only its time is renewed.
    pub(crate) fn note_strongest(&mut self, topic: Topic, evidence: Evidence) {
        match self.entries.iter_mut().find(|e| e.topic == topic) {
            Some(entry) if entry.evidence.weight > evidence.weight => {
                entry.evidence.time = entry.evidence.time.max(evidence.time);
            }
            _ => self.note(topic, evidence),
        }
    }

    /// Takes back what was noted of a topic.
    pub(crate) fn withdraw(&mut self, topic: Topic) {
        self.entries.retain(|e| e.topic != topic);
    }

    /// Has the findings of this tree told anew, because something about it is news that weighs nothing.
    pub(crate) fn grow(&mut self) {
        self.grown += 1;
    }

    /// A counter that rises whenever the evidence grows.
    pub(crate) fn grown(&self) -> u64 {
        self.grown
    }

    /// Whether there is any evidence of a topic.
    pub(crate) fn has(&self, topic: Topic) -> bool {
        self.entries.iter().any(|e| e.topic == topic)
    }

    /// The flow that evidence of a topic is about.
    pub(crate) fn flow_of(&self, topic: Topic) -> Option<FlowKey> {
        self.entries.iter().find(|e| e.topic == topic).and_then(|e| e.evidence.flow)
    }

    /// When the first evidence still kept was seen.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        self.entries.iter().map(|e| e.first).min()
    }

    /// The weight of one signal now, uncapped.
    pub(crate) fn signal_bits(&self, signal: Signal, now: Timestamp) -> f32 {
        self.entries.iter().filter(|e| e.evidence.signal == signal).map(|e| faded(&e.evidence, now)).sum()
    }

    /// The weight of one class now, capped.
    pub(crate) fn class_bits(&self, class: Class, now: Timestamp) -> f32 {
        let sum: f32 = self
            .entries
            .iter()
            .filter(|e| Class::of(e.evidence.signal) == Some(class))
            .map(|e| faded(&e.evidence, now))
            .sum();
        sum.clamp(-class.cap(), class.cap())
    }

    /// The sum of all classes and the prior.
    pub(crate) fn bits(&self, now: Timestamp) -> f32 {
        PRIOR + CLASSES.iter().map(|class| self.class_bits(*class, now)).sum::<f32>()
    }

    /// The evidence that still has weight, strongest first, with the weight it has now.
    pub(crate) fn evidence(&self, now: Timestamp) -> Vec<Evidence> {
        let mut list: Vec<Evidence> = self
            .entries
            .iter()
            .map(|e| Evidence { weight: faded(&e.evidence, now), ..e.evidence.clone() })
            .filter(|e| e.weight.abs() >= 0.05)
            .collect();
        list.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        list
    }

    /// Drops what has faded away; true when nothing is left.
    pub(crate) fn forget(&mut self, now: Timestamp) -> bool {
        self.entries.retain(|e| faded(&e.evidence, now).abs() >= 0.02);
        self.entries.is_empty()
    }
}

/// The probability that a sum of bits stands for.
pub(crate) fn probability(bits: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(bits)).exp2())
}

fn faded(evidence: &Evidence, now: Timestamp) -> f32 {
    let (hold, half_life) = fading(evidence.signal);
    let age = now.secs_since(evidence.time) - hold;
    if age <= 0.0 { evidence.weight } else { evidence.weight * (-(age / half_life)).exp2() as f32 }
}

/// Builds evidence in one go.
pub(crate) fn evidence(time: Timestamp, signal: Signal, weight: f32, text: String) -> Evidence {
    Evidence {
        time,
        signal,
        weight,
        text,
        numbers: BTreeMap::new(),
        process: None,
        flow: None,
        technique: None,
    }
}

/// Adds the particulars of a piece of evidence, in the order they read.
pub(crate) trait Particulars: Sized {
    /// Whose it is.
    fn of(self, process: ProcessKey) -> Self;
    /// On which flow.
    fn on(self, flow: FlowKey) -> Self;
    /// To which technique it belongs.
    fn technique(self, id: &str) -> Self;
    /// A number by name.
    fn number(self, name: &str, value: f64) -> Self;
}

impl Particulars for Evidence {
    fn of(mut self, process: ProcessKey) -> Self {
        self.process = Some(process);
        self
    }

    fn on(mut self, flow: FlowKey) -> Self {
        self.flow = Some(flow);
        self
    }

    fn technique(mut self, id: &str) -> Self {
        self.technique = Some(Technique::new(id));
        self
    }

    fn number(mut self, name: &str, value: f64) -> Self {
        self.numbers.insert(name.to_owned(), value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_to_new_hosts_is_no_likelier_to_mine() {
        let now = Timestamp::from_secs(1_800_000_000);
        let mut ledger = Ledger::default();
        let note = |ledger: &mut Ledger, topic, signal, weight| {
            ledger.note(topic, evidence(now, signal, weight, String::new()));
        };
        // A solver that was started on a cluster: it computes steadily on all CPUs, with a nice value.
        note(&mut ledger, "compute", Signal::ComputeShape, 5.5);
        let before = ledger.bits(now);
        note(&mut ledger, "lateral", Signal::Lateral, 30.0);
        assert!((ledger.bits(now) - before).abs() < 0.001, "{} {before}", ledger.bits(now));
        assert!(ledger.signal_bits(Signal::Lateral, now) > 29.0, "what it did is told all the same");
        note(&mut ledger, "campaign", Signal::Campaign, 3.0);
        assert!((ledger.bits(now) - before - 3.0).abs() < 0.001, "what was done around it counts");
    }
}
