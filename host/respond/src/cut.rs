//! Cutting a destination off, and letting traffic through again.

use davy_model::{ActionRecord, ActionState, Destination};

use crate::{Outcome, Refusal, Responder, failsafe, process, undo::Undo};

impl Responder {
    pub(crate) fn prepare_cut(
        &self,
        destination: &Destination,
        cgroup: Option<&str>,
    ) -> Result<Undo, Refusal> {
        if self.block.is_none() {
            return Err(Refusal::new("nothing on this host can cut flows"));
        }
        match failsafe::keeps(destination, &process::snapshot()) {
            Some(reason) => Err(Refusal::new(reason)),
            None => Ok(Undo::Unblock { destination: *destination, cgroup: cgroup.map(str::to_owned) }),
        }
    }

    pub(crate) fn cut(&self, destination: Destination, cgroup: Option<&str>, seconds: u32) -> Outcome {
        let undo = match self.prepare_cut(&destination, cgroup) {
            Ok(undo) => undo.to_json(),
            Err(refusal) => return Outcome::final_state(ActionState::Refused, refusal.reason),
        };
        let Some(block) = &self.block else { return Outcome::failed("nothing on this host can cut flows") };
        let name = name_of(&destination);
        // Blocked first, so that what is ended cannot come back in between.
        if let Err(reason) = block.block(destination, cgroup, (seconds > 0).then_some(seconds)) {
            return Outcome::failed(format!("{name} cannot be cut off: {reason}"));
        }
        let ended = match block.destroy(destination, cgroup) {
            Ok(0) => "no connection was open".to_owned(),
            Ok(1) => "1 connection ended".to_owned(),
            Ok(n) => format!("{n} connections ended"),
            Err(reason) => format!("what was open could not be ended: {reason}"),
        };
        let time =
            if seconds == 0 { "until undone".to_owned() } else { format!("for {}", duration(seconds)) };
        let whom = cgroup.map(|cgroup| format!(" for {cgroup}")).unwrap_or_default();
        let note = format!("{name} cut off{whom} {time}; {ended}");
        Outcome { state: ActionState::Done, note, undoable: true, undo }
    }

    pub(crate) fn unblock(
        &self,
        record: &ActionRecord,
        destination: Destination,
        cgroup: Option<&str>,
    ) -> Outcome {
        let result = match &self.block {
            Some(block) => block.unblock(destination, cgroup),
            None => Err("nothing on this host can cut flows".into()),
        };
        let name = name_of(&destination);
        match result {
            Ok(()) => Outcome::final_state(ActionState::Undone, format!("{name} can be reached again")),
            Err(reason) => Outcome {
                state: record.state,
                note: format!("{name} is still cut off: {reason}"),
                undoable: true,
                undo: record.undo.clone(),
            },
        }
    }
}

fn name_of(destination: &Destination) -> String {
    match destination.port {
        0 => destination.address.to_string(),
        port => std::net::SocketAddr::new(destination.address, port).to_string(),
    }
}

pub(crate) fn duration(seconds: u32) -> String {
    match seconds {
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}
