//! What is gathered about one unit: a program with everything it forked.

use davy_model::{FindingId, FindingKind, ProcessKey, Signal, Timestamp};

use crate::compute_shape::ComputeSum;
use crate::ledger::{Ledger, probability};
use crate::malware::BadFile;
use crate::pool_contact::PoolEnds;
use crate::rounding_mode::RoundingSum;
use crate::settings::Settings;
use crate::weights::{Class, ENOUGH_COMPUTATION};

/// A finding as it stands within its case.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) slot: u64,
    pub(crate) id: FindingId,
    pub(crate) first: Timestamp,
    /// The ledger's growth when it was told last.
    pub(crate) told: u64,
    pub(crate) told_at: Timestamp,
    pub(crate) confidence: f64,
    pub(crate) suspected: bool,
}

/// The evidence about one unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    pub(crate) ledger: Ledger,
    pub(crate) compute: ComputeSum,
    pub(crate) rounding: RoundingSum,
    /// When it was seen to compute without a pause since.
    pub(crate) computing_since: Option<Timestamp>,
    /// When it was last seen to compute.
    pub(crate) computed: Option<Timestamp>,
    /// The process of it that computed last.
    pub(crate) busiest: Option<ProcessKey>,
    pub(crate) memory_asked: Option<Timestamp>,
    pub(crate) calls_asked: Option<Timestamp>,
    pub(crate) burst_asked: Option<Timestamp>,
    pub(crate) standing: Vec<(FindingKind, Standing)>,
    /// The pools it talks to for certain.
    pub(crate) pools: PoolEnds,
    /// Files in which a scan found something, which this unit runs or wrote; the newest.
    pub(crate) bad_files: Vec<BadFile>,
    /// How many there were that ran.
    pub(crate) bad_files_run: usize,
    /// How many there were that did not.
    pub(crate) bad_files_written: usize,
    pub(crate) last: Timestamp,
}

/// What a case amounts to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing that may be said.
    Open,
    /// Disguised, and it computes: worth a look now.
    Suspected,
    /// It mines.
    Mines,
}

impl Case {
    /// Weighs the case. Besides the probability, a verdict needs evidence of kinds that together leave no harmless
    /// reading: the algorithm itself, a miner's own words on the wire, or a pool and computation. Computation never suffices.
    pub(crate) fn verdict(&self, now: Timestamp, settings: &Settings) -> (Verdict, f64) {
        let bits = self.ledger.bits(now);
        let confidence = probability(bits);
        let class = |class| self.ledger.class_bits(class, now);
        let signal = |signal| self.ledger.signal_bits(signal, now);
        let computes = class(Class::Computation) >= ENOUGH_COMPUTATION;
        let (network, words) = (class(Class::Network), class(Class::Words));
        let proven = signal(Signal::RoundingMode) >= 15.0
            || signal(Signal::Stratum) >= 13.0
            || (network >= 5.0 && computes)
            || (words >= 8.0 && (computes || network >= 5.0));
        if confidence >= settings.mining_threshold && proven {
            return (Verdict::Mines, confidence);
        }
        let long = self.computing_since.is_some_and(|since| now.secs_since(since) >= 20.0);
        let hides = class(Class::Disguise) >= 5.0;
        if confidence >= settings.suspicion_threshold && hides && long && class(Class::Computation) >= 5.0 {
            return (Verdict::Suspected, confidence);
        }
        (Verdict::Open, confidence)
    }

    /// Seconds since it was last seen to compute.
    pub(crate) fn compute_pause(&self, now: Timestamp) -> f64 {
        self.computed.map_or(f64::INFINITY, |computed| now.secs_since(computed))
    }

    /// A finding of this kind that was made before.
    pub(crate) fn standing(&self, kind: FindingKind) -> Option<&Standing> {
        self.standing.iter().find(|(k, _)| *k == kind).map(|(_, s)| s)
    }

    /// The same, to change.
    pub(crate) fn standing_mut(&mut self, kind: FindingKind) -> Option<&mut Standing> {
        self.standing.iter_mut().find(|(k, _)| *k == kind).map(|(_, s)| s)
    }
}

/// The key of a case: the unit's first process.
pub(crate) type UnitKey = ProcessKey;
