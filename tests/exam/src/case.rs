use std::fmt;

use serde::Serialize;

/// What a miner computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Algo {
    /// RandomX with its cache alone, 256 MiB.
    RandomxLight,
    /// RandomX with the dataset, 2080 MiB, which takes a minute of both CPUs to fill.
    RandomxFast,
    /// scrypt, N=1024.
    Scrypt,
    /// SHA-256 twice.
    Sha256d,
}

/// How it hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Disguise {
    /// Not at all.
    Plain,
    /// Under a kernel thread's name.
    Renamed,
    /// Run from a memfd.
    Memfd,
    /// Run from a file that is deleted.
    Deleted,
    /// Each thread computes a quarter of the time.
    Throttled,
    /// One thread among twenty that do a service's work.
    OneOfMany,
    /// As the user nobody.
    OtherUser,
    /// In pid, mount and network namespaces of its own with a private /proc.
    Container,
}

/// How it talks to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Stratum as it is.
    Clear,
    /// Stratum in TLS.
    Tls,
    /// In TLS to a relay, which carries it to the pool.
    Relay,
    /// Not at all.
    NoPool,
}

/// One miner in one disguise on one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MinerCase {
    /// What it computes.
    pub algo: Algo,
    /// How it hides.
    pub disguise: Disguise,
    /// How it talks.
    pub transport: Transport,
}

impl MinerCase {
    /// Seconds from the steady state within which the agent must have named it.
    #[must_use]
    pub const fn limit(&self) -> f64 {
        if matches!(self.disguise, Disguise::Throttled) { 30.0 } else { 10.0 }
    }

    /// CPUs that it uses on a machine with two that are free.
    #[must_use]
    pub const fn appetite(&self) -> f64 {
        match self.disguise {
            Disguise::Throttled => 0.5,
            Disguise::OneOfMany => 1.0,
            _ => 2.0,
        }
    }

    /// Why no verdict can be asked for, where none can: hash functions that every honest program computes as well,
    /// on no pool, leave nothing that tells a miner from `openssl speed`. Such cases run and are shown, but do not
    /// count as failed.
    #[must_use]
    pub const fn beyond_reach(&self) -> Option<&'static str> {
        match (self.algo, self.transport) {
            (Algo::Scrypt | Algo::Sha256d, Transport::NoPool) => {
                Some("an ordinary hash function and no pool: nothing tells it from honest computation")
            }
            _ => None,
        }
    }
}

/// An honest program that works hard or talks much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Its name in the table.
    pub name: &'static str,
    /// The programs it needs, which packages.txt names the packages of.
    pub programs: &'static [&'static str],
    /// A shell script; `$WORK` is an empty folder, `$SECS` the time it should fill, `$POOL` the test pool's program,
    /// `$CHAT` a chat room's address.
    #[serde(skip)]
    pub script: &'static str,
}

/// One question of the exam.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Case {
    /// A miner, to be named.
    Miner(MinerCase),
    /// An honest load, to be left alone.
    Load(Load),
}

impl Case {
    /// A name such as `randomx_light/memfd/tls` or `everyday/openssl`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Miner(m) => format!("{}/{}/{}", m.algo, m.disguise, m.transport),
            Self::Load(load) => format!("everyday/{}", load.name),
        }
    }
}

macro_rules! shown_as_serialized {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(serde_json::to_value(self).map_err(|_| fmt::Error)?.as_str().unwrap_or_default())
            }
        }
    )*};
}
shown_as_serialized!(Algo, Disguise, Transport);
