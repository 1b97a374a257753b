//! Isolating the host, or a part of it, from the network, and letting it back.

use std::net::IpAddr;

use davy_model::{ActionRecord, ActionState, Prefix};

use crate::{Isolation, Outcome, Refusal, Responder, administrator, cut::duration, process, undo::Undo};

impl Responder {
    /// The administrators' sessions over the network that live now, which an isolation leaves open: the other end's
    /// address, and this host's port.
    #[must_use]
    pub fn sessions(&self) -> Vec<(IpAddr, u16)> {
        administrator::sessions(&process::snapshot())
    }

    pub(crate) fn prepare_isolation(&self, cgroup: Option<&str>, seconds: u32) -> Result<Undo, Refusal> {
        if self.block.is_none() {
            return Err(Refusal::new("nothing on this host can isolate"));
        }
        if seconds == 0 {
            return Err(Refusal::new("an isolation has to end by itself: it needs a time"));
        }
        Ok(Undo::Rejoin { cgroup: cgroup.map(str::to_owned), sessions: self.sessions() })
    }

    pub(crate) fn isolate(&self, cgroup: Option<&str>, keep: &[Prefix], seconds: u32) -> Outcome {
        let undo = match self.prepare_isolation(cgroup, seconds) {
            Ok(undo) => undo,
            Err(refusal) => return Outcome::final_state(ActionState::Refused, refusal.reason),
        };
        let Undo::Rejoin { sessions, .. } = &undo else { return Outcome::failed("it was not prepared") };
        let isolation = Isolation {
            cgroup: cgroup.map(str::to_owned),
            sessions: sessions.clone(),
            networks: keep.to_vec(),
            seconds,
            later: false,
        };
        if let Err(reason) = self.isolated_by_block(&isolation) {
            return Outcome::failed(format!("{} is not isolated: {reason}", name_of(cgroup)));
        }
        let note = format!("{} isolated for {}; {}", name_of(cgroup), duration(seconds), stays(&isolation));
        Outcome { state: ActionState::Done, note, undoable: true, undo: undo.to_json() }
    }

    /// Goes on with an isolation of an earlier agent for what is left of its time: the sessions that stayed then stay,
    /// and those that live now.
    ///
    /// # Errors
    /// Why it does not hold any more, in plain words.
    pub fn resume_isolation(&self, record: &ActionRecord, seconds: u32) -> Result<(), String> {
        let davy_model::Action::Isolate { cgroup, keep, .. } = &record.action else {
            return Err("it is no isolation".to_owned());
        };
        let mut sessions = match Undo::from_json(&record.undo) {
            Some(Undo::Rejoin { sessions, .. }) => sessions,
            _ => Vec::new(),
        };
        sessions.extend(self.sessions());
        sessions.sort_unstable();
        sessions.dedup();
        let isolation =
            Isolation { cgroup: cgroup.clone(), sessions, networks: keep.clone(), seconds, later: true };
        self.isolated_by_block(&isolation)
    }

    pub(crate) fn rejoin(&self, record: &ActionRecord, cgroup: Option<&str>) -> Outcome {
        let result = match &self.block {
            Some(block) => block.rejoin(cgroup),
            None => Err("nothing on this host can isolate".to_owned()),
        };
        match result {
            Ok(()) => {
                let note = format!("{} is on the network again", name_of(cgroup));
                Outcome::final_state(ActionState::Undone, note)
            }
            Err(reason) => Outcome {
                state: record.state,
                note: format!("{} is still isolated: {reason}", name_of(cgroup)),
                undoable: true,
                undo: record.undo.clone(),
            },
        }
    }

    fn isolated_by_block(&self, isolation: &Isolation) -> Result<(), String> {
        match &self.block {
            Some(block) => block.isolate(isolation),
            None => Err("nothing on this host can isolate".to_owned()),
        }
    }
}

fn name_of(cgroup: Option<&str>) -> &str {
    cgroup.unwrap_or("the host")
}

fn stays(isolation: &Isolation) -> String {
    let sessions = isolation.sessions.iter().map(|(address, port)| format!("{address} to port {port}"));
    let networks = isolation.networks.iter().map(ToString::to_string);
    let all: Vec<String> = sessions.chain(networks).collect();
    match all.as_slice() {
        [] => "nothing but loopback stays open".to_owned(),
        all => format!("loopback stays open, and {}", all.join(", ")),
    }
}
