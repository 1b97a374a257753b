//! `davy actions`: the journal of what was done, would have been done, and was undone.

use davy_model::ActionRecord;
use davy_wire::{Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{document, verbs, words};

/// Lists the journal.
pub(crate) fn run(client: &Client, answering: &Answering, asked: &verbs::Actions) -> Result<(), Failure> {
    let records: Vec<ActionRecord> = client
        .ask_all(Query::Actions { limit: asked.limit })?
        .into_iter()
        .map(|r| match r {
            Reply::Action(record) => Ok(record),
            other => Err(unexpected(&other)),
        })
        .collect::<Result<_, _>>()?;
    if answering.json {
        return Ok(answering.document(&Value::Array(records.iter().map(document::action).collect()))?);
    }
    let mut page = Page::new();
    if records.is_empty() {
        page.push(Line::of("Nothing was done, and nothing would have been."));
    } else {
        page.extend(table(&records, answering).lines(answering.width));
    }
    Ok(answering.page(&page)?)
}

/// Actions, a row each.
pub(crate) fn table(records: &[ActionRecord], answering: &Answering) -> Table {
    use Column::{Fill, Left, Right};
    let mut table = Table::new(2, &[Right, Left, Left, Fill, Left, Left]);
    table.headings(&["id", "changed", "state", "what", "for", "undo"]);
    for record in records {
        let (role, state) = words::action_state(record.state);
        let mut what = Line::of(words::deed(record));
        if !record.note.is_empty() {
            what = what.and(Role::Quiet, format!(" ({})", record.note));
        }
        let cause = match (record.incident, record.finding) {
            (Some(incident), _) => incident.0.to_string(),
            (None, Some(finding)) => format!("f{}", finding.0),
            (None, None) if record.is_canary() => "canary".to_owned(),
            (None, None) => String::new(),
        };
        table.row(vec![
            Line::in_role(Role::Strong, format!("a{}", record.id.0)),
            Line::of(answering.clock.moment(record.changed)),
            Line::in_role(role, state),
            what,
            Line::of(cause),
            Line::in_role(Role::Quiet, if record.undoable { "can be" } else { "" }),
        ]);
    }
    table
}
