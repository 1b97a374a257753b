//! What is held in the kernel, and how it stands. Shared by the arbiter, who alone changes it, and the sockets that ask.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
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
        self.kernel(|bans| bans.ban(&[sentence])).map_err(|error| error.to_string())?;
        lock(&self.book).note(who, clock::now());
        self.note_generation();
        Ok(())
    }

    /// Has the kernel let somebody in again.
    ///
    /// # Errors
    /// Why it does not, in plain words.
    pub(crate) fn unban(&self, who: Prefix) -> Result<(), String> {
        self.kernel(|bans| bans.unban(&[who])).map_err(|error| error.to_string())?;
        self.tidy();
        Ok(())
    }

    /// Takes the table away when nobody is banned: every packet is looked at for it.
    pub(crate) fn tidy(&self) {
        if self.count() == 0 && self.kernel(|bans| bans.list()).is_ok_and(|list| list.is_empty()) {
            let _ = self.kernel(|bans| bans.remove());
        }
        self.note_generation();
    }

    /// Has the kernel let in whoever it holds banned within this network, everybody where there is none, and says how many bans those were.
    ///
    /// # Errors
    /// Why it does not, in plain words.
    pub(crate) fn let_in(&self, who: Option<Prefix>) -> Result<usize, String> {
        let words = |error: Error| error.to_string();
        let within = |ban: &Ban| {
            who.map(AddressRange::from).is_none_or(|w| w.first <= ban.who.first && ban.who.last <= w.last)
        };
        let held = match self.kernel(|bans| bans.list()) {
            Err(Error::Absent) => return Ok(0),
            held => held.map_err(words)?.iter().filter(|ban| within(ban)).count(),
        };
        match who {
            _ if held == 0 => {}
            Some(who) => self.unban(who)?,
            None => {
                self.kernel(|bans| bans.remove()).map_err(words)?;
                self.note_generation();
            }
        }
        Ok(held)
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

    /// Has the kernel hold again what is kept and it does not: after a boot, and after somebody removed the table.
    pub(crate) fn restore(&self, now: Timestamp) -> Result<usize, String> {
        let known: Vec<AddressRange> = self
            .kernel(|bans| bans.list())
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(|b| b.who)
            .collect();
        let missing = |who: &Prefix| {
            let range = AddressRange::from(*who);
            !known.iter().any(|held| held.first <= range.first && range.last <= held.last)
        };
        let held = lock(&self.held);
        let sentences: Vec<Sentence> = held
            .lines
            .iter()
            .filter(|(who, _)| missing(who))
            .filter_map(|(_, record)| {
                let left = expiry::remaining(record, now)?;
                sentence(&record.action, Some(Duration::from_secs(left.into())))
            })
            .collect();
        drop(held);
        if !sentences.is_empty() {
            self.kernel(|bans| bans.ban(&sentences)).map_err(|error| error.to_string())?;
        }
        self.note_generation();
        Ok(sentences.len())
    }

    /// Looks whether somebody removed the table, and puts it back.
    pub(crate) fn look_after(&self, now: Timestamp) {
        let held = lock(&self.held);
        let (any, noted) = (!held.lines.is_empty(), held.generation);
        drop(held);
        if !any || self.kernel(|bans| bans.generation()).ok() == noted {
            return;
        }
        if self.kernel(|bans| Ok(bans.is_whole())).unwrap_or(false) {
            self.note_generation();
            return;
        }
        match self.restore(now) {
            Ok(count) => {
                tracing::error!("somebody removed Davy's bans from nftables; {count} are put back");
                lock(&self.held).put_back += 1;
            }
            Err(why) => tracing::error!("nobody is banned any more, and it cannot be put back: {why}"),
        }
    }

    /// Whether exactly this network is banned.
    pub(crate) fn holds(&self, who: Prefix) -> bool {
        lock(&self.held).lines.contains_key(&who)
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

    fn note_generation(&self) {
        let generation = self.kernel(|bans| bans.generation()).ok();
        lock(&self.held).generation = generation;
    }
}

fn sentence(action: &Action, left: Option<Duration>) -> Option<Sentence> {
    let Action::Ban { who, ports, reject, seconds } = action else { return None };
    let kind = BanKind { ports: ports.clone(), reject: *reject };
    let length = left.unwrap_or(Duration::from_secs((*seconds).into()));
    Some(Sentence { who: *who, kind, length })
}
