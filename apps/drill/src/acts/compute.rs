//! Computes nothing that is worth anything to anyone: under RandomX's rounding modes, or as any other program does.

use std::ffi::CString;
use std::thread::JoinHandle;
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
pub(super) fn start(threads: usize, until: Instant) -> anyhow::Result<Vec<JoinHandle<()>>> {
    spawn(threads, move |n| compute(n, until))
}

/// Starts threads that leave the processor's modes alone, so that their computing says nothing of what they compute.
pub(super) fn start_plain(threads: usize, until: Instant) -> anyhow::Result<Vec<JoinHandle<()>>> {
    spawn(threads, move |n| mix(n, until))
}

fn spawn(
    threads: usize,
    work: impl Fn(usize) + Clone + Send + 'static,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    (0..threads.clamp(1, MAX_THREADS))
        .map(|n| {
            let work = work.clone();
            Ok(std::thread::Builder::new().spawn(move || work(n))?)
        })
        .collect()
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

/// Integers walked about in a small table, much as scrypt does.
fn mix(thread: usize, until: Instant) {
    let mut table = vec![1_u64; 1 << 14];
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ thread as u64;
    while Instant::now() < until {
        for _ in 0..STEPS {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let place = (state >> 40) as usize % table.len();
            table[place] = table[place].rotate_left(7) ^ state;
            state ^= table[place];
        }
        std::hint::black_box(&mut table);
    }
}
