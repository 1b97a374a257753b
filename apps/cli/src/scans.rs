//! `davy scans`: who looks for open ports, or may, a line each.

use davy_model::ScanSource;
use davy_wire::{Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{amount, document, verbs};

/// Lists the sources, those against whom most speaks first.
pub(crate) fn run(client: &Client, answering: &Answering, asked: &verbs::Scans) -> Result<(), Failure> {
    let replies = client.ask_all(Query::Scans { limit: asked.limit })?;
    let sources = replies.into_iter().map(|reply| match reply {
        Reply::ScanSource(source) => Ok(source),
        other => Err(unexpected(&other)),
    });
    let sources: Vec<ScanSource> = sources.collect::<Result<_, _>>()?;
    if answering.json {
        return Ok(answering.document(&Value::Array(sources.iter().map(document::scan_source).collect()))?);
    }
    answering.page(&page(&sources, answering))?;
    if sources.iter().any(|source| source.told) {
        answering.next("davy findings tells each scan, and davy explain f12 why it is one");
    }
    Ok(())
}

/// The sources for people.
pub(crate) fn page(sources: &[ScanSource], answering: &Answering) -> Page {
    let mut page = Page::new();
    if sources.is_empty() {
        page.push(Line::of("Nobody looks for open ports."));
        return page;
    }
    use Column::{Fill, Left, Right};
    let mut table = Table::new(2, &[Left, Left, Right, Right, Right, Left, Left, Fill]);
    table.headings(&["source", "last", "score", "ports", "failed", "address", "is", "by"]);
    for source in sources {
        let (role, is) = if source.told { (Role::Alarm, "a scan") } else { (Role::Quiet, "watched") };
        let mut by = Line::of(source.kinds.words());
        if let Some(tool) = &source.tool {
            by = by.and(Role::Quiet, format!(", like {tool}"));
        }
        table.row(vec![
            Line::in_role(Role::Strong, source.source.to_string()),
            Line::of(answering.clock.moment(source.last)),
            // Of what a scan needs; more than that is no more of a scan.
            Line::of(format!("{:.0} of {:.0}", source.bits.max(0.0), source.needed)),
            Line::of(amount::count(source.ports.into())),
            Line::of(amount::count(source.failed.into())),
            Line::in_role(Role::Quiet, if source.proven { "its own" } else { "not proven" }),
            Line::in_role(role, is),
            by,
        ]);
    }
    page.extend(table.lines(answering.width));
    page
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_model::{PortProbeKind, ProbeKinds};

    use super::*;
    use crate::canned;
    use crate::clock::Clock;
    use crate::golden_file::golden;

    fn sources() -> Vec<ScanSource> {
        let one = |source: &str, bits, told, proven, ports, kinds: &[PortProbeKind], tool: Option<&str>| {
            ScanSource {
                source: source.parse().unwrap(),
                bits,
                needed: 20.0,
                told,
                proven,
                ports,
                failed: ports - 1,
                kinds: ProbeKinds::from(kinds.to_vec()),
                tool: tool.map(str::to_owned),
                first: canned::BEGAN,
                last: canned::BEGAN.plus_secs(12.5),
            }
        };
        use PortProbeKind::{Fin, Syn, Udp};
        vec![
            one("198.51.100.7", 312.5, true, false, 1000, &[Syn], Some("nmap")),
            one("10.0.3.9", 44.0, true, true, 120, &[Syn, Udp], None),
            one("2001:db8:7::/56", 12.25, false, false, 9, &[Syn], None),
            one("203.0.113.77", 10.0, false, false, 1, &[Fin], None),
        ]
    }

    #[test]
    fn is_told_as_a_table_and_as_json() {
        let answering = Answering::for_tests(Clock::standing(canned::BEGAN.plus_secs(60.0)), 110);
        golden("scans.txt", &page(&sources(), &answering).print(false));
        let documents = Value::Array(sources().iter().map(document::scan_source).collect());
        golden("scans.json", &document::pretty(&documents));
        assert_eq!(page(&[], &answering).print(false), "Nobody looks for open ports.\n");
    }
}
