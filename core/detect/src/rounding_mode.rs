//! RandomX by the rounding mode of the SSE unit.
//!
//! RandomX's CFROUND instruction sets one of the four rounding modes from data, so that a saved control register (MXCSR) shows each
//! with equal chance, and it computes with flush-to-zero and denormals-are-zero on (RandomX specification, 4.3 and 5.4.1). Everyday
//! software leaves round-to-nearest; interval arithmetic changes the mode but not with those two bits; a numeric library that sets
//! the bits does not change the mode. So the modes seen with both bits set are a sequence, and each step of it is weighed:
//! a change speaks for RandomX, a repetition against it. Version 2 changes the mode 16 times less often, still hundreds of times
//! between two samples; the same test holds.

use std::fmt;

use davy_model::ThreadSample;

use crate::weights::{ROUNDING_CAP, ROUNDING_CHANGED, ROUNDING_SAME, ROUNDING_TWO_MODES_CAP};

/// Flush-to-zero and denormals-are-zero (Intel SDM vol. 1, 10.2.3).
const FTZ_DAZ: u32 = 0x8040;
const MODE_SHIFT: u32 = 13;
/// Samples after which a thread that never changed its mode is no longer looked at more closely.
const YOUNG: u32 = 24;

/// What one thread's samples told so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundingTrack {
    /// Samples that were new observations of a thread at work.
    samples: u32,
    /// Those with both bits set.
    flushed: u32,
    /// Changes of mode between consecutive ones of those.
    changes: u32,
    last: Option<u8>,
    modes: u8,
    bits: f32,
}

impl RoundingTrack {
    /// Takes in a sample. It counts only when the thread computed and was switched since `before`,
    /// because the register is saved at a switch.
    pub(crate) fn observe(&mut self, before: &ThreadSample, sample: &ThreadSample) {
        let Some(mxcsr) = sample.mxcsr else { return };
        let switched = sample.voluntary_switches != before.voluntary_switches
            || sample.involuntary_switches != before.involuntary_switches;
        if !switched || sample.cpu_ns <= before.cpu_ns {
            return;
        }
        if mxcsr & FTZ_DAZ != FTZ_DAZ {
            // RandomX restores the register after each hash, so a miner that sleeps, as one that is held down does, went to
            // sleep with an ordinary one. Only a thread that was preempted at work tells by it.
            if sample.voluntary_switches == before.voluntary_switches {
                self.samples = self.samples.saturating_add(1);
                self.step(ROUNDING_SAME);
            }
            return;
        }
        self.samples = self.samples.saturating_add(1);
        self.flushed = self.flushed.saturating_add(1);
        let mode = ((mxcsr >> MODE_SHIFT) & 3) as u8;
        self.modes |= 1 << mode;
        match self.last.replace(mode) {
            Some(last) if last != mode => {
                self.changes = self.changes.saturating_add(1);
                self.step(ROUNDING_CHANGED);
            }
            Some(_) => self.step(ROUNDING_SAME),
            None => {}
        }
    }

    fn step(&mut self, bits: f32) {
        self.bits = (self.bits + bits).clamp(0.0, ROUNDING_CAP);
    }

    /// Different modes seen with both bits set.
    pub(crate) fn modes(&self) -> u32 {
        self.modes.count_ones()
    }

    /// The weight of what was seen.
    pub(crate) fn bits(&self) -> f32 {
        if self.modes() >= 3 { self.bits } else { self.bits.min(ROUNDING_TWO_MODES_CAP) }
    }
}

/// The threads of one process tree together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundingSum {
    pub(crate) samples: u32,
    pub(crate) changes: u32,
    pub(crate) threads: u32,
    modes: u8,
    bits: f32,
    /// A thread runs with both bits set and was not looked at long enough.
    young: bool,
}

impl RoundingSum {
    /// Adds a thread that showed anything of the kind.
    pub(crate) fn add(&mut self, track: &RoundingTrack) {
        self.young |= track.flushed > 0 && track.flushed < YOUNG;
        if track.changes == 0 {
            return;
        }
        self.samples = self.samples.saturating_add(track.samples);
        self.changes = self.changes.saturating_add(track.changes);
        self.threads += 1;
        self.modes |= track.modes;
        self.bits += track.bits();
    }

    /// The weight of all threads, capped; threads that toggle between two modes stay weak however many there are.
    pub(crate) fn bits(&self) -> f32 {
        let cap = if self.modes() >= 3 { ROUNDING_CAP } else { ROUNDING_TWO_MODES_CAP };
        self.bits.min(cap)
    }

