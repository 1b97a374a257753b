use std::fs;

use anyhow::{Context, Result, ensure};
use davy_test_pool::Algorithm;

use crate::arguments::Mode;
use crate::randomx;

/// What all threads share: nothing, or RandomX's cache and dataset.
pub(crate) enum Kernel {
    RandomX(randomx::Shared),
    Header(Algorithm),
}

impl Kernel {
    pub(crate) fn prepare(algorithm: Algorithm, mode: Mode, seed: &[u8], threads: u32) -> Result<Self> {
        match algorithm {
            Algorithm::RandomX => {
                if mode == Mode::Fast {
                    let free = available_memory()?;
                    ensure!(
                        free >= 3 << 30,
                        "fast mode needs 3 GiB of free memory, there are {} MiB",
                        free >> 20
                    );
                }
                Ok(Self::RandomX(randomx::Shared::new(seed, mode == Mode::Fast, threads)?))
            }
            Algorithm::RandomXV2 => {
                anyhow::bail!("rx/2 is not in the reference implementation this miner builds")
            }
            Algorithm::Scrypt | Algorithm::Sha256d => Ok(Self::Header(algorithm)),
        }
    }

    /// One thread's machine.
    pub(crate) fn hasher(&self) -> Result<Hasher> {
        Ok(match self {
            Self::RandomX(shared) => Hasher::RandomX(shared.machine()?),
            Self::Header(algorithm) => Hasher::Header(*algorithm),
        })
    }

    /// How many hashes to compute before looking up again: some milliseconds' worth.
    pub(crate) const fn batch(&self) -> u32 {
        match self {
            Self::RandomX(_) => 1,
            Self::Header(Algorithm::Scrypt) => 16,
            Self::Header(_) => 1 << 14,
        }
    }
}

pub(crate) enum Hasher {
    RandomX(randomx::Machine),
    Header(Algorithm),
}

impl Hasher {
    /// The proof of a blob, least significant byte first; `None` for a blob of the wrong length.
    pub(crate) fn hash(&mut self, blob: &[u8]) -> Option<[u8; 32]> {
        match self {
            Self::RandomX(machine) => Some(machine.hash(blob)),
            Self::Header(algorithm) => algorithm.proof(blob.try_into().ok()?),
        }
    }
}

/// `MemAvailable` in bytes.
fn available_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .context("no MemAvailable in /proc/meminfo")?;
    Ok(kib << 10)
}
