use crate::case::{Algo, Case, Disguise, MinerCase, Transport};
use crate::loads;

use Algo::{RandomxFast, RandomxLight, Scrypt, Sha256d};
use Disguise::{Container, Deleted, Memfd, OneOfMany, OtherUser, Plain, Renamed, Throttled};
use Transport::{Clear, NoPool, Relay, Tls};

/// Every miner in every disguise on every transport, and every everyday load.
///
/// RandomX in fast mode is asked plain on every transport and throttled in TLS: its dataset takes a minute to fill,
/// and once filled it differs from light mode in memory alone.
#[must_use]
pub fn full() -> Vec<Case> {
    let mut cases = Vec::new();
    for algo in [RandomxLight, Scrypt, Sha256d] {
        for disguise in [Plain, Renamed, Memfd, Deleted, Throttled, OneOfMany, OtherUser, Container] {
            for transport in [Clear, Tls, Relay, NoPool] {
                cases.push(Case::Miner(MinerCase { algo, disguise, transport }));
            }
        }
    }
    for (disguise, transport) in
        [(Plain, Clear), (Plain, Tls), (Plain, Relay), (Plain, NoPool), (Throttled, Tls)]
    {
        cases.push(Case::Miner(MinerCase { algo: RandomxFast, disguise, transport }));
    }
    cases.extend(loads::everyday().iter().copied().map(Case::Load));
    cases
}

/// A dozen that has every algorithm, disguise and transport in it, and the loads that look most like mining.
#[must_use]
pub fn short() -> Vec<Case> {
    let miners = [
        (RandomxLight, Plain, Clear),
        (RandomxLight, Memfd, NoPool),
        (RandomxLight, Container, Relay),
        (RandomxLight, Throttled, Tls),
        (Scrypt, Deleted, Clear),
        (Scrypt, OtherUser, Relay),
        (Sha256d, Renamed, Tls),
        (Sha256d, OneOfMany, Clear),
    ];
    let loads = ["openssl speed", "stress-ng matrix", "xz -T2", "chat over WebSocket"];
    let miners =
        miners.map(|(algo, disguise, transport)| Case::Miner(MinerCase { algo, disguise, transport }));
    let loads = loads::everyday().iter().filter(|load| loads.contains(&load.name)).copied().map(Case::Load);
    miners.into_iter().chain(loads).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn parts(cases: &[Case]) -> BTreeSet<String> {
        let miners = cases.iter().filter_map(|case| match case {
            Case::Miner(miner) => Some(miner),
            Case::Load(_) => None,
        });
        miners.flat_map(|m| [m.algo.to_string(), m.disguise.to_string(), m.transport.to_string()]).collect()
    }

    #[test]
    fn the_short_exam_has_every_disguise_and_transport_of_the_full_one() {
        let mut all = parts(&full());
        // Its dataset alone would take a quarter of the time.
        all.remove("randomx_fast");
        assert_eq!(parts(&short()), all);
        assert_eq!(short().len(), 12);
    }

    #[test]
    fn no_case_is_put_twice() {
        let names: BTreeSet<_> = full().iter().map(Case::name).collect();
        assert_eq!(names.len(), full().len());
    }
}