    /// Different modes seen.
    pub(crate) fn modes(&self) -> u32 {
        self.modes.count_ones()
    }

    /// Whether more frequent samples would settle it soon.
    pub(crate) fn undecided(&self) -> bool {
        (self.changes > 0 || self.young) && self.bits() < ROUNDING_CAP * 0.75
    }
}

impl fmt::Display for RoundingSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads =
            if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) };
        write!(
            f,
            "RandomX: rounding mode changed in {} of {} samples on {threads}, {} of 4 modes with flush-to-zero on",
            self.changes,
            self.samples,
            self.modes()
        )
    }
}

#[cfg(test)]
mod tests {
    use davy_model::ProcessKey;

    use super::*;

    fn feed(values: &[u32]) -> RoundingTrack {
        let mut track = RoundingTrack::default();
        let mut before = sample(0, 0);
        for (i, mxcsr) in values.iter().enumerate() {
            let next = sample(i as u64 + 1, *mxcsr);
            track.observe(&before, &next);
            before = next;
        }
        track
    }

    fn sample(n: u64, mxcsr: u32) -> ThreadSample {
        ThreadSample {
            process: ProcessKey { pid: 1, start_ticks: 1, boot: 1 },
            tid: 1,
            cpu_ns: n * 1_000_000,
            voluntary_switches: 0,
            involuntary_switches: n,
            mxcsr: Some(mxcsr),
            policy: 0,
            nice: 0,
            allowed_cpus: 2,
        }
    }

    #[test]
    fn randomx_reaches_a_verdict_within_eight_samples() {
        // As recorded from a light-mode benchmark: modes 2, 0, 3, 1.
        let track = feed(&[0xdfe0, 0x9fe0, 0xffe0, 0xbfe0, 0xbfe0, 0xdfe0, 0x9fe0, 0xffe0]);
        assert_eq!(track.modes(), 4);
        assert!(track.bits() > 17.25, "{}", track.bits());
    }

    #[test]
    fn round_to_nearest_says_nothing() {
        assert_eq!(feed(&[0x1fa0; 100]).bits(), 0.0);
    }

    #[test]
    fn flush_to_zero_with_one_mode_says_nothing() {
        assert_eq!(feed(&[0xffc0; 100]).bits(), 0.0);
        assert_eq!(feed(&[0x9fc0; 100]).bits(), 0.0);
    }

    #[test]
    fn interval_arithmetic_says_nothing() {
        let modes: Vec<u32> = (0..100).map(|i| 0x1f80 | (((i % 3) as u32) << 13)).collect();
        assert_eq!(feed(&modes).bits(), 0.0);
    }

    #[test]
    fn a_miner_that_sleeps_between_hashes_is_not_hidden_by_it() {
        let mut track = RoundingTrack::default();
        let mut before = sample(0, 0);
        let modes = [0x1fa0, 0xdfe0, 0x1fa0, 0x9fe0, 0x1fa0, 0x1fa0, 0xffe0, 0x1fa0, 0xbfe0, 0x1fa0, 0xdfe0];
        for (n, mxcsr) in modes.into_iter().enumerate() {
            let asleep = u64::from(mxcsr == 0x1fa0);
            let voluntary_switches = before.voluntary_switches + asleep;
            let next = ThreadSample { voluntary_switches, ..sample(n as u64 + 1, mxcsr) };
            track.observe(&before, &next);
            before = next;
        }
        assert!(track.bits() > 17.25, "{}", track.bits());
    }

    #[test]
    fn two_modes_never_suffice() {
        let modes: Vec<u32> = (0..100).map(|i| if i % 2 == 0 { 0x9fc0 } else { 0xbfc0 }).collect();
        let track = feed(&modes);
        assert!(track.bits() <= ROUNDING_TWO_MODES_CAP);
        let mut sum = RoundingSum::default();
        for _ in 0..64 {
            sum.add(&track);
        }
        assert!(sum.bits() <= ROUNDING_TWO_MODES_CAP);
    }

    #[test]
    fn a_register_not_saved_anew_is_no_sample() {
        let mut track = RoundingTrack::default();
        let before = sample(1, 0xdfe0);
        track.observe(&before, &ThreadSample { cpu_ns: 9_000_000, mxcsr: Some(0x9fe0), ..before });
        assert_eq!(track.samples, 0);
    }
}
