//! What was told, and what is to be told anew.

use std::collections::BTreeSet;
use std::net::IpAddr;

use davy_model::{Place, Prefix, ProbeKinds, Timestamp};

use super::crowd::Gathering;
use super::engine::Scans;
use super::report::{PortScan, Scanner};
use super::track::Track;
use super::weight::NEEDED;
use crate::place_of;

/// How long a scan is left to show its shape before it is told, in seconds; decoys show within that.
const RIPE: f64 = 2.0;

/// Scans told in an hour. Those beyond it are counted, and told when there is room if they still go on.
const MAX_TOLD: u32 = 100;

/// Scans of which it is remembered that they were told; the oldest go.
const MAX_KEPT: usize = 1024;

/// Addresses of one scan behind decoys.
const MAX_DECOYS: usize = 32;

/// A scan that grew is told anew after so long, in seconds; one that doubled, at once.
const RENEW: f64 = 60.0;

/// A scan is over when it was silent for so long, in seconds, or for so many times its own pauses.
const QUIET: f64 = 120.0;
const PAUSES: f64 = 4.0;
const QUIET_MOST: f64 = 6.0 * 3600.0;

/// Two sources send the same when this share of what the smaller one tried, the other tried within this time, in seconds.
const SAME_SHARE: f64 = 0.6;
const SAME_TIME: f64 = 1.0;
const SAME_LEAST: usize = 3;

#[derive(Clone, Debug)]
enum Whose {
    Sources(Vec<IpAddr>),
    Network(Prefix),
    Crowd,
}

/// A scan that was told, as it was told last.
#[derive(Clone, Debug)]
pub(super) struct Told {
    whose: Whose,
    at: Timestamp,
    scan: PortScan,
}

impl Scans {
    pub(super) fn tell(&mut self, now: Timestamp) -> Vec<PortScan> {
        let mut scans = Vec::new();
        self.withheld = 0;
        self.tell_sources(now, &mut scans);
        self.tell_networks(now, &mut scans);
        self.tell_crowd(now, &mut scans);
        self.tell_anew(now, &mut scans);
        while self.told.len() > MAX_KEPT {
            self.told.pop_first();
        }
        scans
    }

    /// The scans that go on, as they are told when nobody watches any more.
    #[must_use]
    pub fn cut_short(self) -> Vec<PortScan> {
        let scans = self.told.into_values().map(|told| told.scan).filter(|scan| scan.running);
        scans.map(|scan| PortScan { running: false, cut_short: true, renewed: true, ..scan }).collect()
    }

    fn tell_sources(&mut self, now: Timestamp, scans: &mut Vec<PortScan>) {
        // One that waited for its turn until it was over is not told any more.
        let ripe = |track: &Track| {
            track.told.is_none()
                && track.verdict.is_some_and(|v| now.secs_since(v.time) >= RIPE)
                && is_running(track.first, track.last, track.seen, now)
        };
        let mut new: Vec<IpAddr> =
            self.tracks.iter().filter(|(_, track)| ripe(track)).map(|(source, _)| *source).collect();
        new.sort_unstable();
        while let Some(source) = new.first().copied() {
            let Some(number) = self.number(now) else {
                self.withheld += new.len() as u64;
                return;
            };
            let members = self.same_as(source);
            new.retain(|other| !members.contains(other));
            for member in &members {
                if let Some(track) = self.tracks.get_mut(member) {
                    track.told = Some(number);
                }
            }
            self.publish(number, Whose::Sources(members), now, scans);
        }
    }

    fn tell_networks(&mut self, now: Timestamp, scans: &mut Vec<PortScan>) {
        let new = |network: &super::network::NetworkTrack| {
            network.told.is_none() && network.verdict.is_some_and(|v| now.secs_since(v.time) >= RIPE)
        };
        let mut found: Vec<Prefix> =
            self.networks.iter().filter(|(_, network)| new(network)).map(|(prefix, _)| *prefix).collect();
        found.sort_unstable();
        for prefix in found {
            let Some(number) = self.number(now) else {
                self.withheld += 1;
                continue;
            };
            if let Some(network) = self.networks.get_mut(&prefix) {
                network.told = Some(number);
            }
            self.publish(number, Whose::Network(prefix), now, scans);
        }
    }

