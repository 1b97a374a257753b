//! Who would be locked out by what is to be closed.
//!
//! A trial proves nothing to somebody who is logged in by SSH: his address is let in for as long as he is. So it is asked beforehand
//! whether he could come back. Sessions are known by the port that sshd was reached at, which is not the one that is closed where
//! ports are redirected.

use std::net::IpAddr;

use davy_model::{Timestamp, Transport};
use davy_net::inbound::{Plan, Verdict};

/// Refuses a plan by which one of these sessions of administrators (the other end's address, and the port of this host) could not
/// begin again.
///
/// # Errors
/// Whose sessions, and what to do.
pub(super) fn refuse(plan: &Plan, sessions: &[(IpAddr, u16)], now: Timestamp) -> Result<(), String> {
    let refused =
        |(from, port): &&(IpAddr, u16)| plan.decide(Transport::Tcp, *port, *from, now) == Verdict::Refused;
    let shut: Vec<String> = sessions
        .iter()
        .filter(refused)
        .map(|(from, port)| {
            format!(
                "an administrator is logged in from {from} at TCP port {port}, which no entry opens to that address"
            )
        })
        .collect();
    if shut.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\nthe address is let in while the session lasts, so a trial would not show it, and nobody comes in from there again once \
         it is over; add an [[inbound.allow]] for it, or say --anyway if there is another way in\nthe port is the one after any redirection; \
         before davy ports confirm, log in from another address to see",
        shut.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_policy::Policy;

    use super::*;

    #[test]
    fn whoever_could_not_come_back_is_named() {
        let text = "[[inbound.allow]]\nport = 22\nfrom = [\"203.0.113.0/24\"]\nreason = \"office\"\n\
            [[inbound.allow]]\nport = 2222\nfrom = [\"198.51.100.7\"]\nreason = \"for a time\"\nuntil = 2026-01-01\n";
        let policy = Policy::parse("p", text).unwrap();
        let plan = Plan::make(&policy.inbound, &policy.origin, |_| Err(String::new())).unwrap();
        let now = Timestamp::from_secs(1_790_000_000);
        let session = |from: &str, port| (from.parse().unwrap(), port);
        let fine = [session("203.0.113.9", 22), session("127.0.0.1", 22), session("::1", 2222)];
        assert_eq!(refuse(&plan, &fine, now), Ok(()));
        assert_eq!(refuse(&plan, &[], now), Ok(()), "whoever sits at the console");
        for shut in [session("203.0.114.9", 22), session("203.0.113.9", 2222), session("198.51.100.7", 2222)]
        {
            let why = refuse(&plan, &[fine[0], shut], now).unwrap_err();
            assert!(why.contains(&format!("from {} at TCP port {}", shut.0, shut.1)), "{why}");
            assert!(!why.contains("from 203.0.113.9 at TCP port 22,"), "{why}");
        }
    }
}
