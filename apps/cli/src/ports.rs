//! `davy ports`: who listens where, who may reach it, and who did.

use davy_model::{Mode, Place, Transport};
use davy_wire::{Command, ListeningPort, OpenTo, PortOwner, PortsState, PortsView, Query, Reply};

use crate::answer::Answering;
use crate::change::order;
use crate::client::{Client, unexpected};
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::verbs::{Ports, PortsVerb};
use crate::{amount, document};

/// Carries out the verb.
pub(crate) fn run(client: &Client, answering: &Answering, asked: &Ports) -> Result<(), Failure> {
    match &asked.verb {
        None => list(client, answering),
        Some(PortsVerb::Apply(asked)) => order(
            client,
            answering,
            Command::PortsApply { seconds: asked.confirm_within, unused: asked.unused, anyway: asked.anyway },
        ),
        Some(PortsVerb::Confirm) => order(client, answering, Command::PortsConfirm),
        Some(PortsVerb::Open) => order(client, answering, Command::PortsOpen),
    }
}

fn list(client: &Client, answering: &Answering) -> Result<(), Failure> {
    let view = match client.ask_one(Query::Ports)? {
        Reply::Ports(view) => view,
        other => return Err(unexpected(&other)),
    };
    if answering.json {
        return Ok(answering.document(&document::ports(&view))?);
    }
    answering.page(&page(&view, answering))?;
    if let Some(next) = next(&view) {
        answering.next(next);
    }
    Ok(())
}

/// The ports as a page.
pub(crate) fn page(view: &PortsView, answering: &Answering) -> Page {
    let mut page = Page::new();
    page.extend(verdict(view, answering).wrap(answering.width));
    for fault in &view.faults {
        let mut table = Table::new(0, &[Column::Left, Column::Fill]);
        table.row(vec![Line::in_role(Role::Alarm, "!"), Line::in_role(Role::Warning, fault)]);
        page.extend(table.lines(answering.width));
    }
    if view.ports.is_empty() {
        page.push(Line::of("Nobody listens on any port."));
        return page;
    }
    page.gap();
    use Column::{Fill, Left, Right};
    let mut table = Table::new(2, &[Right, Left, Left, Left, Left, Left, Fill]);
    table.headings(&["port", "from", "program", "user", "used", "last", "open to"]);
    for port in &view.ports {
        table.row(row(port, answering));
    }
    page.extend(table.lines(answering.width));
    page
}

fn verdict(view: &PortsView, answering: &Answering) -> Line {
    let entries = amount::of(view.entries.into(), "entry", "entries");
    let refused = match view.refused_packets {
        0 => String::new(),
        n => format!(" {} refused so far.", amount::of(n, "packet was", "packets were")),
    };
    let outdated = if view.outdated { " The policy has changed since: davy ports apply." } else { "" };
    match (view.state, view.mode) {
        (PortsState::Trial, _) => {
            let until = view.confirm_until.map(|until| answering.clock.moment(until)).unwrap_or_default();
            Line::in_role(Role::Warning, format!("On trial until {until}.")).and(
                Role::Plain,
                format!(" All is closed but {entries} of the policy. Keep it: davy ports confirm.{refused}"),
            )
        }
        (PortsState::Closed, _) => Line::in_role(Role::Good, "Closed.")
            .and(Role::Plain, format!(" All but {entries} of the policy.{refused}"))
            .and(Role::Warning, outdated),
        (PortsState::Suspended, _) => Line::in_role(Role::Warning, "Open for now.")
            .and(Role::Plain, " What was confirmed holds again when the policy enforces and Davy is armed."),
        (PortsState::Open, Mode::Enforce) => Line::in_role(Role::Warning, "Open.")
            .and(Role::Plain, " The policy enforces, which begins with davy ports apply."),
        (PortsState::Open, Mode::Observe) => Line::in_role(Role::Plain, "Open.").and(
            Role::Plain,
            format!(" What {entries} of the policy would refuse is told: davy events --kind inbound."),
        ),
        (PortsState::Open, Mode::Off) => {
            Line::in_role(Role::Plain, "Open. The policy does not speak of ports.")
        }
    }
}

/// A program with the service or the container that it is in.
fn program(owner: Option<&PortOwner>) -> Line {
    let name = owner.map_or("", |owner| owner.program.rsplit('/').next().unwrap_or_default());
    let line = Line::of(if name.is_empty() { "unknown" } else { name });
    match owner.and_then(|owner| owner.container.as_deref().or(owner.service.as_deref())) {
        Some(of) => line.and(Role::Quiet, format!(" {}", of.strip_suffix(".service").unwrap_or(of))),
        None => line,
    }
}

fn row(port: &ListeningPort, answering: &Answering) -> Vec<Line> {
    let transport = match port.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let reach = match port.reach {
        Place::Host => "this host",
        Place::Inside => "inside",
        Place::Outside => "all",
    };
    let first = port.owners.first();
    let mut program = program(first);
    let more = port.owners.len().saturating_sub(1);
    if more > 0 || port.more_owners {
        let over = if port.more_owners { "over " } else { "" };
        program =
            program.and(Role::Warning, format!(", and {over}{}", amount::of(more as u64, "other", "others")));
    }
    let mut used = match (port.connections, port.sources) {
        (0, _) => Line::in_role(Role::Quiet, "never"),
        (n, 0) => Line::of(amount::count(n)),
        (n, _) => {
            let more = if port.more_sources { "over " } else { "" };
            let sides = [(port.inside, "inside"), (port.outside, "outside")];
            let sides: Vec<String> = sides
                .iter()
                .filter(|(n, _)| *n > 0)
                .map(|(n, side)| format!("{more}{} {side}", amount::count(*n)))
                .collect();
            let sides = if sides.is_empty() { "this host".to_owned() } else { sides.join(", ") };
            Line::of(format!("{} from {sides}", amount::count(n)))
        }
    };
    if port.not_covered > 0 {
        used = used.and(Role::Warning, format!(", {} not allowed", amount::count(port.not_covered)));
    }
    let open_to = match &port.open_to {
        OpenTo::Unsaid => Line::in_role(Role::Quiet, "all: no policy"),
        OpenTo::Exempt if port.apart => Line::in_role(Role::Quiet, "its own network"),
        OpenTo::Exempt => Line::in_role(Role::Quiet, "this host alone"),
        OpenTo::Nobody => Line::in_role(Role::Warning, "nobody"),
        OpenTo::Some(to) => Line::in_role(Role::Good, to.join(", ")),
    };
    vec![
        Line::in_role(Role::Strong, format!("{transport} {}", port.port)),
        Line::of(reach),
        program,
        first.map_or_else(Line::new, |owner| Line::of(&owner.user)),
        used,
        port.last.map_or_else(Line::new, |last| Line::of(answering.clock.moment(last))),
        open_to,
    ]
}

fn next(view: &PortsView) -> Option<&'static str> {
    match (view.state, view.mode) {
        (PortsState::Open, Mode::Off) => {
            Some("[inbound] in the policy says who may reach which port; begin with mode = \"observe\"")
        }
        (PortsState::Open, Mode::Observe) if view.ports.iter().any(|port| port.not_covered > 0) => {
            Some("davy ports --json names the latest sources of each port, for entries of [[inbound.allow]]")
        }
        (PortsState::Open, Mode::Enforce) => {
            Some("sudo davy ports apply closes all but what the policy opens, for a trial")
        }
        _ => None,
    }
}
