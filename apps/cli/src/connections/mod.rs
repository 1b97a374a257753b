//! Who talks to whom.

mod graph;

use davy_model::{Connection, Heading, Peer, Transport};
use davy_wire::{ConnectionEntry, Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{amount, document, verbs};

/// Narrower terminals see sent and received bytes as one number.
const WIDE: usize = 110;

/// Shows the map as a table or a tree.
pub(crate) fn run(client: &Client, answering: &Answering, asked: &verbs::Connections) -> Result<(), Failure> {
    let replies = client.ask_all(Query::Connections {
        since: asked.since,
        limit: asked.limit,
        service: asked.service.clone(),
        process: asked.process.clone(),
        outside: (asked.outside || asked.inside).then_some(asked.outside),
    })?;
    let entries = replies.into_iter().map(|reply| match reply {
        Reply::Connection(entry) => Ok(entry),
        other => Err(unexpected(&other)),
    });
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    if answering.json {
        return Ok(answering.document(&Value::Array(entries.iter().map(document::connection).collect()))?);
    }
    answering.page(&page(&entries, asked.graph, answering))?;
    if entries.len() == asked.limit as usize {
        answering.next(&format!("These are the {} seen last; --limit shows more.", asked.limit));
    }
    Ok(())
}

/// The map for people.
pub(crate) fn page(entries: &[ConnectionEntry], graph: bool, answering: &Answering) -> Page {
    let mut page = Page::new();
    if entries.is_empty() {
        page.push(Line::of("Nobody talked, as far as was asked for."));
    } else if graph {
        page.extend(graph::lines(entries, answering));
    } else {
        page.extend(table(entries, answering).lines(answering.width));
    }
    page
}

fn table(entries: &[ConnectionEntry], answering: &Answering) -> Table {
    use Column::{Fill, Left, Right};
    let wide = answering.width >= WIDE;
    let mut table = if wide {
        Table::new(0, &[Left, Fill, Fill, Right, Right, Right])
    } else {
        Table::new(0, &[Left, Fill, Fill, Right, Right])
    };
    if wide {
        table.headings(&["last seen", "who", "with", "times", "sent", "received"]);
    } else {
        table.headings(&["last seen", "who", "with", "times", "bytes"]);
    }
    for entry in entries {
        let row = &entry.connection;
        let mut cells = vec![
            Line::of(answering.clock.moment(row.last)),
            who(entry),
            with(row),
            Line::of(amount::count(row.connections)),
        ];
        if wide {
            cells.push(Line::of(amount::bytes(row.sent_bytes)));
            cells.push(Line::of(amount::bytes(row.received_bytes)));
        } else {
            cells.push(Line::of(amount::bytes(row.sent_bytes.saturating_add(row.received_bytes))));
        }
        table.row(cells);
    }
    table
}

/// The program, its user, and where it runs.
fn who(entry: &ConnectionEntry) -> Line {
    let line = program(entry);
    match home(&entry.connection) {
        Some(home) => line.and(Role::Quiet, format!(" in {home}")),
        None => line,
    }
}

/// The program and its user.
fn program(entry: &ConnectionEntry) -> Line {
    let path = &entry.connection.talker.program;
    let name = path.rsplit('/').next().unwrap_or_default();
    let line = match name {
        "" => Line::in_role(Role::Quiet, "a process not seen"),
        name => Line::in_role(Role::Strong, name),
    };
    match &entry.user {
        Some(user) => line.and(Role::Plain, format!(" ({user})")),
        None => line,
    }
}

/// The container or the service that it runs in.
fn home(row: &Connection) -> Option<String> {
    let talker = &row.talker;
    talker.container.as_ref().map(|id| format!("container {id}")).or_else(|| talker.service.clone())
}

/// The other end: `→ deb.debian.org:443 outside, tls`.
fn with(row: &Connection) -> Line {
    let (arrow, role) = match row.direction {
        Heading::Outbound => ("→ ", Role::Plain),
        Heading::Inbound => ("← ", Role::Plain),
    };
    let mut line = Line::in_role(Role::Quiet, arrow).and(role, peer(row));
    if row.direction == Heading::Inbound {
        line = line.and(Role::Plain, format!(" at {}", port(row)));
    }
    // Where those are that the kernel only counted is not known.
    let mut remarks = vec![row.place.map_or("only counted", davy_model::Place::name).to_owned()];
    if row.transport == Transport::Udp {
        remarks.push("udp".to_owned());
    }
    if row.tls {
        remarks.push("tls".to_owned());
    }
    if row.open > 0 {
        remarks.push(format!("{} open", amount::count(row.open)));
    }
    line = line.and(Role::Quiet, format!(" {}", remarks.join(", ")));
    if let Some(request) = row.requests.last() {
        line = line.and(Role::Quiet, format!("; {request}"));
    }
    line
}

/// Who it is, and of one that was called the port.
fn peer(row: &Connection) -> String {
    let called = row.direction == Heading::Outbound && row.port != 0;
    let port = if called { format!(":{}", row.port) } else { String::new() };
    match &row.peer {
        Peer::Name(name) => format!("{name}{port}{}", addresses(row)),
        Peer::Address(address) if called => std::net::SocketAddr::new(*address, row.port).to_string(),
        Peer::Address(address) => address.to_string(),
        Peer::Others => format!("others{port}{}", addresses(row)),
    }
}

/// How many addresses a name had, or which one.
fn addresses(row: &Connection) -> String {
    match (&row.addresses[..], row.more_addresses) {
        ([], _) => String::new(),
        ([address], false) => format!(" ({address})"),
        (all, more) => format!(" ({}{} addresses)", if more { "more than " } else { "" }, all.len()),
    }
}

fn port(row: &Connection) -> String {
    if row.port == 0 { "several ports".to_owned() } else { format!("port {}", row.port) }
}
