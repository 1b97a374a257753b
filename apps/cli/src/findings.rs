//! `davy findings`: what was concluded, a line each.

use davy_model::{Finding, FindingId};
use davy_wire::{Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{amount, document, verbs, words};

/// Lists findings, or follows them.
pub(crate) fn run(client: &Client, answering: &Answering, asked: &verbs::Findings) -> Result<(), Failure> {
    let mut answers =
        client.ask(Query::Findings { since: asked.since, limit: asked.limit, follow: asked.follow })?;
    let mut table = table();
    let mut documents = vec![];
    table.headings(&["id", "last seen", "severity", "sure", "kind", "what"]);
    let mut none = true;
    while let Some(reply) = answers.next_reply()? {
        let Reply::Finding(finding) = reply else { return Err(unexpected(&reply)) };
        none = false;
        match (answering.json, asked.follow) {
            (true, true) => answering.document_line(&document::finding(&finding))?,
            (true, false) => documents.push(document::finding(&finding)),
            (false, true) => {
                let mut page = Page::new();
                page.push(line(&finding, answering));
                answering.page(&page)?;
            }
            (false, false) => table.row(row(&finding, answering)),
        }
    }
    match (answering.json, asked.follow) {
        (true, false) => answering.document(&Value::Array(documents))?,
        (false, false) => {
            let mut page = Page::new();
            if none {
                page.push(Line::of("No findings."));
            } else {
                page.extend(table.lines(answering.width));
            }
            answering.page(&page)?;
        }
        (_, true) => {}
    }
    Ok(())
}

/// One finding.
pub(crate) fn fetch(client: &Client, id: FindingId) -> Result<Finding, Failure> {
    match client.ask_one(Query::Finding { id })? {
        Reply::Finding(finding) => Ok(finding),
        other => Err(unexpected(&other)),
    }
}

fn table() -> Table {
    use Column::{Fill, Left, Right};
    Table::new(0, &[Right, Left, Left, Right, Left, Fill])
}

fn row(finding: &Finding, answering: &Answering) -> Vec<Line> {
    let (role, severity) = words::severity(finding.severity);
    vec![
        Line::in_role(Role::Strong, format!("f{}", finding.id.0)),
        Line::of(answering.clock.moment(finding.time)),
        Line::in_role(role, severity),
        Line::of(amount::percent(finding.confidence)),
        Line::of(words::kind(finding.kind)),
        Line::of(&finding.summary),
    ]
}

/// A line by itself, for following: its columns cannot know what comes.
fn line(finding: &Finding, answering: &Answering) -> Line {
    let (role, severity) = words::severity(finding.severity);
    Line::in_role(Role::Quiet, answering.clock.moment(finding.time))
        .and(Role::Strong, format!("  f{:<5}", finding.id.0))
        .and(role, format!("  {severity:<8}"))
        .and(
            Role::Plain,
            format!("  {:>9}  {:<12}", amount::percent(finding.confidence), words::kind(finding.kind)),
        )
        .and(Role::Plain, format!("  {}", finding.summary))
}
