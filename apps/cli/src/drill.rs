//! `davy drill`: harmless attacks against the live agent, and whether each was held.

use std::io::{self, Write};

use davy_agent::Paths;
use davy_drill::{ACT_LIMIT, DrillOptions, DrillProgress};
use davy_wire::{DrillOutcome, DrillResult, Query};

use crate::answer::Answering;
use crate::client::Client;
use crate::escape::plain;
use crate::failure::{Exit, Failure};
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{amount, document, verbs, words};

/// Lists the drills, or runs those asked for.
pub(crate) fn run(
    client: &Client,
    paths: &Paths,
    answering: &Answering,
    asked: &verbs::Drill,
) -> Result<Exit, Failure> {
    if asked.list {
        return list(answering);
    }
    known(&asked.names)?;
    // Asked here first, so that a missing agent or a missing right is told as every verb tells it.
    client.ask_one(Query::Status)?;
    client.may_change()?;
    let options = DrillOptions {
        read_socket: paths.read_socket(),
        control_socket: paths.control_socket(),
        names: asked.names.clone(),
        timeout: ACT_LIMIT,
        program: None,
    };
    let mut ticker = Ticker { shown: answering.error_terminal && !answering.json && !answering.quiet };
    let outcome = davy_drill::run(&options, &mut |progress| ticker.tell(&progress));
    ticker.clear();
    let results = outcome.map_err(|e| Failure::new(Exit::Failed, format!("{e:#}")))?;
    if answering.json {
        answering.document(&document::raw(&results))?;
    } else {
        answering.page(&page(&results, answering))?;
    }
    Ok(if all_held(&results, asked.strict) { Exit::Done } else { Exit::NotHeld })
}

/// One act of a drill. Its standard output belongs to the runner.
pub(crate) fn act(asked: &verbs::DrillAct) -> Result<(), Failure> {
    davy_drill::act(&asked.name, &asked.args).map_err(|e| Failure::new(Exit::Failed, format!("{e:#}")))
}

