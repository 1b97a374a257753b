//! Whether the allow-list of `[outbound]` would have stopped a connection, and which line of the policy says so.

use std::net::IpAddr;

use davy_model::{Mode, OutboundProtocol, RuleSet, Timestamp, unit_of};
use davy_policy::Policy;

use crate::outbound::{Ask, Host, allowing, allowing_by_name, compile};

/// Who made a connection, as an entry of `[outbound]` names it.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The cgroup v2 path.
    pub cgroup: &'a str,
    /// Container id, at least twelve characters of it.
    pub container: Option<&'a str>,
    /// The real user by name, and by number.
    pub user: (&'a str, u32),
}

/// Where a connection went.
#[derive(Clone, Copy, Debug)]
pub struct Called<'a> {
    /// The address.
    pub address: IpAddr,
    /// The port, of TCP.
    pub port: u16,
    /// The name that led there, where it is known.
    pub name: Option<&'a str>,
}

/// What would stop a connection, in a sentence's end.
#[must_use]
pub fn stopped_by(policy: &Policy, caller: Caller<'_>, to: Called<'_>, now: Timestamp) -> String {
    let (own_name, uid) = caller.user;
    // Entries for other users are for nobody here.
    let user = |name: &str| name.parse().ok().or_else(|| (name == own_name).then_some(uid));
    let tables = compile(policy, &Host { user: &user, resolvers: &[] }, now).tables;
    let ask = Ask {
        units: units(&caller),
        container: caller.container,
        uid: Some(uid),
        protocol: OutboundProtocol::Tcp,
        port: to.port,
        to: to.address,
        name: to.name,
    };
    let line_of =
        |rules: RuleSet| rules.first().map(|index| policy.origin.of(&format!("outbound.allow[{index}]")));
    if let Some(line) = line_of(allowing(&tables, &ask)) {
        return format!("the entry at {line} lets it: without it, or narrower, `[outbound]` would stop this");
    }
    if tables.spared.contains(&uid) {
        let line = policy.origin.of("failsafe.protect_users");
        return format!(
            "`[failsafe] protect_users` ({line}) spares this user: `[outbound]` does not stop it"
        );
    }
    if to.name.is_none()
        && let Some(line) = line_of(allowing_by_name(&tables, &ask))
    {
        return format!(
            "it cannot be told whether `[outbound]` would stop this: the entry at {line} is by name, and which name led \
             there is not known"
        );
    }
    match policy.outbound.mode {
        Mode::Off => "`[outbound]` is off; enforced, it would stop this".to_owned(),
        _ => {
            let line = policy.origin.of("outbound.mode");
            format!("no entry of `[outbound]` ({line}) lets it: enforced there, it would stop this")
        }
    }
}

/// The parts of a cgroup's path that the kernel looks for in the entries: up to the unit or the container, for what lies below
/// is theirs to name.
fn units<'a>(caller: &Caller<'a>) -> Vec<&'a str> {
    let unit = unit_of(caller.cgroup);
    let id = caller.container.and_then(|id| id.get(..12));
    let mut found = false;
    let mut parts = Vec::new();
    for part in caller.cgroup.split('/').filter(|part| !part.is_empty()) {
        if found {
            break;
        }
        found = Some(part) == unit || id.is_some_and(|id| part.contains(id));
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn said_of(text: &str, cgroup: &str, port: u16, name: Option<&str>) -> String {
        let policy = Policy::parse("p.toml", text).unwrap();
        let caller = Caller { cgroup, container: None, user: ("www", 33) };
        stopped_by(&policy, caller, Called { address: "10.0.3.7".parse().unwrap(), port, name }, NOW)
    }

    fn said(text: &str, port: u16) -> String {
        said_of(text, "/system.slice/web.service/worker", port, None)
    }

    fn entry(rest: &str) -> String {
        format!("[outbound]\nmode = \"observe\"\n[[outbound.allow]]\nreason = \"x\"\n{rest}\n")
    }

    #[test]
    fn it_names_the_entry_that_lets_it_or_the_list_that_does_not() {
        assert!(said("", 22).contains("`[outbound]` is off"));
        assert!(said("[outbound]\nmode = \"observe\"\n", 22).contains("no entry of `[outbound]` (p.toml:2)"));
        for wide in [
            "to = [\"inside\"]",
            "to = [\"any\"]\nservice = \"web.service\"",
            "to = [\"10.0.0.0/8\"]\nports = \"20-30\"\nuser = \"33\"",
            "service = \"system.slice\"\nto = [\"10.0.3.7\"]\nuser = \"www\"\nprotocol = \"tcp\"",
        ] {
            assert!(said(&entry(wide), 22).contains("the entry at p.toml:3 lets it"), "{wide}");
        }
        for other in [
            "to = [\"outside\"]",
            "to = [\"any\"]\nservice = \"db.service\"",
            "to = [\"10.0.3.8\"]",
            "to = [\"any\"]\nports = 5432",
            "to = [\"any\"]\nprotocol = \"udp\"",
            "to = [\"any\"]\ncontainer = \"0123456789ab\"",
            "to = [\"any\"]\nuser = \"root\"",
            "to = [\"any\"]\nuntil = 2020-01-01",
        ] {
            assert!(said(&entry(other), 22).contains("no entry"), "{other}");
        }
        let group = format!(
            "{}[[outbound.group]]\nname = \"hosts\"\nto = [\"10.0.3.0/24\"]\n",
            entry("to = [\"hosts\"]")
        );
        assert!(said(&group, 22).contains("the entry at"));
    }

    #[test]
    fn an_entry_by_name_lets_whom_that_name_led_there() {
        let text = entry("to = [\"db.internal\"]\nports = 5432");
        let said = |port, name| said_of(&text, "/system.slice/web.service", port, name);
        assert!(said(5432, Some("db.internal")).contains("the entry at p.toml:3 lets it"));
        assert!(said(5432, Some("other.internal")).contains("no entry"));
        assert!(said(5432, None).contains("cannot be told"), "{}", said(5432, None));
        assert!(said(22, None).contains("no entry"), "no name helps at another port");
    }

    #[test]
    fn units_are_those_that_the_kernel_goes_by() {
        let said = |service: &str, cgroup: &str| {
            said_of(&entry(&format!("to = [\"any\"]\nservice = \"{service}\"")), cgroup, 22, None)
        };
        let template = said("fetch@.service", "/system.slice/system-fetch.slice/fetch@7.service");
        assert!(template.contains("lets it"), "{template}");
        // What a service calls a cgroup below its own, or a user their own unit, is no other service.
        let posing = said("nagios.service", "/system.slice/web.service/nagios.service");
        assert!(posing.contains("no entry"), "{posing}");
        let posing =
            said("nagios.service", "/user.slice/user-33.slice/user@33.service/app.slice/nagios.service");
        assert!(posing.contains("no entry"), "{posing}");
    }

    #[test]
    fn a_user_whom_the_failsafe_spares_is_not_stopped() {
        let text = "[failsafe]\nprotect_users = [\"www\"]\n[outbound]\nmode = \"enforce\"\n";
        assert!(
            said(text, 22).contains("`[failsafe] protect_users` (p.toml:2) spares"),
            "{}",
            said(text, 22)
        );
    }
}
