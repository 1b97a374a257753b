//! Evidence that speaks of a unit because of what its relatives do.

use davy_model::{Signal, Timestamp};

use crate::case::UnitKey;
use crate::detector::Detector;
use crate::ledger::{Particulars, evidence};
use crate::weights::{Class, ENOUGH_COMPUTATION, POOL_SHAPE_AND_COMPUTE};

/// How far up acts of a campaign are looked for.
const NEAR: usize = 5;
/// How far apart a unit that computes and one that talks to a pool may stand.
const CLOSE: usize = 2;

impl Detector {
    /// A pool's rhythm or name speaks far louder of a unit that computes than of one that does not.
    pub(crate) fn join_network_and_computation(&mut self, now: Timestamp) {
        let touching: Vec<UnitKey> = self
            .cases
            .iter()
            .filter(|(_, c)| c.ledger.has("pool_shape") || c.ledger.has("pool_list"))
            .map(|(u, _)| *u)
            .collect();
        for unit in touching {
            let Some(case) = self.cases.get_mut(&unit) else { continue };
            let network = case.ledger.signal_bits(Signal::PoolShape, now)
                + case.ledger.signal_bits(Signal::PoolList, now);
            let computes = case.ledger.class_bits(Class::Computation, now) >= ENOUGH_COMPUTATION;
            if computes && network >= 4.0 && !case.ledger.has("pool_shape/computes") {
                let text = "the same program computes and holds that connection".to_owned();
                let found = evidence(now, Signal::PoolShape, POOL_SHAPE_AND_COMPUTE, text).of(unit);
                self.note(unit, "pool_shape/computes", found);
            } else if !computes {
                case.ledger.withdraw("pool_shape/computes");
            }
        }
    }

    /// Brings to units that compute or hide what their ancestors did, and the pool that a close relative talks to for them.
    pub(crate) fn join_relatives(&mut self, now: Timestamp, computing: &[(UnitKey, f64)]) {
        for (unit, _) in computing {
            let mut around = 0.0f32;
            let mut what = None;
            for ancestor in
                self.processes.ancestors(unit).take(NEAR).filter(|a| a.unit != *unit && a.key.pid > 1)
            {
                let Some(case) = self.cases.get(&ancestor.unit) else { continue };
                let bits = case.ledger.class_bits(Class::Campaign, now);
                if bits > around {
                    around = bits;
                    what = case
                        .ledger
                        .evidence(now)
                        .into_iter()
                        .find(|e| Class::of(e.signal) == Some(Class::Campaign))
                        .map(|e| (ancestor.comm.clone(), ancestor.key.pid, e));
                }
            }
            if let Some((comm, pid, strongest)) = what.filter(|_| around >= 1.0) {
                let text = format!("{comm} ({pid}) above it {}", strongest.text);
                let mut found = evidence(strongest.time, Signal::Campaign, around, text);
                found.technique = strongest.technique;
                self.note(*unit, "campaign/around", found.of(*unit));
            }
            self.join_speaker(*unit, now);
        }
    }

    /// A program that does not come with the system computes, and its parent or child talks to a pool for it.
    fn join_speaker(&mut self, unit: UnitKey, now: Timestamp) {
        let Some(process) = self.processes.get(&unit) else { return };
        if self.lists.names.is_system(&process.program.image.path) {
            return;
        }
        let speaks = |other: &UnitKey| {
            let case = self.cases.get(other).filter(|_| *other != unit)?;
            let shape = case.ledger.signal_bits(Signal::PoolShape, now);
            let named = case.ledger.signal_bits(Signal::PoolList, now);
            (shape + named >= 5.0).then_some((*other, shape + named))
        };
        let above = self.processes.ancestors(&unit).take(CLOSE).find_map(|a| speaks(&a.unit));
        let below = || {
            let talkers =
                self.cases.iter().filter(|(_, c)| c.ledger.has("pool_shape") || c.ledger.has("pool_list"));
            talkers
                .filter(|(other, _)| self.processes.ancestors(other).take(CLOSE).any(|a| a.unit == unit))
                .find_map(|(other, _)| speaks(other))
        };
        let Some((other, bits)) = above.or_else(below) else { return };
        let who = self.processes.get(&other).map_or("a relative", |p| p.comm.as_str());
        let text = format!("{who} ({}) talks to a pool, and this program computes beside it", other.pid);
        let found = evidence(now, Signal::PoolShape, bits * 0.7 + POOL_SHAPE_AND_COMPUTE, text).of(unit);
        self.note(unit, "pool_shape/relative", found);
    }
}