fn list(answering: &Answering) -> Result<Exit, Failure> {
    let drills = davy_drill::list();
    if answering.json {
        answering.document(&document::raw(&drills))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(0, &[Column::Left, Column::Left, Column::Left, Column::Fill]);
    table.headings(&["drill", "phase", "technique", "what should happen"]);
    for drill in drills {
        table.row(vec![
            Line::in_role(Role::Strong, drill.name),
            Line::of(drill.phase),
            Line::of(drill.technique),
            Line::of(drill.expected),
        ]);
    }
    let mut page = Page::new();
    page.extend(table.lines(answering.width));
    answering.page(&page)?;
    Ok(Exit::Done)
}

/// Whether all names are those of drills or of rooms.
pub(crate) fn known(names: &[String]) -> Result<(), Failure> {
    let drills = davy_drill::list();
    let is_known = |name: &String| {
        let room = name.trim_end_matches('/');
        drills.iter().any(|d| d.name == name || d.name.split_once('/').is_some_and(|(r, _)| r == room))
    };
    match names.iter().find(|n| !is_known(n)) {
        Some(name) => Err(Failure::new(Exit::NotFound, format!("there is no drill {name:?}"))
            .hint("what there is: davy drill --list")),
        None => Ok(()),
    }
}

/// Whether nothing failed; with `strict`, whether everything held.
fn all_held(results: &[DrillResult], strict: bool) -> bool {
    results.iter().all(|r| match r.outcome {
        DrillOutcome::Held => true,
        DrillOutcome::Failed => false,
        DrillOutcome::Unsupported | DrillOutcome::Off => !strict,
    })
}

/// The line at the bottom of a terminal that says what is going on.
struct Ticker {
    shown: bool,
}

impl Ticker {
    fn tell(&mut self, progress: &DrillProgress) {
        if !self.shown {
            return;
        }
        let DrillProgress::Started { drill, number, of } = progress else { return };
        self.write(&format!("\r\x1b[K{number} of {of}  {}: {}…", plain(drill.name), plain(drill.expected)));
    }

    fn clear(&mut self) {
        if self.shown {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        // Progress that cannot be shown is no reason to stop.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

fn page(results: &[DrillResult], answering: &Answering) -> Page {
    let mut table = Table::new(
        0,
        &[Column::Left, Column::Left, Column::Left, Column::Right, Column::Right, Column::Fill, Column::Left],
    );
    table.headings(&["drill", "outcome", "tier", "found in", "stopped in", "what was seen", ""]);
    let after = |ms: Option<u64>| match ms {
        Some(ms) => Line::of(amount::duration(ms as f64 / 1e3)),
        None => Line::in_role(Role::Quiet, "-"),
    };
    for result in results {
        let (role, word) = outcome(result.outcome);
        let tier = result.tier.map_or("-", words::tier);
        let seen = match result.outcome {
            DrillOutcome::Failed => Line::in_role(Role::Warning, format!("expected: {}; ", result.expected))
                .and(Role::Plain, &result.evidence),
            _ => Line::of(&result.evidence),
        };
        table.row(vec![
            Line::in_role(Role::Strong, &result.name),
            Line::in_role(role, word),
            Line::of(tier),
            after(result.detect_ms),
            after(result.stop_ms),
            seen,
            Line::in_role(Role::Quiet, &result.technique),
        ]);
    }
    let mut page = Page::new();
    page.extend(table.lines(answering.width));
    page.gap();
    page.push(summary(results));
    page
}

fn outcome(outcome: DrillOutcome) -> (Role, &'static str) {
    match outcome {
        DrillOutcome::Held => (Role::Good, "held"),
        DrillOutcome::Failed => (Role::Alarm, "FAILED"),
        DrillOutcome::Unsupported => (Role::Warning, "unsupported"),
        DrillOutcome::Off => (Role::Quiet, "off"),
    }
}

/// `9 of 11 held, 1 failed, 1 cannot be done on this host.`
fn summary(results: &[DrillResult]) -> Line {
    let count = |o: DrillOutcome| results.iter().filter(|r| r.outcome == o).count();
    let (held, failed) = (count(DrillOutcome::Held), count(DrillOutcome::Failed));
    let mut text = format!("{held} of {} held", results.len());
    for (n, words) in [
        (failed, "failed"),
        (count(DrillOutcome::Unsupported), "cannot be done on this host"),
        (count(DrillOutcome::Off), "off by policy"),
    ] {
        if n > 0 {
            text.push_str(&format!(", {n} {words}"));
        }
    }
    let role = match (failed, held) {
        (1.., _) => Role::Alarm,
        (0, 0) => Role::Warning,
        (0, _) => Role::Good,
    };
    Line::in_role(role, format!("{text}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn result(name: &str, outcome: DrillOutcome) -> DrillResult {
        DrillResult {
            name: name.to_owned(),
            phase: "always".to_owned(),
            technique: "T1496.001".to_owned(),
            expected: "found mining".to_owned(),
            outcome,
            tier: (outcome != DrillOutcome::Unsupported).then_some(davy_model::Tier::Signal),
            detect_ms: (outcome == DrillOutcome::Held).then_some(3400),
            stop_ms: None,
            evidence: "seen \u{1b}[2J".to_owned(),
        }
    }

    #[test]
    fn only_failures_fail_unless_strict() {
        let fine = [result("a/b", DrillOutcome::Held), result("a/c", DrillOutcome::Unsupported)];
        assert!(all_held(&fine, false));
        assert!(!all_held(&fine, true));
        assert!(!all_held(&[result("a/b", DrillOutcome::Failed)], false));
        assert!(!all_held(&[result("a/b", DrillOutcome::Off)], true));
    }

    #[test]
    fn prints_a_row_each_and_a_sentence() {
        let all = [
            result("detect/randomx", DrillOutcome::Held),
            result("detect/memfd", DrillOutcome::Failed),
            result("respond/cut", DrillOutcome::Unsupported),
            result("detect/deleted", DrillOutcome::Off),
        ];
        let answering = Answering::for_tests(Clock::standing(davy_model::Timestamp(0)), 100);
        let text = page(&all, &answering).print(false);
        assert_eq!(
            text,
            "\
drill           outcome      tier    found in  stopped in  what was seen
detect/randomx  held         signal     3.4 s           -  seen \\x1b[2J                    T1496.001
detect/memfd    FAILED       signal         -           -  expected: found mining; seen    T1496.001
                                                           \\x1b[2J
respond/cut     unsupported  -              -           -  seen \\x1b[2J                    T1496.001
detect/deleted  off          signal         -           -  seen \\x1b[2J                    T1496.001

1 of 4 held, 1 failed, 1 cannot be done on this host, 1 off by policy.
"
        );
    }

    #[test]
    fn names_are_drills_or_rooms() {
        assert!(known(&["detect".to_owned(), "respond/kill".to_owned()]).is_ok());
        assert_eq!(known(&["det".to_owned()]).expect_err("unknown").exit, Exit::NotFound);
    }
}
