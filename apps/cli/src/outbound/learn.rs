//! From who talked to whom to entries for the policy.

use davy_model::Timestamp;
use davy_net::outbound::{propose, to_toml};
use davy_wire::{Query, Reply};
use serde_json::Value;

use super::summary;
use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::policy::raw;
use crate::{amount, document};

/// The most rows that are looked at.
const ALL: u32 = 100_000;

/// `davy outbound learn`.
pub(super) fn run(client: &Client, answering: &Answering, since: Option<Timestamp>) -> Result<(), Failure> {
    let query = Query::Connections { since, limit: ALL, service: None, process: None, outside: None };
    let replies = client.ask_all(query)?.into_iter().map(|reply| match reply {
        Reply::Connection(entry) => Ok(entry),
        other => Err(unexpected(&other)),
    });
    let entries = replies.collect::<Result<Vec<_>, _>>()?;
    let rows = entries.iter().map(|entry| (&entry.connection, entry.user.as_deref()));
    let proposed = propose(rows, &summary(client)?.resolvers);
    if answering.json {
        return Ok(answering.document(&Value::Array(proposed.iter().map(document::raw).collect()))?);
    }
    raw(&to_toml(&proposed), false)?;
    let odd = proposed.iter().filter(|entry| !entry.odd.is_empty()).count();
    let words = format!(
        "{} proposed, {} left as comments",
        amount::of((proposed.len() - odd) as u64, "entry", "entries"),
        amount::of(odd as u64, "odd one", "odd ones")
    );
    answering.next(&words);
    Ok(())
}
