//! Bans: ordered by an administrator, or decided for a finding.

use davy_model::{Action, ActionRecord, ActionState, Prefix, Timestamp};
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
        let Action::Ban { who, .. } = line.action else { return line };
        let before = self.bans.line(who);
        let refused = self.bans.spares(who).or_else(|| {
            let full = self.bans.count() >= MAX_BANS && before.is_none();
            full.then(|| format!("{MAX_BANS} bans hold already; davy unban lets some in again"))
        });
        let allowed = match (refused, &before) {
            (Some(why), _) => Err(format!("{who} is not banned: {why}")),
            (None, Some(before)) if line.finding.is_some() => beside(before, &line.action, clock::now()),
            (None, _) => Ok(line.action.clone()),
        };
        match allowed {
            Ok(action) => line.action = action,
            Err(why) => {
                (line.state, line.note) = (ActionState::Refused, why);
                self.write(&mut line);
                return line;
            }
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
                let long = crate::bans::words(seconds_of(&line.action));
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
        if all.is_empty() {
            return self.end_strangers(who);
        }
        self.end_those_bans(all, who)
    }

    /// Lets in whom the kernel holds banned and of whom no journal tells any more.
    fn end_strangers(&self, who: Option<Prefix>) -> Result<String, String> {
        if let Some(who) = who
            && let Some(wider) = self.bans.around(who)
        {
            return Err(format!("{who} is banned with {wider}; davy unban {wider} lets it in"));
        }
        if self.bans.in_force(who)? == 0 {
            return Err(match who {
                Some(who) => format!("nobody is banned in {who}; `davy bans` says who is"),
                None => "nobody is banned".to_owned(),
            });
        }
        self.bans.unban(who)?;
        Ok("who was banned is let in again; no journal told of it".to_owned())
    }

    /// Undoes the ban that a line of the journal tells of.
    pub(super) fn undo_ban(&mut self, line: &ActionRecord) -> Result<String, String> {
        let Action::Ban { who, .. } = line.action else { return Err("it is no ban".to_owned()) };
        let (own, others): (Vec<_>, Vec<_>) =
            self.bans.take(Some(who)).into_iter().partition(|record| record.id == line.id);
        others.into_iter().for_each(|other| drop(self.bans.keep(other)));
        if own.is_empty() {
            return Err(format!("{who} is banned by another action, or not any more; see `davy bans`"));
        }
        self.end_those_bans(own, Some(who))
    }

    /// Ends these bans, which are taken out of those that hold and lie within a network, or are all.
    fn end_those_bans(&self, ended: Vec<ActionRecord>, within: Option<Prefix>) -> Result<String, String> {
        if let Err(why) = self.bans.unban(within) {
            ended.into_iter().for_each(|record| drop(self.bans.keep(record)));
            return Err(format!("nobody is let in: {why}"));
        }
        // The kernel has let in everybody within, and of a wider ban a part.
        let restored = self.bans.restore(clock::now());
        let mut lines = Vec::new();
        for record in ended {
            let Action::Ban { who, .. } = record.action else { continue };
            self.bans.forgive(who);
            self.close_ban(record, ActionState::Undone, "let in again by order of an administrator");
            lines.push(match self.bans.around(who) {
                Some(wider) => format!("{who} is banned no more by itself, and still is with {wider}"),
                None => format!("{who} is let in again"),
            });
        }
        if let Err(why) = restored {
            lines.push(format!("who is banned by another order there is not any more: {why}"));
            return Err(lines.join("\n"));
        }
        Ok(lines.join("\n"))
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
        // Where one is over, another may hold that lay in it and had to wait.
        if !over.is_empty()
            && let Err(why) = self.bans.after_an_end(now)
        {
            tracing::error!("whoever is banned as well as one whose ban is over may get in: {why}");
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

/// What becomes of a ban that a finding asks for where exactly that network is banned already: nobody is let in sooner for it.
///
/// # Errors
/// Why nothing is to be done.
fn beside(held: &ActionRecord, asked: &Action, now: Timestamp) -> Result<Action, String> {
    let (Action::Ban { ports, .. }, Action::Ban { who, ports: all, reject, seconds }) = (&held.action, asked)
    else {
        return Ok(asked.clone());
    };
    let left = davy_respond::expiry::remaining(held, now).unwrap_or(0);
    if left > *seconds && ports.is_empty() {
        return Err(format!("{who} is banned already, by action {}, and for longer", held.id.0));
    }
    Ok(Action::Ban { who: *who, ports: all.clone(), reject: *reject, seconds: left.max(*seconds) })
}

const fn seconds_of(action: &Action) -> u32 {
    match action {
        Action::Ban { seconds, .. } => *seconds,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_finding_never_shortens_a_ban_that_holds() {
        let now = clock::now();
        let ban = |ports: &[u16], seconds| Action::Ban {
            who: "203.0.113.9".parse().unwrap(),
            ports: ports.to_vec(),
            reject: false,
            seconds,
        };
        let beside = |ports: &[u16], holds, asked| {
            let mut held = record(None, None, ban(ports, holds), ActionState::Done, "by order of root");
            held.changed = now;
            super::beside(&held, &ban(&[], asked), now)
        };
        assert_eq!(beside(&[], 60, 3600), Ok(ban(&[], 3600)));
        assert!(beside(&[], 86_400, 3600).is_err_and(|why| why.contains("for longer")));
        assert_eq!(beside(&[22], 86_400, 3600), Ok(ban(&[], 86_400)), "from all ports, and for as long");
    }
}
