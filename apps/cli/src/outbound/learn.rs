//! From who talked to whom to entries for the policy.

use std::net::IpAddr;

use davy_net::outbound::{Row, propose, to_toml};
use serde_json::Value;

use crate::answer::Answering;
use crate::failure::Failure;
use crate::policy::raw;
use crate::{amount, document};

/// `davy outbound learn`.
pub(super) fn run(answering: &Answering, rows: &[Row<'_>], resolvers: &[IpAddr]) -> Result<(), Failure> {
    let proposed = propose(rows.iter().copied(), resolvers);
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
