//! `davy status`: one sentence, the protections, what is lost, and what is missing.

use davy_model::{Mode, Probe, ProtectionStatus, Tier};
use davy_wire::{AgentStatus, Query, Reply, Tally, WorkerStatus};

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{amount, document, proof, words};

/// Asks for the state and shows it.
pub(crate) fn run(client: &Client, answering: &Answering) -> Result<(), Failure> {
    let status = match client.ask_one(Query::Status)? {
        Reply::Status(status) => status,
        other => return Err(unexpected(&other)),
    };
    if answering.json {
        return Ok(answering.document(&document::status(&status))?);
    }
    Ok(answering.page(&page(&status, answering))?)
}

/// The state as a page.
pub(crate) fn page(status: &AgentStatus, answering: &Answering) -> Page {
    let (width, clock) = (answering.width, &answering.clock);
    let mut page = Page::new();
    page.extend(verdict(status, clock).wrap(width));
    for alarm in alarms(status, clock) {
        let mut table = Table::new(0, &[Column::Left, Column::Fill]);
        table.row(vec![Line::in_role(Role::Alarm, "!"), Line::in_role(Role::Warning, alarm)]);
        page.extend(table.lines(width));
    }
    page.extend(protections(&status.protections).lines(width));
    let missing: Vec<&Probe> = status.probes.iter().filter(|p| !p.works).collect();
    let important = status.tier == Tier::Poll
        || status.protections.iter().any(|p| p.mode != Mode::Off && p.tier.is_none());
    if !missing.is_empty() && (important || answering.verbose > 0) {
        page.gap();
        page.push(Line::in_role(Role::Strong, "Missing here"));
        page.extend(probes(&missing).lines(width));
    }
    if answering.verbose > 0 {
        let works: Vec<&Probe> = status.probes.iter().filter(|p| p.works).collect();
        page.gap();
        page.push(Line::in_role(Role::Strong, "Works here"));
        page.extend(probes(&works).lines(width));
    }
    page.gap();
    page.extend(facts(status, clock).lines(width));
    if !answering.quiet {
        page.gap();
        page.extend(look_further(status, answering.verbose).wrap(width));
    }
    page
}

/// The one sentence to read at three in the morning.
fn verdict(status: &AgentStatus, clock: &Clock) -> Line {
    let on = |p: &&ProtectionStatus| p.mode != Mode::Off && p.tier.is_some();
    let all = status.protections.len();
    let enforcing = status.protections.iter().filter(on).filter(|p| p.mode == Mode::Enforce).count();
    let observing = status.protections.iter().filter(on).filter(|p| p.mode == Mode::Observe).count();
    let off = status.protections.iter().filter(|p| p.mode == Mode::Off).count();
    let unable = all - enforcing - observing - off;
    if let Some(until) = status.disarmed_until.filter(|t| *t > clock.now()) {
        let left = amount::duration(until.secs_since(clock.now()));
        return Line::in_role(Role::Alarm, format!("DISARMED until {}, {left} more.", clock.moment(until)))
            .and(Role::Strong, " Davy watches and does not act. End it now: davy disarm --end");
    }
    let mut rest = vec![];
    if enforcing > 0 && observing > 0 {
        rest.push(format!("{observing} {}", if observing == 1 { "observes" } else { "observe" }));
    }
    if off > 0 {
        rest.push(format!("{off} {} off", if off == 1 { "is" } else { "are" }));
    }
    if unable > 0 {
        rest.push(format!("{unable} cannot work here"));
    }
    let rest = rest.iter().map(|r| format!(", {r}")).collect::<String>();
    let s = if all == 1 { "protection" } else { "protections" };
    if let Some(proof) = proof::broken(status).filter(|_| enforcing > 0) {
        let Tally { held, of, .. } = proof.tally;
        let verb = if enforcing == 1 { "is" } else { "are" };
        Line::in_role(Role::Alarm, "NOT PROVEN.").and(
            Role::Strong,
            format!(
                " Davy's own canary was not stopped at {}: {held} of {of} held. {enforcing} of {all} {s} {verb} to \
                 enforce{rest}.",
                clock.moment(proof.time)
            ),
        )
    } else if enforcing > 0 {
        let verb = if enforcing == 1 { "enforces" } else { "enforce" };
        Line::in_role(Role::Good, "Protected.").and(
            Role::Strong,
            format!(" {enforcing} of {all} {s} {verb}{rest}.{}", proof::sentences(status, clock)),
        )
    } else if observing > 0 {
        let verb = if observing == 1 { "observes" } else { "observe" };
        Line::in_role(Role::Warning, "Watching.").and(
            Role::Strong,
            format!(
                " {observing} of {all} {s} {verb}{rest}; Davy tells and does not act.{}",
                proof::sentences(status, clock)
            ),
        )
    } else {
        Line::in_role(Role::Alarm, "NOT PROTECTED.")
            .and(Role::Strong, format!(" None of {all} {s} works{rest}."))
    }
}

