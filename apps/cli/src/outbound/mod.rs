//! `davy outbound`: who may connect to what.

mod accept;
mod learn;
mod replay;

use davy_agent::Paths;
use davy_model::{Mode, Timestamp};
use davy_net::outbound::Row;
use davy_wire::{ConnectionEntry, OutboundSummary, Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::clock::rfc3339;
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::verbs::Outbound;
use crate::{amount, document};

/// The most rows that are looked at.
const ALL: u32 = 100_000;

/// Runs one of the verbs.
pub(crate) fn run(
    verb: &Outbound,
    paths: &Paths,
    client: &Client,
    answering: &Answering,
) -> Result<(), Failure> {
    let since = match verb {
        Outbound::Status => return status(client, answering),
        Outbound::Learn(asked) => asked.since,
        Outbound::Replay(asked) => asked.since,
    };
    let seen = seen(client, since)?;
    let rows: Vec<Row<'_>> = seen.iter().map(|entry| (&entry.connection, entry.user.as_deref())).collect();
    let resolvers = summary(client)?.resolvers;
    match verb {
        Outbound::Learn(asked) if asked.accept => accept::run(paths, answering, &rows, &resolvers),
        Outbound::Replay(asked) => replay::run(paths, answering, asked.file.as_deref(), &rows, &resolvers),
        _ => learn::run(answering, &rows, &resolvers),
    }
}

/// Who talked to whom.
fn seen(client: &Client, since: Option<Timestamp>) -> Result<Vec<ConnectionEntry>, Failure> {
    let query = Query::Connections { since, limit: ALL, service: None, process: None, outside: None };
    let replies = client.ask_all(query)?.into_iter().map(|reply| match reply {
        Reply::Connection(entry) => Ok(entry),
        other => Err(unexpected(&other)),
    });
    replies.collect()
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
