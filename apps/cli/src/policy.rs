//! `davy policy`: check, show and test a policy without an agent.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use davy_agent::Paths;
use davy_policy::{Diagnostics, Policy, json_schema, run_tests};
use serde_json::json;

use crate::answer::Answering;
use crate::escape::lines;
use crate::failure::{Exit, Failure};
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{amount, document};

/// A policy that was read, and the name to show for it.
struct Read {
    name: String,
    outcome: Result<Policy, Diagnostics>,
}

/// `davy policy check`.
pub(crate) fn check(paths: &Paths, answering: &Answering, file: Option<&Path>) -> Result<Exit, Failure> {
    let read = read(paths, file)?;
    match &read.outcome {
        Ok(policy) => {
            let folder = file.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(if file.is_some() { Path::new(".") } else { &paths.config });
            if let Err(faults) = davy_agent::inbound_plan(policy, folder) {
                return refuse_lists(&read.name, &faults, answering);
            }
            if answering.json {
                answering.document(&json!({ "file": read.name, "ok": true, "faults": [], "lists": [] }))?;
            } else {
                let tests = policy.tests.len() as u64;
                let tests = match tests {
                    0 => String::new(),
                    n => format!(
                        " It carries {}: davy policy test {}",
                        amount::of(n, "test", "tests"),
                        read.name
                    ),
                };
                answering.sentence(&format!("{} has no faults.{tests}", read.name))?;
            }
            Ok(Exit::Done)
        }
        Err(faults) => refuse(&read.name, faults, answering),
    }
}

/// `davy policy show`.
pub(crate) fn show(paths: &Paths, answering: &Answering, file: Option<&Path>) -> Result<Exit, Failure> {
    let read = read(paths, file)?;
    let policy = match &read.outcome {
        Ok(policy) => policy,
        Err(faults) => return refuse(&read.name, faults, answering),
    };
    if answering.json {
        let toml = policy.to_toml();
        let settings: serde_json::Value = toml::from_str(&toml)
            .map_err(|e| Failure::new(Exit::Failed, format!("cannot read the effective policy back: {e}")))?;
        answering.document(&json!({ "file": read.name, "policy": settings }))?;
    } else {
        raw(&format!("# {}\n\n{}", read.name, policy.to_toml()), false)?;
    }
    Ok(Exit::Done)
}

/// `davy policy test`.
pub(crate) fn test(paths: &Paths, answering: &Answering, file: Option<&Path>) -> Result<Exit, Failure> {
    let read = read(paths, file)?;
    let policy = match &read.outcome {
        Ok(policy) => policy,
        Err(faults) => return refuse(&read.name, faults, answering),
    };
    let outcomes = run_tests(policy, answering.clock.now());
    let failed = outcomes.iter().filter(|o| !o.passed).count();
    if answering.json {
        answering
            .document(&json!({ "file": read.name, "ok": failed == 0, "tests": document::raw(&outcomes) }))?;
    } else {
        let mut page = Page::new();
        let mut table = Table::new(2, &[Column::Left, Column::Left, Column::Fill]);
        for outcome in &outcomes {
            let (role, word) = if outcome.passed { (Role::Good, "ok") } else { (Role::Alarm, "FAILED") };
            let mut text = Line::of(&outcome.name);
            if !outcome.passed {
                let name = |e| document::raw(&e).as_str().unwrap_or_default().to_owned();
                text = text.and(
                    Role::Warning,
                    format!(": expected {}, the policy says {}", name(outcome.expected), name(outcome.found)),
                );
            }
            let why = if outcome.why.is_empty() { String::new() } else { format!(" ({})", outcome.why) };
            table.row(vec![
                Line::in_role(role, word),
                Line::in_role(Role::Quiet, &outcome.place),
                text.and(Role::Quiet, why),
            ]);
        }
        page.extend(table.lines(answering.width));
        page.push(match (outcomes.len(), failed) {
            (0, _) => Line::of(format!("{} carries no tests.", read.name)),
            (all, 0) => Line::in_role(Role::Good, format!("All {all} tests of {} hold.", read.name)),
            (all, n) => Line::in_role(Role::Alarm, format!("{n} of {all} tests of {} fail.", read.name)),
        });
        answering.page(&page)?;
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::PolicyFaults })
}

