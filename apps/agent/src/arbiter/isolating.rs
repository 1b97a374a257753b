//! Isolation by order of an administrator.

use std::net::IpAddr;

use davy_model::{Action, ActionState, Prefix, Timestamp};
use davy_wire::IsolatedStatus;
use tokio::sync::oneshot;

use super::Arbiter;
use crate::deed::{outcome_words, record};
use crate::shared::lock;

/// What an administrator wants of isolation.
#[derive(Debug)]
pub(crate) enum IsolationOrder {
    /// Isolate the host or a cgroup.
    Begin {
        cgroup: Option<String>,
        keep: Vec<Prefix>,
        seconds: u32,
        /// Also when nobody will reach the host until it ends.
        anyway: bool,
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// Let everything back that is isolated.
    End(oneshot::Sender<Result<String, String>>),
}

impl Arbiter {
    pub(super) fn on_isolation(&mut self, order: IsolationOrder) {
        match order {
            IsolationOrder::Begin { cgroup, keep, seconds, anyway, reply } => {
                let _ = reply.send(self.begin_isolation(cgroup, keep, seconds, anyway));
            }
            IsolationOrder::End(reply) => {
                let isolations = self.timed.iter().filter(|r| matches!(r.action, Action::Isolate { .. }));
                let isolations: Vec<_> = isolations.cloned().collect();
                let undone = (!isolations.is_empty()).then(|| self.undo(isolations));
                let rest = self.block.end_isolations();
                let _ = reply.send(match (undone, rest) {
                    (Some(undone), Ok(_)) => undone,
                    (None, Ok(0)) => Ok("nothing is isolated".to_owned()),
                    (None, Ok(_)) => {
                        Ok("what the kernel still held isolated is on the network again".to_owned())
                    }
                    (_, Err(why)) => Err(format!("something is still isolated: {why}")),
                });
                self.tell_isolated();
            }
        }
    }

    fn begin_isolation(
        &mut self,
        cgroup: Option<String>,
        keep: Vec<Prefix>,
        seconds: u32,
        anyway: bool,
    ) -> Result<String, String> {
        if locks_out(cgroup.as_deref(), &keep, &self.responder.sessions()) && !anyway {
            return Err("no administrator is logged in over the network, so nobody could reach this host until it ends; \
                        name where you come from with --keep, or say --anyway if you sit at its console"
                .to_owned());
        }
        let action = Action::Isolate { cgroup, keep, seconds };
        let earlier: Vec<_> = self.timed.iter().filter(|r| same_scope(&r.action, &action)).cloned().collect();
        let record =
            self.carry_out(record(None, None, action, ActionState::Intended, "by order of an administrator"));
        let words = format!("action {}: {}", record.id.0, outcome_words(&record));
        if record.state != ActionState::Done {
            return Err(words);
        }
        for mut replaced in earlier {
            // It holds by the newer line alone from now on, and must not end with the time of the older one.
            self.timed.retain(|r| r.id != replaced.id);
            replaced.state = ActionState::Expired;
            replaced.undoable = false;
            replaced.changed = crate::clock::now();
            replaced.note = format!("replaced by action {}", record.id.0);
            self.change(&replaced);
        }
        self.tell_isolated();
        Ok(words)
    }

    /// Puts what is isolated where `davy status` finds it.
    pub(super) fn tell_isolated(&self) {
        let isolated = self.timed.iter().filter_map(|record| match &record.action {
            Action::Isolate { cgroup, .. } => Some(IsolatedStatus {
                cgroup: cgroup.clone(),
                until: davy_respond::expiry::ends(record).unwrap_or(Timestamp(0)),
                action: record.id,
            }),
            _ => None,
        });
        *lock(&self.shared.isolated) = isolated.collect();
    }
}

/// Whether nobody could reach the host over the network any more. A session that comes by loopback is carried by something
/// else, a tunnel, which is cut.
fn locks_out(cgroup: Option<&str>, keep: &[Prefix], sessions: &[(IpAddr, u16)]) -> bool {
    cgroup.is_none() && keep.is_empty() && sessions.iter().all(|(address, _)| address.is_loopback())
}

fn same_scope(a: &Action, b: &Action) -> bool {
    matches!((a, b), (Action::Isolate { cgroup: a, .. }, Action::Isolate { cgroup: b, .. }) if a == b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_host_without_a_session_over_the_network_is_not_isolated_by_mistake() {
        let session = ("203.0.113.9".parse().unwrap(), 22);
        let network = "10.0.0.0/8".parse().unwrap();
        assert!(locks_out(None, &[], &[]));
        assert!(!locks_out(None, &[], &[session]), "a session stays");
        assert!(locks_out(None, &[], &[("127.0.0.1".parse().unwrap(), 22)]), "a tunnel does not");
        assert!(!locks_out(None, &[network], &[]), "a network stays");
        assert!(!locks_out(Some("/system.slice/nginx.service"), &[], &[]), "the rest of the host goes on");
    }
}
