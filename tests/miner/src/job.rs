use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use davy_test_pool::{Algorithm, Difficulty, stratum};

/// Something to hash.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The pool's name for it.
    pub(crate) id: String,
    /// The block's blob or header; the nonce in it is overwritten.
    pub(crate) blob: Vec<u8>,
    /// Where the four bytes of the nonce lie.
    pub(crate) nonce_at: usize,
    /// The part of the coinbase that this miner chose; empty in Monero's dialect.
    pub(crate) extranonce2: String,
    /// The block's time as the pool gave it; empty in Monero's dialect.
    pub(crate) time: String,
    /// What a share must meet.
    pub(crate) difficulty: Difficulty,
    /// RandomX's key; empty for others.
    pub(crate) seed: Vec<u8>,
}

impl Job {
    /// A job that no pool gave.
    pub(crate) fn alone(algorithm: Algorithm) -> Self {
        let (length, nonce_at) = match algorithm {
            Algorithm::RandomX | Algorithm::RandomXV2 => (76, stratum::NONCE_OFFSET),
            Algorithm::Scrypt | Algorithm::Sha256d => (80, stratum::header::NONCE_OFFSET),
        };
        Self {
            id: String::new(),
            blob: vec![7; length],
            nonce_at,
            extranonce2: String::new(),
            time: String::new(),
            // Nobody waits for the shares, so that none need be found.
            difficulty: Difficulty(u64::MAX),
            seed: vec![0x5a; 32],
        }
    }
}

/// A nonce whose hash met the difficulty.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) job: Arc<Job>,
    /// As it stands in the blob.
    pub(crate) nonce: [u8; 4],
    pub(crate) hash: [u8; 32],
}

/// Where the client posts jobs and the workers hand in shares.
pub(crate) struct Board {
    job: Mutex<Option<Arc<Job>>>,
    posted: Condvar,
    generation: AtomicU64,
    ended: AtomicBool,
    found: Sender<Share>,
    shares: Mutex<Receiver<Share>>,
}

impl Default for Board {
    fn default() -> Self {
        let (found, shares) = channel();
        Self {
            job: Mutex::default(),
            posted: Condvar::new(),
            generation: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            found,
            shares: Mutex::new(shares),
        }
    }
}

impl Board {
    pub(crate) fn post(&self, job: Job) {
        *self.slot() = Some(Arc::new(job));
        self.generation.fetch_add(1, Ordering::Release);
        self.posted.notify_all();
    }

    /// A number that changes with the job.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn current(&self) -> Option<Arc<Job>> {
        self.slot().clone()
    }

    /// The first job, once it is there.
    pub(crate) fn wait(&self, deadline: Instant) -> Option<Arc<Job>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (slot, _) = self
            .posted
            .wait_timeout_while(self.slot(), left, |job| job.is_none() && !self.ended())
            .unwrap_or_else(PoisonError::into_inner);
        slot.clone()
    }

    pub(crate) fn hand_in(&self, share: Share) {
        // The receiving end lives in this very board.
        drop(self.found.send(share));
    }

    pub(crate) fn take_share(&self) -> Option<Share> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
    }

    /// Tells everyone that mining is over.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.posted.notify_all();
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Job>>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
