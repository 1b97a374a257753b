use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use davy_test_pool::Algorithm;

use crate::disguise;

/// What the miner was asked to do.
#[derive(Parser, Clone, Debug)]
#[command(name = "davy-test-miner", about = "A real miner for tests, bounded in time and reach")]
pub(crate) struct Arguments {
    /// What to compute.
    #[arg(long, value_enum, default_value_t = Algo::Randomx)]
    pub(crate) algo: Algo,
    /// RandomX with 256 MiB and slow, or with 2080 MiB and fast.
    #[arg(long, value_enum, default_value_t = Mode::Light)]
    pub(crate) mode: Mode,
    /// How many threads compute.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// Percent of the time that each of them computes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) throttle: u32,
    /// How many other threads live in the process and do a service's small work.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) bystanders: u32,
    /// The pool; loopback or link-local.
    #[arg(long, required_unless_present = "no_pool", conflicts_with = "no_pool")]
    pub(crate) pool: Option<SocketAddr>,
    /// Speak TLS to the pool and take any certificate.
    #[arg(long, requires = "pool")]
    pub(crate) tls: bool,
    /// Mine without a pool.
    #[arg(long)]
    pub(crate) no_pool: bool,
    /// Seconds from start to end, at most 120.
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=120))]
    pub(crate) seconds: u64,
    /// Call itself so, in its argument vector and as its short name.
    #[arg(long, value_name = "NAME")]
    pub(crate) rename: Option<String>,
    /// Run from a memfd.
    #[arg(long, conflicts_with = "delete_self")]
    pub(crate) memfd: bool,
    /// Run from a copy that is deleted at once.
    #[arg(long)]
    pub(crate) delete_self: bool,
    /// Run as this user id and the group of the same number; needs root.
    #[arg(long, value_name = "UID")]
    pub(crate) user: Option<u32>,
}

/// The algorithms by the names of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algo {
    Randomx,
    Scrypt,
    Sha256d,
}

/// How RandomX keeps its dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Light,
    Fast,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Fast => "fast",
        }
    }
}

impl Arguments {
    /// The arguments of this process, or those that its former self left it when it put on a disguise.
    pub(crate) fn read() -> Result<Self> {
        let left: Option<Vec<OsString>> = disguise::arguments_left()?;
        let arguments = match left {
            Some(left) => Self::parse_from(left),
            None => Self::parse(),
        };
        if let Some(pool) = arguments.pool {
            ensure!(
                stays_here(pool.ip()),
                "{pool} is neither loopback nor link-local; this miner dials nothing else"
            );
        }
        Ok(arguments)
    }

    pub(crate) const fn algorithm(&self) -> Algorithm {
        match self.algo {
            Algo::Randomx => Algorithm::RandomX,
            Algo::Scrypt => Algorithm::Scrypt,
            Algo::Sha256d => Algorithm::Sha256d,
        }
    }
}

/// No router forwards what goes to these addresses, so that nothing leaves the machine or its test namespaces.
fn stays_here(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_stay_here_are_dialled() {
        for near in ["127.0.0.1", "127.8.8.8", "169.254.3.4", "::1", "fe80::1"] {
            assert!(stays_here(near.parse().expect("address")), "{near}");
        }
        for far in ["10.0.0.1", "192.0.2.1", "8.8.8.8", "2001:db8::1", "::ffff:127.0.0.1", "0.0.0.0"] {
            assert!(!stays_here(far.parse().expect("address")), "{far}");
        }
    }
}
