//! Actions as the journal and people name them: their order, their sameness, what became of them.

use davy_model::{Action, ActionId, ActionRecord, ActionState, FindingId, FindingKind, IncidentId, Proposal};
use davy_policy::{ActionKind, Policy};
use davy_respond::Outcome;

use crate::clock;
use crate::standing::within;

/// A new line of the journal.
pub(crate) fn record(
    incident: Option<IncidentId>,
    finding: Option<FindingId>,
    action: Action,
    state: ActionState,
    note: &str,
) -> ActionRecord {
    let now = clock::now();
    ActionRecord {
        id: ActionId(0),
        time: now,
        changed: now,
        incident,
        finding,
        action,
        state,
        note: note.to_owned(),
        undoable: false,
        undo: String::new(),
    }
}

/// A new line of the journal about the agent's own canary.
pub(crate) fn canary(action: Action) -> ActionRecord {
    let mut record = record(None, None, action, ActionState::Intended, "");
    record.note = said(&record, String::new());
    record
}

/// What the journal says of an action: it tells people apart what was done to a canary.
pub(crate) fn said(record: &ActionRecord, note: String) -> String {
    match (record.is_canary(), note.is_empty()) {
        (false, _) => note,
        (true, true) => "Davy's own canary".to_owned(),
        (true, false) => format!("Davy's own canary: {note}"),
    }
}

/// Writes into a line of the journal what became of the action.
pub(crate) fn settle(record: &mut ActionRecord, outcome: Outcome) {
    record.changed = clock::now();
    record.state = outcome.state;
    record.note = said(record, outcome.note);
    record.undoable = outcome.undoable;
    record.undo = outcome.undo;
}

/// What became of an action, in words.
pub(crate) fn outcome_words(record: &ActionRecord) -> String {
    let state = match record.state {
        ActionState::Done => "done",
        ActionState::Failed => "failed",
        ActionState::Refused => "refused",
        ActionState::Undone => "undone",
        ActionState::Expired => "expired",
        ActionState::WouldHave => "would have been done",
        ActionState::Intended => "intended",
    };
    if record.note.is_empty() { state.to_owned() } else { format!("{state}, {}", record.note) }
}

/// The proposals that may be carried out, in Davy's order: hold still, cut the line, keep the proof, end it.
pub(crate) fn in_order<'a>(proposals: &'a [Proposal], allowed: &[ActionKind]) -> Vec<&'a Proposal> {
    // An alert is the finding itself, which everybody who follows has been told of; it is nothing to be done.
    let wanted = |action: &Action| *action != Action::Alert && allowed.contains(&kind_of(action));
    let mut chosen: Vec<&Proposal> = proposals.iter().filter(|p| wanted(&p.action)).collect();
    chosen.sort_by_key(|p| kind_of(&p.action));
    chosen
}

fn kind_of(action: &Action) -> ActionKind {
    match action {
        Action::Alert => ActionKind::Alert,
        Action::Freeze { .. } => ActionKind::Freeze,
        Action::Quarantine { .. } => ActionKind::Quarantine,
        Action::Ban { .. } => ActionKind::Ban,
        // An isolation and closed ports are ordered by an administrator; no guard proposes them.
        Action::Cut { .. } | Action::Isolate { .. } | Action::ClosePorts { .. } => ActionKind::Cut,
        Action::Kill { .. } => ActionKind::Kill,
    }
}

/// The action with the time in it that the section gives by which it is done.
pub(crate) fn timed(action: Action, policy: &Policy, section: &str) -> Action {
    let pools = section == Policy::section_of(FindingKind::PoolContact);
    let cut_for = if pools { policy.pools.cut_for } else { policy.mining.cut_for };
    match action {
        Action::Cut { destination, cgroup, .. } => {
            let seconds = u32::try_from(cut_for.as_secs()).unwrap_or(u32::MAX);
            Action::Cut { destination, cgroup, seconds }
        }
        Action::Ban { who, ports, reject, .. } => Action::Ban {
            who,
            ports,
            reject,
            seconds: u32::try_from(policy.scans.ban_for.as_secs()).unwrap_or(u32::MAX),
        },
        other => other,
    }
}

