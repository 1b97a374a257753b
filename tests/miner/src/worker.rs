use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::hasher::{Hasher, Kernel};
use crate::job::{Board, Share};

#[derive(Default)]
struct Progress {
    hashes: AtomicU64,
    /// Threads that have their first hash behind them.
    warm: AtomicU32,
    stop: AtomicBool,
}

/// The threads that compute.
pub(crate) struct Crew {
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    pub(crate) fn start(kernel: &Kernel, board: &Arc<Board>, threads: u32, throttle: u32) -> Result<Self> {
        let progress = Arc::new(Progress::default());
        let mut crew = Self { progress, threads: Vec::new() };
        for index in 0..threads {
            let (board, progress) = (Arc::clone(board), Arc::clone(&crew.progress));
            let hasher = kernel.hasher()?;
            let batch = kernel.batch();
            // Each thread has its own part of the nonces.
            let nonce = (u64::from(index) << 32).div_euclid(u64::from(threads)) as u32;
            crew.threads.push(thread::spawn(move || work(hasher, &board, &progress, batch, nonce, throttle)));
        }
        Ok(crew)
    }

    /// Waits until every thread has computed its first hash; `false` when the time ran out.
    pub(crate) fn wait_until_steady(&self, deadline: Instant) -> bool {
        let all = self.threads.len() as u32;
        while self.progress.warm.load(Ordering::Acquire) < all {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    pub(crate) fn hashes(&self) -> u64 {
        self.progress.hashes.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(self) {
        self.progress.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            drop(thread.join());
        }
    }
}

fn work(mut hasher: Hasher, board: &Board, progress: &Progress, batch: u32, first: u32, throttle: u32) {
    let mut nonce = first;
    let mut warm = false;
    while !progress.stop.load(Ordering::Relaxed) {
        let generation = board.generation();
        let Some(job) = board.current() else { return };
        let mut blob = job.blob.clone();
        while board.generation() == generation && !progress.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            for _ in 0..batch {
                nonce = nonce.wrapping_add(1);
                let bytes = nonce.to_le_bytes();
                blob[job.nonce_at..job.nonce_at + 4].copy_from_slice(&bytes);
                let Some(hash) = hasher.hash(&blob) else { return };
                if job.difficulty.met_by(&hash) {
                    board.hand_in(Share { job: Arc::clone(&job), nonce: bytes, hash });
                }
            }
            progress.hashes.fetch_add(u64::from(batch), Ordering::Relaxed);
            if !warm {
                warm = true;
                progress.warm.fetch_add(1, Ordering::Release);
            }
            rest(began.elapsed(), throttle);
        }
    }
}

/// Sleeps so long that `busy` is `throttle` percent of the whole.
fn rest(busy: Duration, throttle: u32) {
    if throttle < 100 {
        thread::sleep(busy * (100 - throttle) / throttle);
    }
}
