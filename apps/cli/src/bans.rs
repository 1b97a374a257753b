//! `davy ban`, `davy bans` and `davy unban`.

use davy_wire::{BanEntry, Command, Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::change::order;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::verbs::{Ban, Unban};
use crate::{amount, document};

/// Bans somebody.
pub(crate) fn ban(client: &Client, answering: &Answering, asked: &Ban) -> Result<(), Failure> {
    let (who, ports, reject, seconds) = (asked.who, asked.ports.clone(), asked.reject, asked.length);
    order(client, answering, Command::Ban { who, ports, reject, seconds })
}

/// Lets somebody in again.
pub(crate) fn unban(client: &Client, answering: &Answering, asked: &Unban) -> Result<(), Failure> {
    order(client, answering, Command::Unban { who: asked.who })
}

/// Lists who is banned.
pub(crate) fn list(client: &Client, answering: &Answering) -> Result<(), Failure> {
    let replies = client.ask_all(Query::Bans)?;
    let bans = replies.into_iter().map(|reply| match reply {
        Reply::Ban(ban) => Ok(ban),
        other => Err(unexpected(&other)),
    });
    let bans: Vec<BanEntry> = bans.collect::<Result<_, _>>()?;
    if answering.json {
        return Ok(answering.document(&Value::Array(bans.iter().map(document::ban).collect()))?);
    }
    Ok(answering.page(&page(&bans, answering))?)
}

/// Who is banned, for people.
pub(crate) fn page(bans: &[BanEntry], answering: &Answering) -> Page {
    let mut page = Page::new();
    if bans.is_empty() {
        page.push(Line::of("Nobody is banned."));
        return page;
    }
    use Column::{Fill, Left, Right};
    let mut table = Table::new(2, &[Left, Left, Left, Left, Right, Left, Fill]);
    table.headings(&["banned", "from", "since", "until", "packets", "action", "by"]);
    for ban in bans {
        let ports: Vec<String> = ban.ports.iter().map(u16::to_string).collect();
        let mut from = if ports.is_empty() { "all".to_owned() } else { format!("port {}", ports.join(", ")) };
        if ban.reject {
            from.push_str(", told so");
        }
        let mut by = Line::of(&ban.by);
        if let Some(incident) = ban.incident {
            by = by.and(Role::Quiet, format!(", incident {}", incident.0));
        }
        if !ban.held {
            by = by.and(Role::Alarm, ", not held by the kernel");
        }
        table.row(vec![
            Line::in_role(Role::Strong, ban.who.to_string()),
            Line::of(from),
            Line::of(answering.clock.moment(ban.since)),
            Line::of(answering.clock.moment(ban.until)),
            Line::of(amount::count(ban.packets)),
            Line::in_role(Role::Quiet, format!("a{}", ban.action.0)),
            by,
        ]);
    }
    page.extend(table.lines(answering.width));
    page
}