/// `davy policy schema`.
pub(crate) fn schema(answering: &Answering) -> Result<Exit, Failure> {
    answering.document(&json_schema())?;
    Ok(Exit::Done)
}

/// All faults at once. They are the answer, and so go to standard output.
fn refuse(name: &str, faults: &Diagnostics, answering: &Answering) -> Result<Exit, Failure> {
    if answering.json {
        answering.document(&json!({
            "file": name, "ok": false, "faults": faults.to_json(), "lists": [], "left_out": faults.left_out() }))?;
    } else {
        let n = (faults.faults().len() + faults.left_out()) as u64;
        raw(&faults.render(answering.color()), answering.color())?;
        let mut page = Page::new();
        page.push(Line::in_role(
            Role::Alarm,
            format!(
                "{name} has {}. It would be refused; a running policy stays.",
                amount::of(n, "fault", "faults")
            ),
        ));
        answering.page(&page)?;
    }
    Ok(Exit::PolicyFaults)
}

/// What is wrong with files and groups that the policy names, a sentence each.
fn refuse_lists(name: &str, faults: &[String], answering: &Answering) -> Result<Exit, Failure> {
    if answering.json {
        answering.document(&json!({ "file": name, "ok": false, "faults": [], "lists": faults }))?;
        return Ok(Exit::PolicyFaults);
    }
    let mut page = Page::new();
    for fault in faults {
        page.extend(Line::in_role(Role::Alarm, "error: ").and(Role::Plain, fault).wrap(answering.width));
    }
    let many = amount::of(faults.len() as u64, "fault", "faults");
    page.push(Line::in_role(
        Role::Alarm,
        format!("{name} names lists with {many}. Who may reach which port could not be judged by it."),
    ));
    answering.page(&page)?;
    Ok(Exit::PolicyFaults)
}

/// The policy of a file, or the agent's, for a verb that needs one without faults.
pub(crate) fn readable(paths: &Paths, file: Option<&Path>) -> Result<(String, Policy), Failure> {
    let read = read(paths, file)?;
    let policy = read.outcome.map_err(|faults| {
        Failure::new(Exit::PolicyFaults, faults.to_string()).hint("davy policy check shows the same")
    })?;
    Ok((read.name, policy))
}

/// The policy of a file; without one, the file that the agent reads, or the built-in policy where that is missing.
fn read(paths: &Paths, file: Option<&Path>) -> Result<Read, Failure> {
    let path = file.map_or_else(|| paths.policy(), PathBuf::from);
    let name = path.display().to_string();
    match std::fs::read(&path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => {
                let outcome = Policy::parse(&name, &text);
                Ok(Read { name, outcome })
            }
            Err(e) => Err(Failure::new(
                Exit::PolicyFaults,
                format!("{name} is not text: byte {} is not UTF-8", e.utf8_error().valid_up_to()),
            )),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound && file.is_none() => Ok(Read {
            name: format!("the built-in policy ({name} does not exist)"),
            outcome: Ok(Policy::default()),
        }),
        Err(e) => {
            let exit = match e.kind() {
                io::ErrorKind::NotFound => Exit::NotFound,
                io::ErrorKind::PermissionDenied => Exit::Forbidden,
                _ => Exit::Failed,
            };
            Err(Failure::new(exit, format!("cannot read the policy {name}: {e}")))
        }
    }
}

/// Prints text of several lines that was not made by a page.
pub(crate) fn raw(text: &str, color: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(lines(text, color).as_bytes())?;
    out.flush()
}