    fn tell_crowd(&mut self, now: Timestamp, scans: &mut Vec<PortScan>) {
        if self.told.values().any(|told| matches!(told.whose, Whose::Crowd)) {
            return;
        }
        if self.crowd.look(now).is_some()
            && let Some(number) = self.number(now)
        {
            self.publish(number, Whose::Crowd, now, scans);
        }
    }

    fn publish(&mut self, number: u64, whose: Whose, now: Timestamp, scans: &mut Vec<PortScan>) {
        let Some(scan) = self.describe(number, &whose, now) else { return };
        self.told.insert(number, Told { whose, at: now, scan: scan.clone() });
        scans.push(scan);
    }

    /// Scans that have grown, ended, or gone on after they had ended.
    fn tell_anew(&mut self, now: Timestamp, scans: &mut Vec<PortScan>) {
        let numbers: Vec<u64> = self.told.keys().copied().collect();
        for number in numbers {
            let Some(Told { whose, at, scan: before }) = self.told.get(&number).cloned() else { continue };
            if at == now {
                continue;
            }
            let Some(scan) = self.describe(number, &whose, now) else {
                // Nothing more is known of it: it was forgotten, or the crowd is gone.
                self.told.remove(&number);
                if before.running {
                    scans.push(PortScan { running: false, renewed: true, ..before });
                }
                continue;
            };
            let grown = scan.last > before.last || scan.ports > before.ports;
            let news = scan.ports >= before.ports.saturating_mul(2)
                || (grown && now.secs_since(at) >= RENEW)
                || scan.running != before.running;
            if news {
                let scan = PortScan { renewed: true, ..scan };
                self.told.insert(number, Told { whose, at: now, scan: scan.clone() });
                scans.push(scan);
            }
        }
    }

    /// The number of a scan that is new, if another may be told in this hour.
    fn number(&mut self, now: Timestamp) -> Option<u64> {
        if now.secs_since(self.hour.0) >= 3600.0 {
            self.hour = (now, 0);
        }
        if self.hour.1 >= MAX_TOLD {
            return None;
        }
        self.hour.1 += 1;
        self.next += 1;
        Some(self.next - 1)
    }

    /// This source and those that send the same at the same time.
    fn same_as(&self, source: IpAddr) -> Vec<IpAddr> {
        let Some(own) = self.tracks.get(&source) else { return vec![source] };
        let same = |(address, track): &(&IpAddr, &Track)| {
            **address != source && track.told.is_none() && sends_the_same(own, track)
        };
        let mut members: Vec<IpAddr> =
            self.tracks.iter().filter(same).map(|(address, _)| *address).take(MAX_DECOYS - 1).collect();
        members.push(source);
        members.sort_unstable();
        members
    }

    fn describe(&mut self, number: u64, whose: &Whose, now: Timestamp) -> Option<PortScan> {
        match whose {
            Whose::Sources(members) => self.describe_sources(number, members, now),
            Whose::Network(prefix) => self.describe_network(number, *prefix, now),
            Whose::Crowd => {
                let crowd = self.crowd.look(now)?;
                Some(self.describe_crowd(number, &crowd))
            }
        }
    }

    fn describe_sources(&self, number: u64, members: &[IpAddr], now: Timestamp) -> Option<PortScan> {
        let tracks: Vec<&Track> = members.iter().filter_map(|member| self.tracks.get(member)).collect();
        let lead = tracks.iter().max_by(|a, b| a.bits().total_cmp(&b.bits()))?;
        let verdict = tracks.iter().filter_map(|track| track.verdict).min_by_key(|v| v.time)?;
        let proven: Vec<IpAddr> = members
            .iter()
            .filter(|member| self.tracks.get(member).is_some_and(Track::is_proven))
            .copied()
            .collect();
        let scanner = match members {
            [alone] => Scanner::Address(*alone),
            // Two that both answer are two scanners with one tool, of whom nobody is to be named for the other.
            _ => Scanner::OneOf {
                addresses: members.to_vec(),
                real: proven.first().copied().filter(|_| proven.len() == 1),
            },
        };
        let all = |of: fn(&Track) -> &BTreeSet<u16>| {
            let set: BTreeSet<u16> = tracks.iter().flat_map(|track| of(track).iter().copied()).collect();
            set.into_iter().collect::<Vec<u16>>()
        };
        let mut kinds = ProbeKinds::default();
        tracks.iter().for_each(|track| kinds.join(track.kinds));
        let (first, last) = (tracks.iter().map(|t| t.first).min()?, tracks.iter().map(|t| t.last).max()?);
        let probes: u32 = tracks.iter().fold(0, |n: u32, track| n.saturating_add(track.seen));
        Some(PortScan {
            number,
            renewed: false,
            cut_short: false,
            running: is_running(first, last, lead.seen.max(lead.ports), now),
            place: place_of(*members.first()?, None),
            proven: proven.len() == 1,
            scanner,
            first,
            last,
            detected: verdict.time,
            visits_needed: verdict.visits,
            probes,
            ports: lead.ports,
            failed: lead.failed,
            open: all(|track| &track.open),
            decoys: all(|track| &track.decoys),
            forbidden: lead.forbidden,
            kinds,
            tool: lead.tally.tool(),
            bits: lead.bits().max(NEEDED),
            base_rate: self.rate.rate(),
            alike: None,
        })
    }