/// What needs someone's attention, a sentence each.
fn alarms(status: &AgentStatus, clock: &Clock) -> Vec<String> {
    let mut alarms = Vec::new();
    if let Some(why) = &status.store.temporary {
        alarms.push(format!(
            "History and journal lie in memory and do not outlive a reboot or a stop, and no file is taken into quarantine: \
             {why}. Make it writable and start the agent again"
        ));
    }
    alarms.extend(status.isolated.iter().map(|isolated| {
        format!(
            "{} is isolated from the network until {} (davy undo a{} ends it; davy actions says what stays open)",
            isolated.cgroup.as_deref().unwrap_or("This host"),
            clock.moment(isolated.until),
            isolated.action.0
        )
    }));
    if status.banned > 0 {
        let banned =
            amount::of(status.banned, "address or network is banned", "addresses and networks are banned");
        alarms.push(format!("{banned} (davy bans says who and until when)"));
    }
    alarms.extend(status.fallen_back.iter().map(|f| format!("Fell back to observe by itself: {f}")));
    alarms.extend(proof::alarms(status));
    for worker in &status.workers {
        if let Some(fault) = &worker.fault {
            let so =
                if worker.name == "scan" { "files are not scanned" } else { "what flows say is not read" };
            alarms.push(format!(
                "The {} worker does not run, so {so}; another is being started: {fault}",
                worker.name
            ));
        }
    }
    if let Some(why) = &status.store.failing {
        alarms.push(format!("The store cannot be written: {why}. Protection goes on, history is lost"));
    }
    if !status.policy.refused.is_empty() {
        alarms.push(format!(
            "A newer policy was refused, the one before stays in force: {}",
            status.policy.refused.lines().next().unwrap_or_default()
        ));
    }
    let lost: u64 = status.drops.iter().map(|d| d.count).sum();
    if lost > 0 {
        let kinds: Vec<String> = status
            .drops
            .iter()
            .filter(|d| d.count > 0)
            .map(|d| format!("{} {}", amount::count(d.count), d.kind))
            .collect();
        alarms.push(format!(
            "Lost {} since the start ({})",
            amount::of(lost, "event", "events"),
            kinds.join(", ")
        ));
    }
    if status.version != env!("CARGO_PKG_VERSION") {
        alarms.push(format!(
            "The agent is version {}, this davy is {}: restart the agent",
            status.version,
            env!("CARGO_PKG_VERSION")
        ));
    }
    alarms
}

fn protections(all: &[ProtectionStatus]) -> Table {
    let mut table = Table::new(2, &[Column::Left, Column::Left, Column::Left, Column::Left, Column::Fill]);
    table.headings(&["protection", "mode", "tier", "proven", "how"]);
    for p in all {
        let (role, mode) = words::mode(p.mode);
        let tier = match p.tier {
            Some(tier) => Line::of(words::tier(tier)),
            None if p.mode == Mode::Off => Line::in_role(Role::Quiet, "-"),
            None => Line::in_role(Role::Alarm, "none"),
        };
        let proven = match p.proven {
            Some(true) => Line::in_role(Role::Good, "yes"),
            Some(false) => Line::in_role(Role::Alarm, "NO"),
            None => Line::in_role(Role::Quiet, "-"),
        };
        table.row(vec![
            Line::in_role(Role::Strong, &p.name),
            Line::in_role(role, mode),
            tier,
            proven,
            Line::of(&p.note),
        ]);
    }
    table
}

/// Capabilities with what was found, those of one reason together.
fn probes(probes: &[&Probe]) -> Table {
    let mut reasons: Vec<(&str, Vec<&str>)> = vec![];
    for p in probes {
        let name = words::capability(p.capability);
        match reasons.iter_mut().find(|(reason, _)| *reason == p.reason) {
            Some((_, names)) => names.push(name),
            None => reasons.push((&p.reason, vec![name])),
        }
    }
    let mut table = Table::new(2, &[Column::Left, Column::Fill]);
    for (reason, names) in reasons {
        // Names of one reason stand below each other, so that the column stays narrow.
        for (n, name) in names.iter().enumerate() {
            let said = if n == 0 { Line::of(reason) } else { Line::in_role(Role::Quiet, "the same") };
            table.row(vec![Line::of(name), said]);
        }
    }
    table
}

