//! Whether the allow-list of `[outbound]` would have stopped a connection, and which line of the policy says so.

use std::net::IpAddr;

use davy_model::{Mode, OutboundProtocol, Timestamp};
use davy_policy::{Outbound, OutboundAllow, OutboundTo, Policy};

/// Who made a connection, as an entry of `[outbound]` names it.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The cgroup v2 path.
    pub cgroup: &'a str,
    /// Container id, shortened to twelve characters.
    pub container: Option<&'a str>,
    /// The user by name, and by number.
    pub user: (&'a str, u32),
}

/// What would stop a connection, in a sentence's end. Entries by name are left out: which names lead to an address is the kernel's to
/// know, and inside addresses are seldom given by name.
#[must_use]
pub fn stopped_by(policy: &Policy, caller: Caller<'_>, address: IpAddr, port: u16, now: Timestamp) -> String {
    let outbound = &policy.outbound;
    let allows = |allow: &OutboundAllow| {
        allow.until.is_none_or(|until| now < until)
            && allow.service.as_deref().is_none_or(|unit| caller.cgroup.split('/').any(|part| part == unit))
            && allow
                .container
                .as_deref()
                .is_none_or(|id| caller.container.is_some_and(|own| own.starts_with(id)))
            && allow
                .user
                .as_deref()
                .is_none_or(|user| user == caller.user.0 || user == caller.user.1.to_string())
            && allow.protocol.is_none_or(|protocol| protocol == OutboundProtocol::Tcp)
            && (allow.ports.is_empty() || allow.ports.iter().any(|ports| ports.contains(port)))
            && allow.to.iter().any(|to| leads(outbound, to, address))
    };
    let index = outbound.allow.iter().position(allows);
    match (index, outbound.mode) {
        (Some(index), _) => {
            let line = policy.origin.of(&format!("outbound.allow[{index}]"));
            format!("the entry at {line} lets it: without it, or narrower, `[outbound]` would stop this")
        }
        (None, Mode::Off) => "`[outbound]` is off; enforced, it would stop this".to_owned(),
        (None, _) => {
            let line = policy.origin.of("outbound.mode");
            format!("no entry of `[outbound]` ({line}) lets it: enforced there, it would stop this")
        }
    }
}

fn leads(outbound: &Outbound, to: &OutboundTo, address: IpAddr) -> bool {
    let inside = || outbound.inside.iter().any(|network| network.contains(address));
    match to {
        OutboundTo::Any => true,
        OutboundTo::Inside => inside(),
        OutboundTo::Outside => !inside(),
        OutboundTo::Network(network) => network.contains(address),
        OutboundTo::Name(_) | OutboundTo::Below(_) => false,
        OutboundTo::Group(name) => {
            let mut groups = outbound.groups.iter().filter(|group| group.name == *name);
            // No group is among what a group stands for.
            groups.any(|group| group.to.iter().any(|to| !is_group(to) && leads(outbound, to, address)))
        }
    }
}

const fn is_group(to: &OutboundTo) -> bool {
    matches!(to, OutboundTo::Group(_))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn said(text: &str, port: u16) -> String {
        let policy = Policy::parse("p.toml", text).unwrap();
        let caller =
            Caller { cgroup: "/system.slice/web.service/worker", container: None, user: ("www", 33) };
        stopped_by(&policy, caller, "10.0.3.7".parse().unwrap(), port, NOW)
    }

    #[test]
    fn it_names_the_entry_that_lets_it_or_the_list_that_does_not() {
        assert!(said("", 22).contains("`[outbound]` is off"));
        let observed = "[outbound]\nmode = \"observe\"\n";
        assert!(said(observed, 22).contains("no entry of `[outbound]` (p.toml:2)"));
        let entry = |rest: &str| format!("{observed}[[outbound.allow]]\nreason = \"x\"\n{rest}\n");
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
            "to = [\"*.example.org\"]",
        ] {
            assert!(said(&entry(other), 22).contains("no entry"), "{other}");
        }
        let group = format!(
            "{}[[outbound.group]]\nname = \"hosts\"\nto = [\"10.0.3.0/24\"]\n",
            entry("to = [\"hosts\"]")
        );
        assert!(said(&group, 22).contains("the entry at"));
    }
}