/// What makes two actions the same one, in words that also serve the log.
pub(crate) fn fingerprint(action: &Action) -> String {
    match action {
        Action::Alert => "alert".to_owned(),
        Action::Freeze { root, .. } => format!("freeze {root}"),
        Action::Kill { root, .. } => format!("kill {root}"),
        Action::Quarantine { path, file, .. } => format!("quarantine {path} (inode {})", file.ino),
        Action::Cut { destination: to, cgroup, .. } => {
            let whom = cgroup.as_ref().map(|cgroup| format!(" for {cgroup}")).unwrap_or_default();
            format!("cut {}:{}{whom}", to.address, to.port)
        }
        Action::Isolate { cgroup, .. } => format!("isolate {}", cgroup.as_deref().unwrap_or("the host")),
        Action::Ban { who, .. } => format!("ban {who}"),
        Action::ClosePorts { .. } => "close ports".to_owned(),
    }
}

/// Whether one cut holds for whom another is about; one for everybody is about who is in this cgroup first of all.
pub(crate) fn holds_for(one: &Action, other: &Action, own: &str) -> bool {
    let (
        Action::Cut { destination, cgroup, .. },
        Action::Cut { destination: same_destination, cgroup: others, .. },
    ) = (one, other)
    else {
        return false;
    };
    let others = others.as_deref().unwrap_or(own);
    destination == same_destination && cgroup.as_deref().is_none_or(|cgroup| within(others, cgroup))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use davy_model::{Destination, ProcessKey};

    use super::*;

    const ROOT: ProcessKey = ProcessKey { pid: 7, start_ticks: 11, boot: 1 };

    fn proposals() -> Vec<Proposal> {
        let destination = Destination { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 3333 };
        let tree = vec![ROOT];
        [
            Action::Kill { root: ROOT, tree: tree.clone() },
            Action::Cut { destination, cgroup: None, seconds: 0 },
            Action::Alert,
            Action::Freeze { root: ROOT, tree },
        ]
        .into_iter()
        .map(|action| Proposal { finding: FindingId(1), action })
        .collect()
    }

    #[test]
    fn a_tree_is_held_still_before_anything_else_and_ended_last() {
        let proposals = proposals();
        let order: Vec<_> =
            in_order(&proposals, &ActionKind::ALL).into_iter().map(|p| fingerprint(&p.action)).collect();
        assert_eq!(order, ["freeze 7@11", "cut 127.0.0.1:3333", "kill 7@11"]);
    }

    #[test]
    fn what_the_policy_does_not_list_is_not_done() {
        let proposals = proposals();
        let order: Vec<_> = in_order(&proposals, &[ActionKind::Alert, ActionKind::Cut])
            .into_iter()
            .map(|p| fingerprint(&p.action))
            .collect();
        assert_eq!(order, ["cut 127.0.0.1:3333"]);
    }

    #[test]
    fn who_is_cut_off_already_is_not_cut_off_again() {
        let destination = |port| Destination { address: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), port };
        let cut = |port, cgroup: Option<&str>| Action::Cut {
            destination: destination(port),
            cgroup: cgroup.map(str::to_owned),
            seconds: 60,
        };
        let own = "/system.slice/x.service";
        let mine = cut(1, Some(own));
        assert!(holds_for(&mine, &mine, own) && holds_for(&cut(1, None), &mine, own));
        assert!(holds_for(&cut(1, Some("/system.slice")), &mine, own));
        // What would be wider is about others, who are cut off by what they say themselves.
        assert!(holds_for(&mine, &cut(1, None), own));
        assert!(!holds_for(&mine, &cut(1, None), "/system.slice/y.service"));
        assert!(!holds_for(&mine, &cut(1, Some("/system.slice/y.service")), own));
        assert!(!holds_for(&mine, &cut(2, Some(own)), own) && !holds_for(&Action::Alert, &mine, own));
    }

    #[test]
    fn a_cut_lasts_as_long_as_the_policy_says() {
        let mut policy = Policy::default();
        policy.mining.cut_for = std::time::Duration::from_secs(90);
        let destination = Destination { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 };
        policy.pools.cut_for = std::time::Duration::from_secs(120);
        for (section, seconds) in [("mining", 90), ("pools", 120)] {
            let action = timed(Action::Cut { destination, cgroup: None, seconds: 0 }, &policy, section);
            assert_eq!(action, Action::Cut { destination, cgroup: None, seconds }, "{section}");
        }
    }
}
