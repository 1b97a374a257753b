//! The first sentence of `davy status` is true, and loud when something is wrong.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod canned;
mod fake_agent;

use davy_model::{Mode, Timestamp};
use davy_wire::{AgentStatus, DropCount, Proof, Reply, Tally};
use fake_agent::FakeAgent;

fn said(change: impl Fn(&mut AgentStatus)) -> String {
    let mut status = canned::status();
    change(&mut status);
    let ended = FakeAgent::answering(move |_| vec![Reply::Status(status.clone())])
        .davy(&["status", "--color", "never"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    ended.out
}

fn first(out: &str) -> &str {
    out.lines().next().unwrap()
}

#[test]
fn says_how_many_enforce() {
    let out = said(|s| (s.last_canary, s.last_drill) = (None, None));
    assert_eq!(first(&out), "Protected. 1 of 4 protections enforces, 2 observe, 1 is off.");
}

#[test]
fn says_second_that_nothing_is_kept() {
    let why = "/var/lib/davy cannot be written: Read-only file system (os error 30)";
    let out = said(|s| {
        s.store.temporary = Some(why.to_owned());
        (s.last_canary, s.last_drill) = (None, None);
    });
    let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(out.lines().nth(1).unwrap().contains("History and journal lie in memory"), "{out}");
    assert!(words.contains(why) && words.contains("no file is taken into quarantine"), "{out}");
    assert!(words.contains("/var/lib/davy/store (in memory)"), "{out}");
}

#[test]
fn does_not_claim_protection_that_only_watches() {
    let out = said(|s| {
        s.protections[0].mode = Mode::Observe;
        (s.last_canary, s.last_drill) = (None, None);
    });
    assert_eq!(first(&out), "Watching. 3 of 4 protections observe, 1 is off; Davy tells and does not act.");
}

#[test]
fn does_not_count_what_cannot_work_here() {
    let out = said(|s| s.protections[0].tier = None);
    assert!(first(&out).starts_with("Watching. 2 of 4 protections observe, 1 is off, 1 cannot work here"));
    assert!(out.contains("Missing here"), "what is missing is shown unasked when it matters\n{out}");
}

#[test]
fn says_unasked_what_is_missing_in_the_lowest_tier() {
    let out = said(|s| s.tier = davy_model::Tier::Poll);
    assert!(out.contains("Missing here\n  BPF-LSM  BPF_PROG_LOAD said EPERM"), "{out}");
    assert!(!said(|_| {}).contains("Missing here"));
}

#[test]
fn says_a_reason_once() {
    let out = said(|s| {
        s.tier = davy_model::Tier::Poll;
        s.probes.iter_mut().for_each(|p| {
            p.works = false;
            p.reason = "not running as root".to_owned();
        });
    });
    assert!(out.contains("  tracing BPF  not running as root\n  BPF-LSM      the same\n"), "{out}");
}

#[test]
fn says_loudly_that_nothing_protects() {
    let out = said(|s| s.protections.iter_mut().for_each(|p| p.mode = Mode::Off));
    assert!(first(&out).starts_with("NOT PROTECTED."), "{out}");
}

#[test]
fn says_what_is_isolated_and_how_to_end_it() {
    let isolated = |cgroup: Option<&str>| davy_wire::IsolatedStatus {
        cgroup: cgroup.map(str::to_owned),
        until: Timestamp::from_secs(4_070_908_800),
        action: davy_model::ActionId(31),
    };
    let out = said(|s| s.isolated = vec![isolated(None), isolated(Some("/system.slice/nginx.service"))]);
    let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("This host is isolated from the network until 2099-01-01"), "{out}");
    assert!(words.contains("/system.slice/nginx.service is isolated"), "{out}");
    assert!(words.contains("davy undo a31 ends it"), "{out}");
}

#[test]
fn says_loudly_that_it_is_disarmed() {
    let out = said(|s| s.disarmed_until = Some(Timestamp::from_secs(4_070_908_800)));
    assert!(first(&out).starts_with("DISARMED until 2099-01-01 00:00:00,"), "{out}");
    let out = said(|s| s.disarmed_until = Some(canned::BEGAN));
    assert!(first(&out).starts_with("Protected."), "a disarm that ran out is over\n{out}");
}

#[test]
fn says_what_went_wrong_under_the_sentence() {
    let out = said(|s| {
        s.fallen_back = vec!["mining: 40 denials in 10 s".to_owned()];
        s.store.failing = Some("no space left on device".to_owned());
        s.policy.refused = "davy.toml:3: unknown key".to_owned();
        s.drops = vec![DropCount { kind: "flow_chunk, ring buffer".to_owned(), count: 1500 }];
        s.version = "0.0.1".to_owned();
    });
    for alarm in [
        "! Fell back to observe by itself: mining: 40 denials in 10 s",
        "! The store cannot be written: no space left on device",
        "! A newer policy was refused, the one before stays in force: davy.toml:3: unknown key",
        "! Lost 1,500 events since the start (1,500 flow_chunk, ring buffer)",
        "! The agent is version 0.0.1, this davy is",
    ] {
        assert!(out.replace("!  ", "! ").contains(alarm), "{alarm}\n{out}");
    }
}

#[test]
fn says_what_the_last_canary_and_the_last_drill_came_to() {
    let out = said(|s| {
        s.last_canary = Some(proof(5, &[]));
        s.last_drill = Some(proof(13, &[]));
    });
    let said = out.lines().take(2).collect::<Vec<_>>().join(" ");
    assert!(said.contains("1 is off. Last canary 2026-02-03 03:12:41: 5 of 5 held. Last drill"), "{out}");
    assert!(said.contains(": 13 of 13 held."), "{out}");
}

#[test]
fn says_loudly_that_a_canary_was_not_stopped() {
    let broken = |s: &mut AgentStatus| {
        s.last_canary = Some(proof(3, &["freeze: it runs on", "kill: it runs on"]));
    };
    let out = said(broken);
    assert!(
        first(&out).starts_with(
            "NOT PROVEN. Davy's own canary was not stopped at 2026-02-03 03:12:41: 3 of 5 held."
        ),
        "{out}"
    );
    let out = out.replace("!  ", "! ");
    assert!(out.contains("! The last canary was not stopped: freeze: it runs on"), "{out}");
    assert!(
        out.contains("! The last canary was not stopped: kill: it runs on") && !out.contains("Protected.")
    );
    let out = said(|s| {
        broken(s);
        s.protections[0].proven = Some(false);
    });
    let row = out.lines().find(|line| line.starts_with("  mining ")).unwrap();
    assert!(row.split_whitespace().nth(3) == Some("NO"), "{row}");
    let out = said(|s| s.last_canary = Some(proof(0, &[])));
    assert!(first(&out).starts_with("NOT PROVEN."), "nothing tried is nothing proven\n{out}");
    let out = said(|s| {
        broken(s);
        s.protections[0].mode = Mode::Observe;
    });
    assert!(first(&out).starts_with("Watching."), "it does not claim that anything is to be stopped\n{out}");
    let out = said(|s| s.last_drill = Some(proof(12, &["respond/cut"])));
    assert!(out.replace("!  ", "! ").contains("! The last drill failed: respond/cut"), "{out}");
}

fn proof(held: u32, failed: &[&str]) -> Proof {
    let of = held + u32::try_from(failed.len()).unwrap();
    let failed = failed.iter().map(|f| (*f).to_owned()).collect();
    Proof { time: canned::BEGAN, tally: Tally { held, of, failed } }
}
