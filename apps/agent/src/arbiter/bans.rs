//! Bans: ordered by an administrator, or decided for a finding.

use davy_model::{Action, ActionRecord, ActionState, Prefix};
use tokio::sync::oneshot;

use super::Arbiter;
use crate::bans::MAX_BANS;
use crate::clock;
use crate::deed::{fingerprint, outcome_words, record};

/// What an administrator wants of bans.
#[derive(Debug)]
pub(crate) enum BanOrder {
    /// Ban somebody.
    Begin {
        who: Prefix,
        ports: Vec<u16>,
        reject: bool,
        seconds: u32,
        /// Who orders it.
        by: Option<u32>,
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// Let in again whoever is banned within this network; everybody where there is none.
    End { who: Option<Prefix>, reply: oneshot::Sender<Result<String, String>> },
}

impl Arbiter {
    pub(super) fn on_ban(&mut self, order: BanOrder) {
        match order {
            BanOrder::Begin { who, mut ports, reject, seconds, by, reply } => {
                ports.sort_unstable();
                ports.dedup();
                let action = Action::Ban { who, ports, reject, seconds };
                let by =
                    by.map_or_else(|| "an administrator".to_owned(), |uid| self.users.name_or_number(uid));
                let why = format!("by order of {by}");
                let mut line = record(None, None, action, ActionState::Intended, &why);
                line.undo = by;
                let line = self.carry_out_ban(line);
                let words = format!("action {}: {}", line.id.0, outcome_words(&line));
                let _ = reply.send(if line.state == ActionState::Done { Ok(words) } else { Err(words) });
            }
            BanOrder::End { who, reply } => drop(reply.send(self.end_bans(who))),
        }
    }

    /// Writes down, bans, writes down. The line says in `undo` who wanted it.
    pub(super) fn carry_out_ban(&mut self, mut line: ActionRecord) -> ActionRecord {
        let Action::Ban { who, seconds, .. } = line.action else { return line };
        let refused = self.bans.spares(who).or_else(|| {
            let full = self.bans.count() >= MAX_BANS && !self.bans.holds(who);
            full.then(|| format!("{MAX_BANS} bans hold already; davy unban lets some in again"))
        });
        if let Some(why) = refused {
            line.state = ActionState::Refused;
            line.note = format!("{who} is not banned: {why}");
            self.write(&mut line);
            return line;
        }
        if line.undo.is_empty() {
            line.undo = line.finding.map_or_else(String::new, |finding| format!("f{}", finding.0));
        }
        self.write(&mut line);
        let outcome = self.bans.ban(&line.action);
        line.changed = clock::now();
        match outcome {
            Ok(()) => {
                (line.state, line.undoable) = (ActionState::Done, true);
                let long = crate::bans::words(seconds);
                line.note = match line.note.as_str() {
                    "" => format!("{who} banned for {long}"),
                    why => format!("{who} banned for {long}, {why}"),
                };
            }
            Err(why) => {
                line.state = ActionState::Failed;
                line.note = format!("{who} is not banned: {why}");
            }
        }
        tracing::info!("{}: {:?}, {}", fingerprint(&line.action), line.state, line.note);
        self.change(&line);
        if line.state == ActionState::Done
            && let Some(before) = self.bans.keep(line.clone())
        {
            self.close_ban(before, ActionState::Expired, &format!("replaced by action {}", line.id.0));
        }
        line
    }

    fn end_bans(&mut self, who: Option<Prefix>) -> Result<String, String> {
        let all = self.bans.take(who);
        // The kernel may hold one of which no journal tells any more.
        let strangers = self.bans.let_in(who)?;
        if all.is_empty() && strangers > 0 {
            return Ok("who was banned is let in again; no journal told of it".to_owned());
        }
        if all.is_empty() {
            return Err(match (who, who.and_then(|who| self.bans.around(who))) {
                (Some(who), Some(wider)) => {
                    format!("{who} is banned with {wider}; davy unban {wider} lets it in")
                }
                (Some(who), None) => format!("nobody is banned in {who}; `davy bans` says who is"),
                (None, _) => "nobody is banned".to_owned(),
            });
        }
        let mut lines = Vec::new();
        let mut failed = false;
        for record in all {
            let outcome = self.end_ban(record);
            failed |= outcome.is_err();
            lines.push(outcome.unwrap_or_else(|why| why));
        }
        if failed { Err(lines.join("\n")) } else { Ok(lines.join("\n")) }
    }

    /// Undoes the ban that a line of the journal tells of.
    pub(super) fn undo_ban(&mut self, line: &ActionRecord) -> Result<String, String> {
        let Action::Ban { who, .. } = line.action else { return Err("it is no ban".to_owned()) };
        let (own, others): (Vec<_>, Vec<_>) =
            self.bans.take(Some(who)).into_iter().partition(|record| record.id == line.id);
        others.into_iter().for_each(|other| drop(self.bans.keep(other)));
        match own.into_iter().next() {
            Some(record) => self.end_ban(record),
            None => Err(format!("{who} is banned by another action, or not any more; see `davy bans`")),
        }
    }

    fn end_ban(&mut self, record: ActionRecord) -> Result<String, String> {
        let Action::Ban { who, .. } = record.action else { return Err("it is no ban".to_owned()) };
        if let Err(why) = self.bans.unban(who) {
            let words = format!("{who} is still banned: {why}");
            self.bans.keep(record);
            return Err(words);
        }
        self.bans.forgive(who);
        self.close_ban(record, ActionState::Undone, "let in again by order of an administrator");
        // The kernel has let in a part of it.
        let Some(wider) = self.bans.around(who) else { return Ok(format!("{who} is let in again")) };
        self.bans
            .restore(clock::now())
            .map_err(|why| format!("{wider} is not banned as a whole any more: {why}"))?;
        Ok(format!("{who} is banned no more by itself, and still is with {wider}"))
    }

    /// Takes over a ban that an agent before this one left. What the kernel still holds goes on there by the kernel's own time.
    pub(super) fn take_over_ban(&mut self, mut line: ActionRecord) {
        match line.state {
            // It may have been done or not; a ban is the same when it is done twice.
            ActionState::Intended => {
                if self.bans.ban(&line.action).is_err() {
                    let why = "the agent ended before it was done";
                    return self.close_ban(line, ActionState::Failed, why);
                }
                (line.state, line.undoable, line.changed) = (ActionState::Done, true, clock::now());
                self.change(&line);
                self.bans.keep(line);
            }
            ActionState::Done if davy_respond::expiry::remaining(&line, clock::now()).is_some() => {
                self.bans.keep(line);
            }
            ActionState::Done => self.close_ban(line, ActionState::Expired, "its time is over"),
            _ => {}
        }
    }

    /// Sees to bans whose time is over, and to what somebody else did to those that hold.
    pub(super) fn look_after_bans(&mut self) {
        let now = clock::now();
        let over = self.bans.over(now);
        if !over.is_empty() {
            self.bans.tidy();
        }
        for record in over {
            // Whoever goes on is banned anew, and for longer.
            let print = fingerprint(&record.action);
            self.decided.retain(|(_, decided, _)| *decided != print);
            self.close_ban(record, ActionState::Expired, "its time is over");
        }
        self.bans.look_after(now);
    }

    fn close_ban(&self, mut record: ActionRecord, state: ActionState, why: &str) {
        record.changed = clock::now();
        (record.state, record.undoable) = (state, false);
        why.clone_into(&mut record.note);
        self.change(&record);
    }
}
