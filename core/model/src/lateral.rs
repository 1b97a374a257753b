use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Talker, Technique, Timestamp};

/// For whom connections are remembered together: whoever shares what they may be expected to talk to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Mover {
    /// A container, by its shortened id.
    Container(String),
    /// A systemd service.
    Service(String),
    /// A user outside of both: logins, and what they start.
    User(u32),
}

impl Mover {
    /// Whose connections these are; `None` where nobody is known.
    #[must_use]
    pub fn of(talker: &Talker) -> Option<Self> {
        if let Some(container) = &talker.container {
            return Some(Self::Container(container.clone()));
        }
        match &talker.service {
            // A user's own manager: what it runs is that user's.
            Some(service) if !service.starts_with("user@") => Some(Self::Service(service.clone())),
            _ => talker.uid.map(Self::User),
        }
    }
}

impl fmt::Display for Mover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(id) => write!(f, "container {id}"),
            Self::Service(unit) => f.write_str(unit),
            Self::User(uid) => write!(f, "user {uid}"),
        }
    }
}

/// First connections to inside addresses by one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateralReach {
    /// The service's name for people, such as `SSH`.
    pub service: String,
    /// What using it is.
    pub technique: Technique,
    /// Some of the addresses, the latest last; bounded.
    pub addresses: Vec<IpAddr>,
    /// How many there are.
    pub count: u32,
}

/// Somebody on this host reaches inside addresses that it never spoke to, by services that lead from host to host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateralMove {
    /// Who.
    pub mover: Mover,
    /// The profile of the web service or the like that the process came from, if it did.
    pub from: Option<String>,
    /// What was reached, by service.
    pub reached: Vec<LateralReach>,
    /// When the first of these connections began: the same for all that is told of one move, another for the next.
    pub began: Timestamp,
    /// Within how many seconds.
    pub secs: u32,
    /// How much speaks for it, in thousandths of a bit.
    pub millibits: u32,
    /// Whether what it usually talks to is still being learned.
    pub learning: bool,
    /// What would stop it, and which line of the policy says so.
    pub stopped_by: String,
}

impl LateralMove {
    /// In one sentence that goes on from a process's name.
    #[must_use]
    pub fn words(&self) -> String {
        let reach = |reach: &LateralReach| {
            let some: Vec<String> = reach.addresses.iter().map(IpAddr::to_string).collect();
            let more = (reach.count as usize).saturating_sub(some.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{} at {}{more}", reach.service, some.join(", "))
        };
        let reached: Vec<String> = self.reached.iter().map(reach).collect();
        let from = self.from.as_ref().map_or(String::new(), |from| format!(", which comes from {from},"));
        let learning = if self.learning { " while its usual peers are still being learned" } else { "" };
        format!(
            "of {}{from} reached inside addresses that it never spoke to{learning}, within {} s: {}; the last of them: {}",
            self.mover,
            self.secs,
            reached.join("; "),
            self.stopped_by
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_of;

    #[test]
    fn containers_go_before_services_and_a_users_own_services_are_the_users() {
        let talker = |service: Option<&str>, container: Option<&str>, uid| Talker {
            service: service.map(str::to_owned),
            container: container.map(str::to_owned),
            uid,
            ..Talker::default()
        };
        let of = |talker: Talker| Mover::of(&talker).map(|mover| mover.to_string());
        assert_eq!(of(talker(Some("a.service"), Some("0123"), None)), Some("container 0123".to_owned()));
        assert_eq!(of(talker(Some("a.service"), None, Some(0))), Some("a.service".to_owned()));
        // However a user calls their own units, and whatever cgroups a service makes itself.
        for (cgroup, mover) in [
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/nagios.service", "user 1000"),
            ("/user.slice/user-1000.slice/session-3.scope", "user 1000"),
            ("/system.slice/web.service/nagios.service", "web.service"),
        ] {
            let told = of(talker(service_of(cgroup), None, Some(1000)));
            assert_eq!(told.as_deref(), Some(mover), "{cgroup}");
        }
        assert_eq!(of(talker(None, None, Some(0))), Some("user 0".to_owned()));
        assert_eq!(of(talker(None, None, None)), None);
    }
}
