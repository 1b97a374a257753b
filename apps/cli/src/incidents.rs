//! `davy incidents`: the list, or the story of one.

use davy_model::{Incident, IncidentId};
use davy_wire::{Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{document, story, verbs, words};

/// Lists incidents, or tells one.
pub(crate) fn run(client: &Client, answering: &Answering, asked: &verbs::Incidents) -> Result<(), Failure> {
    match asked.id {
        Some(id) => {
            let incident = fetch(client, IncidentId(id))?;
            if answering.json {
                return Ok(answering.document(&document::incident(&incident))?);
            }
            Ok(answering.page(&story::page(&incident, answering))?)
        }
        None => list(client, answering, asked),
    }
}

/// One incident with everything.
pub(crate) fn fetch(client: &Client, id: IncidentId) -> Result<Incident, Failure> {
    match client.ask_one(Query::Incident { id })? {
        Reply::Incident(incident) => Ok(incident),
        other => Err(unexpected(&other)),
    }
}

/// The newest incidents, newest last.
pub(crate) fn newest(client: &Client, limit: u32) -> Result<Vec<Incident>, Failure> {
    incidents_of(client.ask_all(Query::Incidents { since: None, limit })?)
}

fn incidents_of(replies: Vec<Reply>) -> Result<Vec<Incident>, Failure> {
    replies
        .into_iter()
        .map(|r| match r {
            Reply::Incident(incident) => Ok(incident),
            other => Err(unexpected(&other)),
        })
        .collect()
}

fn list(client: &Client, answering: &Answering, asked: &verbs::Incidents) -> Result<(), Failure> {
    let query = Query::Incidents { since: asked.since, limit: asked.limit };
    let incidents = incidents_of(client.ask_all(query)?)?;
    if answering.json {
        return Ok(answering.document(&Value::Array(incidents.iter().map(document::incident).collect()))?);
    }
    let mut page = Page::new();
    if incidents.is_empty() {
        page.push(Line::of("No incidents."));
        return Ok(answering.page(&page)?);
    }
    let told = completed(client, &incidents);
    page.extend(table(&told, answering).lines(answering.width));
    if let Some(last) = incidents.last().filter(|_| !answering.quiet) {
        page.gap();
        page.push(
            Line::in_role(Role::Quiet, "The story of one: ")
                .and(Role::Hint, format!("davy incidents {}", last.id.0)),
        );
    }
    Ok(answering.page(&page)?)
}

/// How many of the newest incidents of a list are asked for in full.
const COMPLETED: usize = 50;

/// Incidents with their trees and timelines, which a list leaves out and which name the program and the user. Where
/// an incident cannot be asked for any more, it stays as it was listed.
fn completed(client: &Client, listed: &[Incident]) -> Vec<Incident> {
    let bare = listed.len().saturating_sub(COMPLETED);
    listed
        .iter()
        .enumerate()
        .map(|(at, incident)| match at >= bare && incident.tree.is_empty() {
            true => fetch(client, incident.id).unwrap_or_else(|_| incident.clone()),
            false => incident.clone(),
        })
        .collect()
}

fn table(incidents: &[Incident], answering: &Answering) -> Table {
    use Column::{Fill, Left, Right};
    let mut table = Table::new(0, &[Right, Left, Left, Left, Fill, Left, Left]);
    table.headings(&["id", "began", "state", "severity", "what", "program", "user"]);
    for incident in incidents {
        let (state_role, state) = words::state(incident.state);
        let (severity_role, severity) = words::severity(incident.severity);
        table.row(vec![
            Line::in_role(Role::Strong, incident.id.0.to_string()),
            Line::of(answering.clock.moment(incident.first)),
            Line::in_role(state_role, state),
            Line::in_role(severity_role, severity),
            Line::of(&incident.title),
            Line::of(program(incident)),
            Line::of(user(incident)),
        ]);
    }
    table
}

/// The program that the evidence is about, by what it calls itself and its pid.
fn program(incident: &Incident) -> String {
    let node = incident.tree.iter().find(|n| n.suspect).or(incident.tree.first());
    match (node, incident.findings.iter().find_map(|f| f.subject)) {
        (Some(node), _) => format!("{} {}", node.comm, node.process.pid),
        (None, Some(subject)) => format!("pid {}", subject.pid),
        (None, None) => "-".to_owned(),
    }
}

/// As which user the last act that names one was done.
fn user(incident: &Incident) -> &str {
    incident.timeline.iter().rev().find_map(|e| e.user.as_deref()).unwrap_or("-")
}
