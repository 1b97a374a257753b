//! What is held in the kernel, and how it stands. Shared by the arbiter, who alone changes it, and the sockets that ask.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use davy_firewall::{Ban, BanKind, Bans, Error, Sentence};
use davy_model::{Action, ActionRecord, AddressRange, Prefix, Timestamp};
use davy_respond::expiry;
use davy_wire::BanEntry;

use super::book::{Book, is_kept};
use super::spared;
use crate::shared::lock;
use crate::{Paths, clock};

/// Everything about bans in one agent.
pub(crate) struct BansDesk {
    /// The kernel's side, spoken to from the first time on that there is something to say.
    hand: Mutex<Option<Bans>>,
    /// Whether bans hold without an agent.
    outlives: bool,
    book: Mutex<Book>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// The journal's lines about bans that hold.
    lines: BTreeMap<Prefix, ActionRecord>,
    /// The kernel's generation of rules when the table was looked at last.
    generation: Option<u32>,
    put_back: u64,
}

fn file(paths: &Paths) -> PathBuf {
    paths.state.join("bans.json")
}

/// Ends the bans that an agent of these folders left when it ended. Says whether there were any.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn take_away(paths: &Paths) -> Result<bool, String> {
    if paths.base.is_some() && !is_kept(&file(paths)) {
        return Ok(false);
    }
    match Bans::open().and_then(|bans| bans.remove()) {
        Ok(was_there) => Ok(was_there),
        Err(Error::Absent) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

impl BansDesk {
    /// With what an earlier agent kept. `outlives` says whether bans hold on when the agent ends.
    pub(crate) fn open(paths: &Paths, outlives: bool) -> Self {
        Self {
            hand: Mutex::default(),
            outlives,
            book: Mutex::new(Book::open(file(paths))),
            held: Mutex::default(),
        }
    }

    /// Why this network is never banned, if so.
    pub(crate) fn spares(&self, who: Prefix) -> Option<String> {
        spared::why(who)
    }

    /// For how many seconds somebody is banned now whose first time is `first` seconds long.
    pub(crate) fn length(&self, who: Prefix, first: u32) -> u32 {
        lock(&self.book).length(who, first, clock::now())
    }

    /// Has the kernel ban somebody.
    ///
    /// # Errors
    /// Why it does not, in plain words.
    pub(crate) fn ban(&self, action: &Action) -> Result<(), String> {
        let sentence = sentence(action, None).ok_or("it is no ban")?;
        let who = sentence.who;
        self.change(|bans| bans.ban(&[sentence]))?;
        lock(&self.book).note(who, clock::now());
        Ok(())
    }

    /// Has the kernel let in whoever is banned within this network, everybody where there is none. Of a wider network that is banned
    /// a part is let in.
    ///
    /// # Errors
    /// Why it does not, in plain words.
    pub(crate) fn unban(&self, who: Option<Prefix>) -> Result<(), String> {
        self.change(|bans| match who {
            Some(who) => bans.unban(&[who]),
            None => bans.remove().map(drop),
        })?;
        self.tidy();
        Ok(())
    }

    /// Takes the table away when nobody is banned: every packet is looked at for it.
    fn tidy(&self) {
        if self.count() == 0 && self.kernel(|bans| bans.list()).is_ok_and(|list| list.is_empty()) {
            let _ = self.kernel(|bans| bans.remove());
            self.note_generation();
        }
    }

    /// Sees to those that go on when one is over.
    ///
    /// # Errors
    /// As [`BansDesk::restore`].
    pub(crate) fn after_an_end(&self, now: Timestamp) -> Result<(), String> {
        self.tidy();
        if self.count() == 0 { Ok(()) } else { self.restore(now).map(drop) }
    }

    /// How many bans within this network the kernel holds, of all where there is none.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(crate) fn in_force(&self, who: Option<Prefix>) -> Result<usize, String> {
        let within = |ban: &&Ban| {
            who.map(AddressRange::from).is_none_or(|w| w.first <= ban.who.first && ban.who.last <= w.last)
        };
        match self.kernel(|bans| bans.list()) {
            Err(Error::Absent) => Ok(0),
            held => Ok(held.map_err(|error| error.to_string())?.iter().filter(within).count()),
        }
    }

    /// Why nobody can be banned on this host, if so.
    pub(crate) fn fault(&self) -> Option<String> {
        self.kernel(|bans| bans.generation()).err().map(|error| error.to_string())
    }

    /// Forgets that somebody was ever banned: his next time is a first one.
    pub(crate) fn forgive(&self, who: Prefix) {
        lock(&self.book).forgive(who);
    }

    /// Keeps a journal's line about a ban that holds. Gives the one that it takes the place of.
    pub(crate) fn keep(&self, record: ActionRecord) -> Option<ActionRecord> {
        let Action::Ban { who, .. } = record.action else { return None };
        lock(&self.held).lines.insert(who, record)
    }

    /// Takes out the lines of bans that this network is about, all of them where there is none.
    pub(crate) fn take(&self, who: Option<Prefix>) -> Vec<ActionRecord> {
        let mut held = lock(&self.held);
        let wanted = |banned: &Prefix| {
            who.is_none_or(|who| who.contains(banned.address()) && who.length() <= banned.length())
        };
        let taken: Vec<Prefix> = held.lines.keys().copied().filter(wanted).collect();
        taken.iter().filter_map(|banned| held.lines.remove(banned)).collect()
    }

    /// Takes out the lines of bans whose time is over.
    pub(crate) fn over(&self, now: Timestamp) -> Vec<ActionRecord> {
        let mut held = lock(&self.held);
        let over = |record: &ActionRecord| expiry::ends(record).is_none_or(|end| end <= now);
        let gone: Vec<Prefix> =
            held.lines.iter().filter(|(_, record)| over(record)).map(|(who, _)| *who).collect();
        gone.iter().filter_map(|who| held.lines.remove(who)).collect()
    }

    /// Has the kernel hold again what is kept and it does not: after a boot, after somebody changed the table, and where a ban that
    /// held instead is over. Says how many that were.
    ///
    /// # Errors
    /// Why the kernel does not, in plain words.
    pub(crate) fn restore(&self, now: Timestamp) -> Result<usize, String> {
        let begun = self.kernel(|bans| bans.generation()).map_err(|error| error.to_string())?;
        // Of a table whose rules are gone the sets hold nobody.
        let in_force = self.kernel(|bans| if bans.is_whole()? { bans.list() } else { Ok(Vec::new()) });
        let in_force = in_force.map_err(|error| error.to_string())?;
        let sentences: Vec<Sentence> = lock(&self.held)
            .lines
            .values()
            .filter_map(|record| {
                // The kernel's clock may be a moment ahead of the journal's.
                let left = expiry::remaining(record, now).filter(|left| *left > 1)?;
                sentence(&record.action, Some(Duration::from_secs(left.into())))
            })
            .filter(|sentence| !is_held(sentence, &in_force))
            .collect();
        let mut noted = begun;
        if !sentences.is_empty() {
            self.kernel(|bans| bans.ban(&sentences)).map_err(|error| error.to_string())?;
            noted = noted.wrapping_add(1);
        }
        // Whoever changed something in between is looked after the next time.
        lock(&self.held).generation = Some(noted);
        Ok(sentences.len())
    }

    /// Looks whether somebody changed rules, and puts back what is missing then.
    pub(crate) fn look_after(&self, now: Timestamp) {
        let held = lock(&self.held);
        let (any, noted) = (!held.lines.is_empty(), held.generation);
        drop(held);
        if !any || self.kernel(|bans| bans.generation()).ok() == noted {
            return;
        }
        match self.restore(now) {
            Ok(0) => {}
            Ok(count) => {
                tracing::error!("somebody removed bans of Davy's from nftables; {count} are put back");
                lock(&self.held).put_back += 1;
            }
            Err(why) => tracing::error!("whoever is banned may get in, and it cannot be put back: {why}"),
        }
    }

    /// The journal's line about the ban of exactly this network, if it is banned.
    pub(crate) fn line(&self, who: Prefix) -> Option<ActionRecord> {
        lock(&self.held).lines.get(&who).cloned()
    }

    /// The widest network that is banned and has all of this one in it.
    pub(crate) fn around(&self, who: Prefix) -> Option<Prefix> {
        let holds = |banned: &&Prefix| banned.length() < who.length() && banned.contains(who.address());
        lock(&self.held).lines.keys().filter(holds).min_by_key(|banned| banned.length()).copied()
    }

    /// How many networks are banned.
    pub(crate) fn count(&self) -> u64 {
        lock(&self.held).lines.len() as u64
    }

    /// Who is banned, those that were banned last last.
    pub(crate) fn view(&self) -> Vec<BanEntry> {
        let mut lines: Vec<ActionRecord> = lock(&self.held).lines.values().cloned().collect();
        lines.sort_by_key(|record| record.id);
        let in_force = self.kernel(|bans| bans.list()).unwrap_or_default();
        let (alone, wide): (Vec<&Ban>, Vec<&Ban>) =
            in_force.iter().partition(|ban| ban.who.first == ban.who.last);
        let alone: HashMap<IpAddr, &Ban> = alone.into_iter().map(|ban| (ban.who.first, ban)).collect();
        let entry = |record: ActionRecord| {
            let Action::Ban { who, ports, reject, .. } = &record.action else { return None };
            let range = AddressRange::from(*who);
            let parts: Vec<&Ban> = match alone.get(&range.first) {
                Some(ban) if who.is_host() => vec![ban],
                _ => {
                    let within = |b: &&&Ban| range.first <= b.who.first && b.who.last <= range.last;
                    wide.iter().filter(within).copied().collect()
                }
            };
            Some(BanEntry {
                who: *who,
                ports: ports.clone(),
                reject: *reject,
                since: record.time,
                until: expiry::ends(&record)?,
                by: record.undo.clone(),
                action: record.id,
                finding: record.finding,
                incident: record.incident,
                packets: parts.iter().map(|part| part.packets).sum(),
                held: !parts.is_empty(),
            })
        };
        lines.into_iter().filter_map(entry).collect()
    }

    /// The agent goes. `ordered` says that its enforcement is to go with it.
    pub(crate) fn end(&self, ordered: bool) {
        if (ordered || !self.outlives)
            && self.count() > 0
            && let Err(error) = self.kernel(|bans| bans.remove())
        {
            tracing::error!("whoever is banned is not let in again: {error}");
        }
    }

    fn kernel<T>(&self, task: impl FnOnce(&Bans) -> Result<T, Error>) -> Result<T, Error> {
        let mut hand = lock(&self.hand);
        match &*hand {
            Some(bans) => task(bans),
            None => task(hand.insert(Bans::open()?)),
        }
    }

    /// Changes the table. What somebody else took out of it is put back before: a change alone would make a table that is whole and has
    /// nobody else in it.
    fn change(&self, task: impl FnOnce(&Bans) -> Result<(), Error>) -> Result<(), String> {
        self.look_after(clock::now());
        let before = self.kernel(|bans| bans.generation()).map_err(|error| error.to_string())?;
        self.kernel(task).map_err(|error| error.to_string())?;
        let after = self.kernel(|bans| bans.generation()).ok();
        let mut held = lock(&self.held);
        // A change of one's own counts as one. Whoever changed something in between is looked after the next time.
        let alone = after.is_some_and(|after| after.wrapping_sub(before) <= 1);
        if alone && (held.lines.is_empty() || held.generation == Some(before)) {
            held.generation = after;
        }
        Ok(())
    }

    fn note_generation(&self) {
        let generation = self.kernel(|bans| bans.generation()).ok();
        lock(&self.held).generation = generation;
    }
}

