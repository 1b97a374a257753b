//! `davy outbound`: who may connect to what.

mod learn;

use davy_model::Mode;
use davy_wire::{OutboundSummary, Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::clock::rfc3339;
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::verbs::Outbound;
use crate::{amount, document};

/// Runs one of the verbs.
pub(crate) fn run(verb: &Outbound, client: &Client, answering: &Answering) -> Result<(), Failure> {
    match verb {
        Outbound::Status => status(client, answering),
        Outbound::Learn(asked) => learn::run(client, answering, asked.since),
    }
}

fn status(client: &Client, answering: &Answering) -> Result<(), Failure> {
    let summary = summary(client)?;
    if answering.json {
        return Ok(answering.document(&outbound_document(&summary))?);
    }
    answering.page(&overview(&summary, answering))?;
    if summary.mode != Mode::Off {
        answering.next("davy findings shows what no entry allows, and davy explain fN why");
    }
    Ok(())
}

fn summary(client: &Client) -> Result<OutboundSummary, Failure> {
    match client.ask_one(Query::Outbound)? {
        Reply::Outbound(summary) => Ok(summary),
        other => Err(unexpected(&other)),
    }
}

/// The summary for programs.
pub(crate) fn outbound_document(summary: &OutboundSummary) -> Value {
    let mut value = document::raw(summary);
    let names = value["names"].as_array_mut().into_iter().flatten();
    for (name, of) in names.zip(&summary.names) {
        name["until"] = rfc3339(of.until).into();
    }
    value
}

/// The summary for people.
pub(crate) fn overview(summary: &OutboundSummary, answering: &Answering) -> Page {
    let mut page = Page::new();
    let (role, mode) = match summary.mode {
        Mode::Off => (Role::Warning, "Connections are not judged: [outbound] is off."),
        Mode::Observe => (Role::Plain, "Connections are judged and none is refused: [outbound] observes."),
        Mode::Enforce => (Role::Good, "Connections that no entry allows are refused in the policy's scope."),
    };
    page.push(Line::in_role(role, mode));
    for fault in &summary.faults {
        page.push(Line::in_role(Role::Alarm, fault));
    }
    if summary.mode == Mode::Off {
        return page;
    }
    let resolvers: Vec<String> = summary.resolvers.iter().map(ToString::to_string).collect();
    let resolvers = if resolvers.is_empty() { "none but loopback".to_owned() } else { resolvers.join(", ") };
    page.push(Line::of(format!(
        "{} of the policy; since the agent started {} refused and {} let go without one.",
        amount::of(summary.rules, "entry", "entries"),
        amount::count(summary.refused),
        amount::count(summary.would),
    )));
    page.push(Line::of(format!("Name servers that everyone may ask: {resolvers}.")));
    if summary.names.is_empty() {
        return page;
    }
    page.gap();
    let mut table = Table::new(2, &[Column::Left, Column::Left, Column::Left, Column::Fill]);
    table.headings(&["name", "leads to", "until", "and so do"]);
    for name in &summary.names {
        let others = name.shared_with.join(", ");
        table.row(vec![
            Line::in_role(Role::Strong, &name.name),
            Line::of(name.address.to_string()),
            Line::of(answering.clock.moment(name.until)),
            if others.is_empty() { Line::new() } else { Line::in_role(Role::Warning, others) },
        ]);
    }
    page.extend(table.lines(answering.width));
    page
}
