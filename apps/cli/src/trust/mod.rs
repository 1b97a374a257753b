//! `davy trust`: which code may run, who vouches for it, and what waits.

mod integrity;
mod services;
mod sign;

use std::fs::File;
use std::path::Path;

use davy_model::{Mode, Pending, PendingId, Rank, Ruling, Sha256};
use davy_trust::Proposal;
use davy_trust::host::digest_of;
use davy_trust::services::Learned;
use davy_wire::{Command, Query, Reply, TrustSummary};
use serde_json::{Value, json};

use integrity::Integrity;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::failure::{Exit, Failure};
use crate::page::{Line, Page, Role};
use crate::policy::raw;
use crate::table::{Column, Table};
use crate::verbs::Trust;
use crate::{amount, change, document};

/// The most that is asked for when everything is wanted.
const ALL: u32 = 10_000;

/// Runs one of the verbs.
pub(crate) fn run(verb: &Trust, client: &Client, answering: &Answering) -> Result<Exit, Failure> {
    match verb {
        Trust::Status => status(client, answering)?,
        Trust::Explain(asked) => return explain(client, answering, &asked.files),
        Trust::Pending(asked) => pending(client, answering, asked.limit)?,
        Trust::Services(asked) => services::list(client, answering, asked.limit)?,
        Trust::Approve(asked) => {
            let seconds = asked.length.map(u64::from);
            let order = match asked.what.parse() {
                Ok(number) => Command::TrustApprove { id: PendingId(number), seconds },
                Err(_) => approve_file(Path::new(&asked.what), seconds)?,
            };
            change::order(client, answering, order)?;
        }
        Trust::Withdraw(asked) => {
            let sha256 = match asked.what.parse() {
                Ok(digest) => digest,
                Err(_) => digest(Path::new(&asked.what))?,
            };
            change::order(client, answering, Command::TrustWithdraw { sha256 })?;
        }
        Trust::Learn(asked) if asked.accept => change::order(client, answering, Command::TrustAccept)?,
        Trust::Learn(_) => learn(client, answering)?,
        Trust::Keygen(asked) => sign::keygen(answering, &asked.key)?,
        Trust::Sign(asked) => sign::sign(answering, asked)?,
    }
    Ok(Exit::Done)
}

/// The content that a file has now: what it becomes later is not approved.
fn approve_file(file: &Path, seconds: Option<u64>) -> Result<Command, Failure> {
    let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()).display().to_string();
    Ok(Command::TrustApproveContent { sha256: digest(file)?, path, seconds })
}

fn status(client: &Client, answering: &Answering) -> Result<(), Failure> {
    let summary = match client.ask_one(Query::Trust)? {
        Reply::Trust(summary) => summary,
        other => return Err(unexpected(&other)),
    };
    if answering.json {
        return Ok(answering.document(&document::raw(&summary))?);
    }
    Ok(answering.page(&overview(&summary))?)
}

/// The summary for people.
pub(crate) fn overview(summary: &TrustSummary) -> Page {
    let mut page = Page::new();
    let (role, mode) = match summary.mode {
        Mode::Off => (Role::Warning, "Code is not judged: [trust] is off."),
        Mode::Observe => (Role::Plain, "Code is judged and nothing is refused: [trust] observes."),
        Mode::Enforce => (Role::Good, "Code that nobody vouches for is refused in the policy's scope."),
    };
    page.push(Line::in_role(role, mode));
    for fault in &summary.faults {
        page.push(Line::in_role(Role::Alarm, fault));
    }
    page.gap();
    let mut table = Table::new(2, &[Column::Left, Column::Right]);
    table.headings(&["vouched for by", "contents"]);
    for by in &summary.by {
        table.row(vec![Line::of(&by.source), Line::of(amount::count(by.contents))]);
    }
    page.extend(table.lines(80));
    page.gap();
    page.push(Line::of(format!("Packages: {}.", summary.learning)));
    if summary.pending > 0 {
        let waiting = amount::of(summary.pending, "content waits", "contents wait");
        let refused = match summary.refused {
            0 => String::new(),
            n => format!(", refused {}", amount::of(n, "time", "times")),
        };
        page.push(Line::in_role(Role::Strong, format!("{waiting} for you{refused}: davy trust pending")));
    }
    page
}

fn explain(client: &Client, answering: &Answering, files: &[std::path::PathBuf]) -> Result<Exit, Failure> {
    let mut documents = Vec::new();
    let mut page = Page::new();
    let mut all = true;
    for file in files {
        let sha256 = digest(file)?;
        let integrity = Integrity::of(file);
        let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.clone()).display().to_string();
        let query = Query::TrustRuling { sha256, path: path.clone(), nameless: false };
        let ruling = match client.ask_one(query)? {
            Reply::Ruling(ruling) => ruling,
            other => return Err(unexpected(&other)),
        };
        all &= ruling.allowed;
        if answering.json {
            documents
                .push(json!({ "path": path, "sha256": sha256.to_string(), "ruling": document::raw(&ruling),
                    "fs_verity": integrity.verity, "ima": integrity.ima_document() }));
        } else {
            page.gap();
            page.extend(ruled(&path, sha256, &ruling));
            page.extend(integrity.lines());
        }
    }
    if answering.json {
        answering.document(&Value::Array(documents))?;
    } else {
        answering.page(&page)?;
    }
    Ok(if all { Exit::Done } else { Exit::Failed })
}

