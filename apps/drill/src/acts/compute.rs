//! Computes under RandomX's rounding modes, of nothing that is worth anything to anyone.

use std::ffi::CString;
use std::time::Instant;

use anyhow::Context;

use super::{MAX_THREADS, steady};
use crate::rounding_mode::{PAD, churn};

/// Steps under one rounding mode, about a millisecond's work, so that most looks at the thread see it inside.
const STEPS: u32 = 200_000;

/// Computes on so many threads (at most two) until the moment given.
pub(super) fn run(threads: usize, until: Instant) -> anyhow::Result<()> {
    let threads = start(threads, until)?;
    steady();
    threads.into_iter().for_each(|t| drop(t.join()));
    Ok(())
}

/// Gives itself a short name, and computes.
pub(super) fn renamed(comm: &str, until: Instant) -> anyhow::Result<()> {
    rustix::thread::set_name(&CString::new(comm)?).context("take another name")?;
    run(1, until)
}

/// Starts the threads.
pub(super) fn start(threads: usize, until: Instant) -> anyhow::Result<Vec<std::thread::JoinHandle<()>>> {
    let threads = threads.clamp(1, MAX_THREADS);
    (0..threads).map(|n| Ok(std::thread::Builder::new().spawn(move || compute(n, until))?)).collect()
}

fn compute(thread: usize, until: Instant) {
    let Ok(mut pad) = <Box<[f64; PAD]>>::try_from(vec![1.0; PAD].into_boxed_slice()) else { return };
    let mut seed = 0x9e37_79b9_7f4a_7c15 ^ thread as u64;
    while Instant::now() < until {
        // The walk's own number chooses the next mode, as RandomX's CFROUND does.
        let rounding = (seed >> 60) as u32;
        if churn(&mut pad, rounding, STEPS, &mut seed).is_none() {
            return;
        }
    }
}