/// The agent, its policy, its store and what goes on, a line each.
fn facts(status: &AgentStatus, clock: &Clock) -> Table {
    let mut table = Table::new(2, &[Column::Left, Column::Fill]);
    let mut fact = |name: &str, text: String| {
        table.row(vec![Line::in_role(Role::Quiet, name), Line::of(text)]);
    };
    let running = &status.running_incidents;
    if !running.is_empty() {
        let ids: Vec<String> = running.iter().map(|i| i.0.to_string()).collect();
        fact(
            "running",
            format!("{} {}", if ids.len() == 1 { "incident" } else { "incidents" }, ids.join(", ")),
        );
    }
    fact(
        "host",
        format!("{}, kernel {}, best tier here {}", status.host, status.kernel, words::tier(status.tier)),
    );
    let up = clock.now().secs_since(status.started);
    let share = if up >= 1.0 { status.cpu_ns as f64 / 1e9 / up } else { 0.0 };
    fact(
        "agent",
        format!(
            "{} since {}, pid {}, {} of memory, {} of one CPU, {} events, {}, {}",
            status.version,
            clock.moment(status.started),
            status.pid,
            amount::bytes(status.resident),
            amount::percent(share),
            amount::count(status.events),
            amount::of(status.processes, "process", "processes"),
            amount::of(status.flows, "flow", "flows")
        ),
    );
    for worker in &status.workers {
        fact("worker", self::worker(worker));
    }
    let policy = &status.policy;
    fact(
        "policy",
        format!(
            "{}, for {}, read {}",
            policy.path.as_deref().unwrap_or("built in"),
            if policy.scope == "host" { "the whole host" } else { &policy.scope },
            clock.moment(policy.loaded)
        ),
    );
    let store = &status.store;
    let lost = if store.lost > 0 { format!(", {} lost", amount::count(store.lost)) } else { String::new() };
    fact(
        "store",
        format!(
            "{}{}, {} of {}, {}{lost}",
            store.path,
            if store.temporary.is_some() { " (in memory)" } else { "" },
            amount::bytes(store.bytes),
            amount::bytes(store.max_bytes),
            amount::of(store.events, "event", "events")
        ),
    );
    if let Some(address) = &status.dashboard {
        fact("dashboard", address.clone());
    }
    table
}

/// A worker, and what it has given up.
fn worker(worker: &WorkerStatus) -> String {
    let mut text = worker.name.clone();
    match worker.pid {
        Some(pid) => text.push_str(&format!(", pid {pid}")),
        None => text.push_str(", does not run"),
    }
    if let Some(confinement) = worker.confinement.as_ref().filter(|_| worker.pid.is_some()) {
        for (holds, good, bad) in [
            (confinement.unprivileged, "without privileges", "WITH privileges"),
            (confinement.files_closed, "can open no file", "CAN open files"),
            (confinement.calls_filtered, "few system calls", "ANY system call"),
        ] {
            text.push_str(", ");
            text.push_str(if holds { good } else { bad });
        }
        text.push_str(&format!(", at most {} of memory", amount::bytes(confinement.memory)));
    }
    if worker.restarts > 0 {
        text.push_str(&format!(", started again {}", amount::of(worker.restarts, "time", "times")));
    }
    text
}

fn look_further(status: &AgentStatus, verbose: u8) -> Line {
    let mut line = Line::in_role(Role::Quiet, "Look further: ");
    let mut first = true;
    let mut offer = |command: String| {
        let gap = if std::mem::take(&mut first) { "" } else { "   " };
        line = std::mem::take(&mut line).and(Role::Plain, gap).and(Role::Hint, command);
    };
    match status.running_incidents.iter().max() {
        Some(id) => offer(format!("davy incidents {}", id.0)),
        None => offer("davy incidents".to_owned()),
    }
    offer("davy top".to_owned());
    offer("davy drill".to_owned());
    if verbose == 0 && status.probes.iter().any(|p| !p.works) {
        offer("davy status -v".to_owned());
    }
    line
}
