//! The map as a tree: services and containers, their programs, and with whom these talk.

use std::collections::BTreeMap;

use davy_wire::ConnectionEntry;

use super::{home, program, with};
use crate::amount;
use crate::answer::Answering;
use crate::page::{Line, Role};
use crate::table::{Column, Table};
use crate::tree::branch;

/// What stands for those that run in no service and no container.
const NO_HOME: &str = "sessions and the rest";

/// The tree, services in the order of their names, within a program those seen last first.
pub(super) fn lines(entries: &[ConnectionEntry], answering: &Answering) -> Vec<Line> {
    let mut homes: BTreeMap<(bool, String), BTreeMap<_, Vec<&ConnectionEntry>>> = BTreeMap::new();
    for entry in entries {
        let home = home(&entry.connection);
        let home = (home.is_none(), home.unwrap_or_else(|| NO_HOME.to_owned()));
        let program = (&entry.connection.talker.program, &entry.user);
        homes.entry(home).or_default().entry(program).or_default().push(entry);
    }
    let mut nodes: Vec<(u32, Line, Line)> = Vec::new();
    for ((_, home), programs) in homes {
        nodes.push((0, Line::in_role(Role::Strong, home), Line::new()));
        for (_, mut rows) in programs {
            rows.sort_by_key(|entry| std::cmp::Reverse((entry.connection.last, entry.connection.id)));
            if let Some(first) = rows.first() {
                nodes.push((1, program(first), Line::new()));
            }
            nodes.extend(rows.iter().map(|entry| (2, with(&entry.connection), volume(entry, answering))));
        }
    }
    let depths: Vec<u32> = nodes.iter().map(|(depth, ..)| *depth).collect();
    let mut table = Table::new(0, &[Column::Left, Column::Fill]);
    for (at, (_, what, volume)) in nodes.into_iter().enumerate() {
        table.row(vec![Line::in_role(Role::Quiet, branch(&depths, at)).join(what), volume]);
    }
    table.lines(answering.width)
}

fn volume(entry: &ConnectionEntry, answering: &Answering) -> Line {
    let row = &entry.connection;
    let text = format!(
        "{}, {} out, {} in, last {}",
        amount::of(row.connections, "time", "times"),
        amount::bytes(row.sent_bytes),
        amount::bytes(row.received_bytes),
        answering.clock.moment(row.last)
    );
    Line::in_role(Role::Quiet, text)
}