/// Whether these bans shut out at least those who this one does. A network may be held in parts; of one for some ports a part that
/// lies in another ban's is held by that.
fn is_held(sentence: &Sentence, in_force: &[Ban]) -> bool {
    let range = AddressRange::from(sentence.who);
    let alike = |ban: &&Ban| ban.kind.ports.is_empty() || !sentence.kind.ports.is_empty();
    if sentence.who.is_host() {
        return in_force.iter().filter(alike).any(|ban| ban.who == range);
    }
    let mut parts: Vec<AddressRange> = in_force.iter().filter(alike).map(|ban| ban.who).collect();
    parts.sort_unstable();
    let mut from = range.first;
    for part in parts.iter().filter(|part| range.first <= part.last) {
        if part.first > from {
            return false;
        }
        match next(part.last) {
            Some(further) if part.last < range.last => from = from.max(further),
            _ => return true,
        }
    }
    false
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn sentence(action: &Action, left: Option<Duration>) -> Option<Sentence> {
    let Action::Ban { who, ports, reject, seconds } = action else { return None };
    let kind = BanKind { ports: ports.clone(), reject: *reject };
    let length = left.unwrap_or(Duration::from_secs((*seconds).into()));
    Some(Sentence { who: *who, kind, length })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_held_in_parts_is_held_and_what_lacks_a_part_is_not() {
        let kind = |ports: &[u16]| BanKind { ports: ports.to_vec(), reject: false };
        let ban = |first: &str, last: &str, ports: &[u16]| Ban {
            who: AddressRange { first: first.parse().unwrap(), last: last.parse().unwrap() },
            kind: kind(ports),
            left: Duration::from_secs(60),
            packets: 0,
            bytes: 0,
        };
        let held = |who: &str, ports: &[u16], in_force: &[Ban]| {
            let length = Duration::from_secs(60);
            is_held(&Sentence { who: who.parse().unwrap(), kind: kind(ports), length }, in_force)
        };
        let low = ban("10.0.0.0", "10.0.0.63", &[]);
        let middle = ban("10.0.0.64", "10.0.0.127", &[22]);
        let high = ban("10.0.0.128", "10.0.1.255", &[]);
        let all = [high.clone(), low.clone(), middle.clone()];
        assert!(held("10.0.0.0/24", &[80], &all) && held("10.0.0.128/26", &[], &all));
        assert!(!held("10.0.0.0/24", &[], &all), "of a part some ports are open");
        assert!(!held("10.0.0.0/24", &[22], &[low.clone(), high]) && !held("10.0.0.0/24", &[], &[]));
        assert!(!held("10.0.0.0/24", &[], &[ban("10.0.0.1", "10.0.2.0", &[])]));
        assert!(!held("10.0.0.0/24", &[22], &[low.clone(), middle]), "the end is missing");
        assert!(
            !held("10.0.0.7", &[], &[low]),
            "an address is held by itself, whatever becomes of its network"
        );
        assert!(held("10.0.0.7", &[], &[ban("10.0.0.7", "10.0.0.7", &[])]));
        assert!(held("::/1", &[], &[ban("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[])]));
    }
}
