//! All rows, within bounds, and which of them changed.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use davy_model::{Connection, Heading, Naming, Peer, Place, Talker, Timestamp};

use super::row::{Row, RowKey, Share};
use super::{Changes, MAX_PEERS, MAX_ROWS};

/// A row that was not seen for so long makes room for a newcomer of its talker, in seconds.
const STALE_SECS: f64 = 86_400.0;
/// What goes at once when the map is full: one in so many rows.
const EVICTED_PART: usize = 64;

/// Whose rows are counted together: a talker's in one direction, inbound ones by the port that was called.
type Group = (Arc<Talker>, Heading, u16);

/// A group's rows, but for the one of others.
#[derive(Debug, Default)]
struct Members {
    ids: Vec<u64>,
    /// Before this none of them is stale: they were looked at, and are only ever seen later.
    none_stale_before: Timestamp,
}

/// The rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    entries: HashMap<u64, Row>,
    ids: HashMap<RowKey, u64>,
    groups: HashMap<Group, Members>,
    changed: BTreeSet<u64>,
    gone: Vec<u64>,
    highest: u64,
    pub(super) evicted: u64,
    pub(super) folded: u64,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&u64, &Row)> {
        self.entries.iter()
    }

    /// Takes in a row that was kept; of two for the same, the one that came first absorbs the other.
    pub(super) fn restore(&mut self, talker: Arc<Talker>, kept: Connection) {
        let id = kept.id;
        let row = Row::of(talker, kept);
        self.highest = self.highest.max(id);
        if self.entries.len() >= MAX_ROWS || self.entries.contains_key(&id) {
            return;
        }
        match self.ids.get(&row.key).copied() {
            Some(known) => {
                if let Some(known) = self.entries.get_mut(&known) {
                    known.absorb(&row);
                }
                self.changed.insert(known);
                self.gone.push(id);
            }
            None => self.put(id, row),
        }
    }

    /// Whether a row was there before this map.
    pub(super) fn inherited(&self, id: u64) -> bool {
        self.entries.get(&id).is_some_and(|row| row.inherited)
    }

    /// The row seen last under a name that had this address, of those that differ from the key in nothing else.
    pub(super) fn named(&self, key: &RowKey, address: IpAddr) -> Option<(RowKey, Option<Naming>)> {
        let members = &self.groups.get(&group_of(key))?.ids;
        let rows = members.iter().filter_map(|id| self.entries.get(id));
        let same = rows.filter(|row| {
            matches!(row.key.peer, Peer::Name(_))
                && (row.key.transport, row.key.port) == (key.transport, key.port)
                && row.addresses.contains(&address)
        });
        same.max_by_key(|row| row.last).map(|row| (row.key.clone(), row.naming))
    }

    /// The row of this key, or the one of others where it does not fit.
    pub(super) fn find_or_make(&mut self, key: RowKey, naming: Option<Naming>, time: Timestamp) -> u64 {
        if let Some(id) = self.ids.get(&key) {
            let id = *id;
            if let Some(row) = self.entries.get_mut(&id) {
                row.naming = naming.max(row.naming);
            }
            return id;
        }
        if key.peer == Peer::Others {
            return self.make(key, None, time);
        }
        let group = group_of(&key);
        if self.groups.get(&group).is_none_or(|members| members.ids.len() < MAX_PEERS)
            || self.fold_stale(&group, time)
        {
            return self.make(key, naming, time);
        }
        self.folded += 1;
        self.others_of(&key, time)
    }

    /// Says whether the row is still there.
    pub(super) fn add(&mut self, id: u64, share: &Share, time: Timestamp) -> bool {
        self.change(id, |row| row.add(share, time))
    }

    /// Takes back what a flow added. A row that nothing is left of goes.
    pub(super) fn take_back(&mut self, id: u64, share: &Share) {
        self.change(id, |row| row.take_back(share));
        if self.entries.get(&id).is_some_and(|row| row.share.connections == 0 && row.open == 0) {
            self.remove(id);
        }
    }

    pub(super) fn meet(&mut self, id: u64, address: Option<IpAddr>, place: Option<Place>) {
        self.change(id, |row| row.meet(address, place));
    }

    pub(super) fn read(&mut self, id: u64, tls: bool, request: Option<&str>) {
        if self.entries.get_mut(&id).is_some_and(|row| row.read(tls, request)) {
            self.changed.insert(id);
        }
    }

    /// One of its connections is open.
    pub(super) fn unshut(&mut self, id: u64) {
        self.change(id, |row| row.open += 1);
    }

    /// One of its connections is open no longer.
    pub(super) fn shut(&mut self, id: u64) {
        self.change(id, |row| row.open = row.open.saturating_sub(1));
    }

    pub(super) fn forget_before(&mut self, before: Timestamp) {
        let old: Vec<u64> =
            self.entries.iter().filter(|(_, row)| row.last < before).map(|(id, _)| *id).collect();
        old.into_iter().for_each(|id| self.remove(id));
    }

    pub(super) fn take_changes(&mut self) -> Changes {
        let changed = std::mem::take(&mut self.changed);
        let written = changed.iter().filter_map(|id| Some(self.entries.get(id)?.connection(*id)));
        Changes { written: written.collect(), gone: std::mem::take(&mut self.gone) }
    }

    fn change(&mut self, id: u64, with: impl FnOnce(&mut Row)) -> bool {
        let Some(row) = self.entries.get_mut(&id) else { return false };
        with(row);
        self.changed.insert(id);
        true
    }

    fn make(&mut self, key: RowKey, naming: Option<Naming>, time: Timestamp) -> u64 {
        if self.entries.len() >= MAX_ROWS {
            self.evict();
        }
        self.highest += 1;
        self.put(self.highest, Row::new(key, naming, time));
        self.changed.insert(self.highest);
        self.highest
    }

    fn put(&mut self, id: u64, row: Row) {
        if row.key.peer != Peer::Others {
            self.groups.entry(group_of(&row.key)).or_default().ids.push(id);
        }
        self.ids.insert(row.key.clone(), id);
        self.entries.insert(id, row);
    }

    fn remove(&mut self, id: u64) {
        let Some(row) = self.entries.remove(&id) else { return };
        let group = group_of(&row.key);
        if let Some(members) = self.groups.get_mut(&group) {
            members.ids.retain(|member| *member != id);
            if members.ids.is_empty() {
                self.groups.remove(&group);
            }
        }
        self.ids.remove(&row.key);
        self.changed.remove(&id);
        self.gone.push(id);
    }

    /// Makes room in a full map.
    fn evict(&mut self) {
        let mut by_age: Vec<(Timestamp, u64)> =
            self.entries.iter().map(|(id, row)| (row.last, *id)).collect();
        let part = (MAX_ROWS / EVICTED_PART).max(1);
        by_age.sort_unstable();
        for (_, id) in by_age.into_iter().take(part) {
            self.remove(id);
            self.evicted += 1;
        }
    }

    /// Sums the row of a full group that was not seen for the longest up with others, if that is long enough ago.
    fn fold_stale(&mut self, group: &Group, now: Timestamp) -> bool {
        let Some(members) = self.groups.get_mut(group).filter(|members| now >= members.none_stale_before)
        else {
            return false;
        };
        let entries = &self.entries;
        let last = |id: &u64| entries.get(id).map_or(Timestamp(i64::MAX), |row| row.last);
        let Some(oldest) = members.ids.iter().copied().min_by_key(last) else { return false };
        if now.secs_since(last(&oldest)) < STALE_SECS {
            members.none_stale_before = last(&oldest).plus_secs(STALE_SECS);
            return false;
        }
        let Some(row) = self.entries.get(&oldest).cloned() else { return false };
        self.remove(oldest);
        self.folded = self.folded.saturating_add(row.share.connections);
        let others = self.others_of(&row.key, row.first);
        self.change(others, |others| others.absorb(&row));
        true
    }

    /// The row in which the rest of a key's group is summed up.
    fn others_of(&mut self, key: &RowKey, time: Timestamp) -> u64 {
        let port = if key.direction == Heading::Inbound { key.port } else { 0 };
        let others = RowKey { port, peer: Peer::Others, ..key.clone() };
        self.find_or_make(others, None, time)
    }
}

fn group_of(key: &RowKey) -> Group {
    let port = if key.direction == Heading::Inbound { key.port } else { 0 };
    (Arc::clone(&key.talker), key.direction, port)
}
