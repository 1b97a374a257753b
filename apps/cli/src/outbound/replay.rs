//! `davy outbound replay`: what a policy would have refused of what was seen.

use std::net::IpAddr;
use std::path::Path;

use davy_agent::Paths;
use davy_net::outbound::{Proposed, Replayed, Row, replay};

use crate::answer::Answering;
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{amount, document, policy};

/// Judges what was seen by the policy of a file, or by the agent's.
pub(super) fn run(
    paths: &Paths,
    answering: &Answering,
    file: Option<&Path>,
    rows: &[Row<'_>],
    resolvers: &[IpAddr],
) -> Result<(), Failure> {
    let (name, policy) = policy::readable(paths, file)?;
    let replayed = replay(&policy, rows.iter().copied(), resolvers, answering.clock.now());
    if answering.json {
        let mut value = document::raw(&replayed);
        value["file"] = name.into();
        return Ok(answering.document(&value)?);
    }
    answering.page(&page(&name, &replayed, answering))?;
    if replayed.refused > 0 {
        answering.next("davy outbound learn makes entries of it, and davy outbound learn --accept adds them");
    }
    Ok(())
}

/// The outcome for people.
fn page(name: &str, replayed: &Replayed, answering: &Answering) -> Page {
    let mut page = Page::new();
    let all = amount::of(replayed.connections, "connection", "connections");
    let verdict = match replayed.refused {
        0 => Line::in_role(Role::Good, format!("Of {all} none would have been refused by {name}.")),
        n => Line::in_role(
            Role::Warning,
            format!("Of {all} {} would have been refused by {name}, where it enforces.", amount::count(n)),
        ),
    };
    page.extend(verdict.wrap(answering.width));
    table(&mut page, &replayed.missing, answering);
    if !replayed.unclear.is_empty() {
        page.gap();
        let words = "Whether an entry allows these cannot be told from what is kept of them:";
        page.extend(Line::of(words).wrap(answering.width));
        table(&mut page, &replayed.unclear, answering);
    }
    page
}

fn table(page: &mut Page, entries: &[Proposed], answering: &Answering) {
    if entries.is_empty() {
        return;
    }
    page.gap();
    let mut table = Table::new(2, &[Column::Right, Column::Left, Column::Fill]);
    table.headings(&["times", "program", "who and where to"]);
    for entry in entries {
        let why = if entry.odd.is_empty() { String::new() } else { format!(" ({})", entry.odd.join("; ")) };
        table.row(vec![
            Line::of(amount::count(entry.connections)),
            Line::of(entry.programs.join(", ")),
            Line::of(entry.summary()).and(Role::Quiet, why),
        ]);
    }
    page.extend(table.lines(answering.width));
}
