//! Decides who scans.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use davy_model::{PortNews, PortRange, PortSight, Prefix, ScanSource, Timestamp};

use super::base_rate::BaseRate;
use super::crowd::Crowd;
use super::network::{NetworkTrack, network_of};
use super::report::PortScan;
use super::told::Told;
use super::track::{Contact, Track};
use super::weight::{self, NEEDED};

/// Sources kept. When full, an eighth of them goes: those against whom least speaks, of equal ones the longest silent.
pub(super) const MAX_TRACKS: usize = 16_384;

/// Networks kept; the same holds for them.
pub(super) const MAX_NETWORKS: usize = 2048;

/// Addresses of this host that are told apart. Further ones count as one.
const MAX_LOCALS: usize = 255;

/// A source that was silent for so long is forgotten, in seconds.
const MEMORY: f64 = 7.0 * 86_400.0;

/// What the administrator says of scans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Ports that nobody should touch.
    pub decoys: Vec<PortRange>,
    /// Sources that may look for ports.
    pub ignore: Vec<Prefix>,
}

/// Who scans this host, from what was seen between addresses and ports.
///
/// Memory is bounded: at most 16,384 sources of 32 visits, 2,048 networks of 64 addresses and 256 ports, and 4,096 visits of a crowd; below
/// 80 MB when all of it is full.
#[derive(Debug)]
pub struct Scans {
    settings: Settings,
    pub(super) tracks: HashMap<IpAddr, Track>,
    pub(super) networks: HashMap<Prefix, NetworkTrack>,
    pub(super) crowd: Crowd,
    pub(super) rate: BaseRate,
    pub(super) told: BTreeMap<u64, Told>,
    pub(super) next: u64,
    pub(super) hour: (Timestamp, u32),
    pub(super) withheld: u64,
    locals: Vec<IpAddr>,
    forgotten: u64,
}

impl Scans {
    /// Nothing was seen yet. `first` is the number of the first scan that is told, so that no two have the same when a watch
    /// follows on another.
    #[must_use]
    pub fn new(settings: Settings, first: u64, now: Timestamp) -> Self {
        Self {
            settings,
            tracks: HashMap::new(),
            networks: HashMap::new(),
            crowd: Crowd::new(now),
            rate: BaseRate::default(),
            told: BTreeMap::new(),
            next: first,
            hour: (now, 0),
            withheld: 0,
            locals: Vec::new(),
            forgotten: 0,
        }
    }