    fn describe_network(&self, number: u64, prefix: Prefix, now: Timestamp) -> Option<PortScan> {
        let network = self.networks.get(&prefix)?;
        let verdict = network.verdict?;
        Some(PortScan {
            number,
            renewed: false,
            cut_short: false,
            running: is_running(network.first, network.last, network.ports(), now),
            scanner: Scanner::Network {
                network: prefix,
                sources: u32::try_from(network.sources()).unwrap_or(u32::MAX),
            },
            place: place_of(prefix.address(), None),
            proven: false,
            first: network.first,
            last: network.last,
            detected: verdict.time,
            visits_needed: verdict.visits,
            probes: network.ports(),
            ports: network.ports(),
            failed: network.ports(),
            open: Vec::new(),
            decoys: Vec::new(),
            forbidden: 0,
            kinds: network.kinds,
            tool: None,
            bits: network.bits().max(NEEDED),
            base_rate: self.rate.rate(),
            alike: None,
        })
    }

    fn describe_crowd(&self, number: u64, crowd: &Gathering) -> PortScan {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        PortScan {
            number,
            renewed: false,
            cut_short: false,
            running: true,
            scanner: Scanner::Many { sources: count(crowd.sources), some: crowd.some.clone() },
            place: crowd.some.first().map_or(Place::Outside, |one| place_of(*one, None)),
            proven: false,
            first: crowd.first,
            last: crowd.last,
            detected: crowd.began,
            visits_needed: count(crowd.visits),
            probes: count(crowd.visits),
            ports: count(crowd.ports),
            failed: count(crowd.ports),
            open: Vec::new(),
            decoys: Vec::new(),
            forbidden: 0,
            kinds: crowd.kinds,
            tool: None,
            bits: NEEDED + (crowd.visits as f64 / crowd.usual.max(1.0)).log2().max(0.0) as f32,
            base_rate: self.rate.rate(),
            alike: Some(crowd.alike),
        }
    }
}

/// Whether it goes on: its last probe is not longer ago than some of its own pauses.
fn is_running(first: Timestamp, last: Timestamp, probes: u32, now: Timestamp) -> bool {
    let pause = last.secs_since(first) / f64::from(probes.max(2) - 1);
    now.secs_since(last) < (pause * PAUSES).clamp(QUIET, QUIET_MOST)
}

/// Whether two sources try the same ports at the same time with packets that look alike, or bear the same mark.
fn sends_the_same(a: &Track, b: &Track) -> bool {
    let (fewer, more) = if a.contacts.len() <= b.contacts.len() { (a, b) } else { (b, a) };
    let same = fewer.contacts.iter().filter(|one| {
        more.contacts.iter().any(|other| {
            (one.port, one.protocol, one.kind) == (other.port, other.protocol, other.kind)
                && one.look.without_distance() == other.look.without_distance()
                && one.time.secs_since(other.time).abs() <= SAME_TIME
        })
    });
    let same = same.count();
    let marked = a.tally.mark().is_some() && a.tally.mark() == b.tally.mark();
    same >= SAME_LEAST && (marked || same as f64 >= SAME_SHARE * fewer.contacts.len() as f64)
}
