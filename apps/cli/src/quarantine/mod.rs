//! `davy quarantine`: what was taken away, and what becomes of it.

mod export;

use davy_wire::{Command, Quarantined, Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::failure::{Exit, Failure};
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::verbs::Quarantine;
use crate::{amount, change, document};

/// Runs one of the verbs.
pub(crate) fn run(verb: &Quarantine, client: &Client, answering: &Answering) -> Result<(), Failure> {
    match verb {
        Quarantine::List => list(client, answering),
        Quarantine::Show(asked) => show(client, answering, asked.number),
        Quarantine::Restore(asked) => {
            change::order(client, answering, Command::QuarantineRestore { number: asked.number })
        }
        Quarantine::Delete(asked) => {
            change::order(client, answering, Command::QuarantineDelete { number: asked.number })
        }
        Quarantine::Export(asked) => export::run(client, answering, asked),
    }
}

/// What lies there, and what there cannot be read.
fn held(client: &Client) -> Result<(Vec<Quarantined>, Vec<String>), Failure> {
    let (mut files, mut faults) = (Vec::new(), Vec::new());
    for reply in client.ask_all(Query::Quarantine)? {
        match reply {
            Reply::Quarantined(file) => files.push(file),
            Reply::QuarantineFault(fault) => faults.push(fault),
            other => return Err(unexpected(&other)),
        }
    }
    Ok((files, faults))
}

fn one(client: &Client, number: u64) -> Result<Quarantined, Failure> {
    let (files, _) = held(client)?;
    files.into_iter().find(|file| file.number == number).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no file {number} in quarantine"))
            .hint("davy quarantine list shows what there is")
    })
}

fn list(client: &Client, answering: &Answering) -> Result<(), Failure> {
    let (files, faults) = held(client)?;
    if answering.json {
        answering.document(&Value::Array(files.iter().map(document::quarantined).collect()))?;
    } else {
        answering.page(&overview(&files, answering))?;
    }
    match faults.as_slice() {
        [] => Ok(()),
        faults => Err(Failure::new(Exit::Failed, faults.join("; "))
            .hint("the disk, or somebody, has damaged these records; no content was removed")),
    }
}

/// The list for people.
fn overview(files: &[Quarantined], answering: &Answering) -> Page {
    use Column::{Fill, Left, Right};
    let mut page = Page::new();
    if files.is_empty() {
        page.push(Line::of("Nothing lies in quarantine."));
        return page;
    }
    let mut table = Table::new(2, &[Right, Left, Right, Left, Fill, Left]);
    table.headings(&["number", "taken", "size", "SHA-256", "what", "for"]);
    for file in files {
        let mut what = Line::of(&file.path);
        if !file.restorable {
            what = what.and(Role::Quiet, " (ran without a name)");
        }
        if file.sealed_bytes == 0 {
            what = what.and(Role::Alarm, " (its content is gone)");
        }
        table.row(vec![
            Line::in_role(Role::Strong, file.number.to_string()),
            Line::of(answering.clock.moment(file.taken)),
            Line::of(amount::bytes(file.bytes)),
            Line::in_role(Role::Quiet, file.sha256.get(..12).unwrap_or_default()),
            what,
            Line::of(cause(file)),
        ]);
    }
    page.extend(table.lines(answering.width));
    page
}

fn cause(file: &Quarantined) -> String {
    match (file.incident, file.action) {
        (Some(incident), _) => format!("incident {}", incident.0),
        (None, Some(_)) => "an administrator".to_owned(),
        (None, None) => "not in the journal".to_owned(),
    }
}

fn show(client: &Client, answering: &Answering, number: u64) -> Result<(), Failure> {
    let file = one(client, number)?;
    if answering.json {
        return Ok(answering.document(&document::quarantined(&file))?);
    }
    let mut page = Page::new();
    page.push(Line::in_role(Role::Strong, &file.path));
    let mut table = Table::new(2, &[Column::Left, Column::Fill]);
    let mut row = |name: &str, value: String| {
        table.row(vec![Line::in_role(Role::Quiet, name), Line::of(value)]);
    };
    row("SHA-256", file.sha256.clone());
    let kept = match (file.sealed_bytes, file.shares) {
        (0, _) => "its content is gone".to_owned(),
        (n, None) => format!("{} sealed", amount::bytes(n)),
        (n, Some(other)) => format!("{} sealed, together with file {other}", amount::bytes(n)),
    };
    row("size", format!("{} bytes, {kept}", amount::count(file.bytes)));
    let journal = file.action.map_or_else(String::new, |action| format!(" (a{})", action.0));
    row("taken", format!("{} for {}{journal}", answering.clock.moment(file.taken), cause(&file)));
    row("owner, mode", format!("{}:{} {:04o}", file.uid, file.gid, file.mode));
    row("changed, read", {
        let moment = |time| answering.clock.moment(time);
        format!("{}, {}", moment(file.modified), moment(file.accessed))
    });
    if !file.xattrs.is_empty() {
        row("attributes", file.xattrs.join(", "));
    }
    if file.links > 1 {
        row("names", format!("it had {}", file.links));
    }
    if !file.restorable {
        row("place", "it ran without a name; export it, there is no place to put it back to".to_owned());
    }
    page.extend(table.lines(answering.width));
    Ok(answering.page(&page)?)
}