    /// Takes other settings; what is known stays, but for sources that are to be ignored now.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
        let ignore = &self.settings.ignore;
        self.tracks.retain(|address, _| !ignore.iter().any(|network| network.contains(*address)));
    }

    /// The number of the next scan that is told.
    #[must_use]
    pub const fn next_number(&self) -> u64 {
        self.next
    }

    /// How often a first visit to this host succeeds, as learned.
    #[must_use]
    pub fn base_rate(&self) -> f64 {
        self.rate.rate()
    }

    /// Sources forgotten because there was no room, and scans that wait to be told because too many were in this hour.
    #[must_use]
    pub const fn lost(&self) -> (u64, u64) {
        (self.forgotten, self.withheld)
    }

    /// Takes in what was seen.
    pub fn observe(&mut self, sight: &PortSight) {
        let source = sight.source;
        let nobody = source.is_loopback() || source.is_unspecified() || source.is_multicast();
        if nobody || source == sight.local || self.settings.ignore.iter().any(|net| net.contains(source)) {
            return;
        }
        let local = self.local(sight.local);
        let news = matches!(sight.news, PortNews::Probe { .. } | PortNews::Handshake { .. });
        if news && !self.tracks.contains_key(&source) {
            self.make_room();
            self.tracks.insert(source, Track::new(sight.time));
        }
        let Some(track) = self.tracks.get_mut(&source) else { return };
        let before = track.verdict.is_some();
        let rate = &mut self.rate;
        let settled = match &sight.news {
            PortNews::Probe { kind, shape, .. } if weight::is_traceroute(sight, *kind, shape.ttl) => return,
            PortNews::Probe { kind, shape, open } => {
                let decoy = self.settings.decoys.iter().any(|range| range.contains(sight.port));
                let decoy = decoy && matches!(sight.protocol, 6 | 17);
                track.probe(sight, local, (*kind, shape, *open), decoy, rate).into_iter().collect()
            }
            PortNews::Open => track.opened(sight, local, rate),
            PortNews::Refused => track.refused(sight, local, rate),
            PortNews::Handshake { .. } => track.handshake(sight, local, rate),
        };
        let known = track.verdict.is_some();
        self.settled(source, &settled, sight.time, before, known);
    }

    /// Tells the scans that are new, have grown or are over. To be called about once a second; `now` is on the clock of what was
    /// seen.
    pub fn conclude(&mut self, now: Timestamp) -> Vec<PortScan> {
        let mut silent = Vec::new();
        for (source, track) in &mut self.tracks {
            let before = track.verdict.is_some();
            let settled = track.wait_no_longer(now, &mut self.rate);
            if !settled.is_empty() {
                silent.push((*source, settled, before, track.verdict.is_some()));
            }
        }
        for (source, settled, before, known) in silent {
            self.settled(source, &settled, now, before, known);
        }
        self.tracks.retain(|_, track| now.secs_since(track.last) < MEMORY);
        self.networks.retain(|_, network| now.secs_since(network.last) < MEMORY);
        self.tell(now)
    }

    /// Against whom something speaks, the most first.
    #[must_use]
    pub fn watched(&self, limit: usize) -> Vec<ScanSource> {
        let sources = self.tracks.iter().filter(|(_, track)| track.bits() > 0.0).map(|(address, track)| {
            let told = track.told.is_some();
            ScanSource {
                source: Prefix::host(*address),
                bits: track.bits(),
                needed: NEEDED,
                told,
                proven: track.is_proven(),
                ports: track.ports,
                failed: track.failed,
                kinds: track.kinds,
                tool: track.tally.tool().map(|tool| tool.name().to_owned()),
                first: track.first,
                last: track.last,
            }
        });
        let together = |(_, network): &(&Prefix, &NetworkTrack)| {
            network.bits() > 0.0 && network.sources() >= super::network::LEAST_SOURCES
        };
        let networks = self.networks.iter().filter(together).map(|(prefix, network)| ScanSource {
            source: *prefix,
            bits: network.bits(),
            needed: NEEDED,
            told: network.told.is_some(),
            proven: false,
            ports: network.ports(),
            failed: network.ports(),
            kinds: network.kinds,
            tool: None,
            first: network.first,
            last: network.last,
        });
        let mut all: Vec<ScanSource> = sources.chain(networks).collect();
        all.sort_by(|a, b| b.bits.total_cmp(&a.bits).then(a.source.cmp(&b.source)));
        all.truncate(limit);
        all
    }

    /// What follows for its network and for the crowd when visits of a source are settled.
    fn settled(&mut self, source: IpAddr, settled: &[Contact], now: Timestamp, before: bool, known: bool) {
        let network = network_of(source);
        if known {
            if !before {
                self.crowd.leaves(source);
                if let Some(network) = self.networks.get_mut(&network) {
                    network.leaves(source);
                }
            }
            return;
        }
        for contact in settled {
            if contact.outcome.failed() {
                self.crowd.note(now, source, contact);
            }
            if !self.networks.contains_key(&network) && self.networks.len() >= MAX_NETWORKS {
                let rank = |network: &NetworkTrack| (network.told.is_some(), network.bits(), network.last);
                shed(&mut self.networks, rank);
            }
            let track = self.networks.entry(network).or_insert_with(|| NetworkTrack::new(now));
            track.visit(source, contact, now, self.rate.rate());
        }
    }

    fn make_room(&mut self) {
        if self.tracks.len() >= MAX_TRACKS {
            let rank = |track: &Track| (track.told.is_some(), track.bits(), track.last);
            self.forgotten += shed(&mut self.tracks, rank);
        }
    }

    fn local(&mut self, address: IpAddr) -> u8 {
        let at = self.locals.iter().position(|known| *known == address);
        let at = at.unwrap_or_else(|| {
            if self.locals.len() < MAX_LOCALS {
                self.locals.push(address);
                self.locals.len() - 1
            } else {
                MAX_LOCALS
            }
        });
        u8::try_from(at).unwrap_or(u8::MAX)
    }
}

/// Forgets the eighth that ranks lowest; says how many that were.
fn shed<K: Copy + Eq + std::hash::Hash, V>(
    all: &mut HashMap<K, V>,
    rank: impl Fn(&V) -> (bool, f32, Timestamp),
) -> u64 {
    let mut ranked: Vec<(K, (bool, f32, Timestamp))> = all.iter().map(|(key, v)| (*key, rank(v))).collect();
    ranked.sort_by(|(_, a), (_, b)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
    let go = (ranked.len() / 8).max(1);
    for (key, _) in ranked.into_iter().take(go) {
        all.remove(&key);
    }
    go as u64
}