/// One ruling for people: what decided, and which rules were looked at before.
fn ruled(path: &str, sha256: Sha256, ruling: &Ruling) -> Vec<Line> {
    let (role, word) = if ruling.allowed { (Role::Good, "may run") } else { (Role::Alarm, "may not run") };
    let mut lines = vec![
        Line::in_role(Role::Strong, path).and(Role::Plain, " ").and(role, word),
        Line::in_role(Role::Quiet, format!("  SHA-256 {sha256}")),
        Line::of(format!("  because: {}", ruling.because)),
    ];
    for rank in Rank::ALL {
        let said = match rank.cmp(&ruling.rank) {
            std::cmp::Ordering::Less => "nothing",
            std::cmp::Ordering::Equal => "decides",
            std::cmp::Ordering::Greater => "not asked",
        };
        let role = if rank == ruling.rank { Role::Plain } else { Role::Quiet };
        lines.push(Line::in_role(role, format!("  {:<20} {said}", rank.to_string())));
    }
    lines.extend(services::explained(path, ruling));
    for voucher in &ruling.vouchers {
        lines.push(Line::of(format!("  vouched for by {}", voucher.source)));
    }
    lines
}

fn pending(client: &Client, answering: &Answering, limit: u32) -> Result<(), Failure> {
    let all = waiting(client, limit)?;
    if answering.json {
        return Ok(answering.document(&Value::Array(all.iter().map(document::raw).collect()))?);
    }
    let mut page = Page::new();
    if all.is_empty() {
        page.push(Line::of("Nothing waits: all code that ran is vouched for."));
        return Ok(answering.page(&page)?);
    }
    use Column::{Fill, Left, Right};
    let mut table = Table::new(2, &[Right, Left, Right, Right, Left, Fill]);
    table.headings(&["id", "last", "ran", "refused", "user", "what"]);
    for pending in &all {
        let mut what = Line::of(&pending.path);
        let odd: Vec<&str> = pending.odd.iter().map(|odd| odd.words()).collect();
        if !odd.is_empty() {
            what = what.and(Role::Warning, format!(" ({})", odd.join("; ")));
        }
        table.row(vec![
            Line::in_role(Role::Strong, pending.id.0.to_string()),
            Line::of(answering.clock.moment(pending.last)),
            Line::of(amount::count(pending.would)),
            Line::of(amount::count(pending.refused)),
            Line::of(pending.users.join(", ")),
            what,
        ]);
    }
    page.extend(table.lines(answering.width));
    answering.page(&page)?;
    answering.next("sudo davy trust approve ID lets that very content run; davy trust learn makes entries for the policy");
    Ok(())
}

fn waiting(client: &Client, limit: u32) -> Result<Vec<Pending>, Failure> {
    let replies = client.ask_all(Query::TrustPending { limit })?;
    let pending = replies.into_iter().map(|reply| match reply {
        Reply::Pending(pending) => Ok(pending),
        other => Err(unexpected(&other)),
    });
    pending.collect()
}

fn learn(client: &Client, answering: &Answering) -> Result<(), Failure> {
    let all = waiting(client, ALL)?;
    let proposal = Proposal::new(&all);
    let starts = services::starts(client, ALL)?;
    if answering.json {
        let list = |list: &[Pending]| Value::Array(list.iter().map(document::raw).collect());
        return Ok(answering.document(&json!({
            "allow": list(proposal.plain()),
            "odd": list(proposal.odd()),
            "services": services::documents(&starts),
        }))?);
    }
    raw(&format!("{}{}", proposal.to_toml(), Learned::to_toml(&starts)), false)?;
    let odd_starts = starts.iter().filter(|start| !start.odd.is_empty()).count();
    let plain = (proposal.plain().len() + starts.len() - odd_starts) as u64;
    let odd = (proposal.odd().len() + odd_starts) as u64;
    let words = format!(
        "{} proposed, {} left as comments",
        amount::of(plain, "entry", "entries"),
        amount::of(odd, "odd one", "odd ones")
    );
    answering.next(&words);
    Ok(())
}

/// The digest of a file, read with the rights of whoever asks.
fn digest(path: &Path) -> Result<Sha256, Failure> {
    let read = File::open(path).and_then(|file| {
        if file.metadata()?.is_file() {
            digest_of(&file)
        } else {
            Err(std::io::Error::other("it is no regular file"))
        }
    });
    read.map_err(|error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        Failure::new(exit, format!("cannot read {}: {error}", path.display()))
    })
}
