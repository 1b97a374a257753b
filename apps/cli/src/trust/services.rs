//! What services started that they have no use for.

use davy_model::{ClassSet, Ruling, ServiceStart, Source};
use davy_trust::Programs;
use davy_trust::services::Profiles;
use davy_wire::{Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{amount, document};

/// What waits, the odd first.
pub(super) fn starts(client: &Client, limit: u32) -> Result<Vec<ServiceStart>, Failure> {
    let replies = client.ask_all(Query::ServiceStarts { limit })?;
    let starts = replies.into_iter().map(|reply| match reply {
        Reply::ServiceStart(start) => Ok(start),
        other => Err(unexpected(&other)),
    });
    starts.collect()
}

/// The same for programs.
pub(super) fn documents(starts: &[ServiceStart]) -> Value {
    Value::Array(starts.iter().map(document::raw).collect())
}

/// `davy trust services`.
pub(super) fn list(client: &Client, answering: &Answering, limit: u32) -> Result<(), Failure> {
    let all = starts(client, limit)?;
    if answering.json {
        return Ok(answering.document(&documents(&all))?);
    }
    let mut page = Page::new();
    if all.is_empty() {
        page.push(Line::of("Nothing waits: no service started what it has no use for."));
        return Ok(answering.page(&page)?);
    }
    use Column::{Fill, Left, Right};
    let mut table = Table::new(2, &[Left, Left, Right, Left, Left, Fill]);
    table.headings(&["service", "last", "started", "user", "what", "command"]);
    for start in &all {
        let mut command = Line::of(&start.command);
        let odd: Vec<&str> = start.odd.iter().map(|odd| odd.words()).collect();
        if !odd.is_empty() {
            command = command.and(Role::Warning, format!(" ({})", odd.join("; ")));
        }
        table.row(vec![
            Line::in_role(Role::Strong, &start.service),
            Line::of(answering.clock.moment(start.last)),
            Line::of(amount::count(start.count)),
            Line::of(start.users.join(", ")),
            Line::of(start.class.words()),
            command,
        ]);
    }
    page.extend(table.lines(answering.width));
    answering.page(&page)?;
    answering.next("davy trust learn makes entries for the policy of what a service may start all the same");
    Ok(())
}

/// For `davy trust explain`: which services have no use for this program, by its own name or that under which it was packaged.
pub(super) fn explained(path: &str, ruling: &Ruling) -> Option<Line> {
    let (programs, profiles) = (Programs::built_in().ok()?, Profiles::built_in().ok()?);
    let packaged = ruling.vouchers.iter().filter_map(|voucher| match &voucher.source {
        Source::Package { path, .. } => Some(path.as_str()),
        _ => None,
    });
    let classes =
        packaged.chain([path]).fold(ClassSet::NONE, |all, path| all.or(programs.classes(path, &[])));
    let words: Vec<&str> = classes.iter().map(davy_model::ProgramClass::words).collect();
    let names: Vec<&str> = profiles
        .iter()
        .filter(|(_, profile)| !profile.forbids.and(classes).is_empty())
        .map(|(_, profile)| profile.name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        Line::of(format!("  {}: what comes from {} has no use for it", words.join(", "), names.join(", ")))
    })
}
