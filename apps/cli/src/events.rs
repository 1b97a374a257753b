//! `davy events`: one readable line for each thing the sensors saw.

use std::collections::HashMap;
use std::net::SocketAddr;

use davy_model::{
    CodeAct, CodeJudgement, CodeKind, CodeOutcome, CodeReason, Event, EventKind, Exit as ProcessExit,
    FileAct, FileChange, FlowAggregate, FlowOpen, FlowReading, FlowVolume, ImageKind, InboundRefusal,
    OutboundAttempt, OutboundProtocol, ProcessInfo, ProcessKey, ScanHit, ScanOccasion, Transport,
};
use davy_wire::{Query, Reply};
use serde_json::Value;

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::escape::command_line;
use crate::failure::Failure;
use crate::page::{Line, Page, Role};
use crate::{amount, document, verbs};

/// The kinds of event by their JSON names.
pub(crate) const KINDS: [&str; 23] = [
    "found",
    "fork",
    "exec",
    "renamed",
    "exit",
    "flow_open",
    "listen",
    "flow_chunk",
    "flow_read",
    "flow_close",
    "flows",
    "inbound",
    "name",
    "file",
    "code",
    "code_judged",
    "service_breach",
    "outbound",
    "lateral",
    "scanned",
    "memory",
    "gpu",
    "syscalls",
];

/// How many processes' names are remembered from the events that tell them.
const NAMES: usize = 4096;

/// Lists events, or follows them.
pub(crate) fn run(client: &Client, answering: &Answering, asked: &verbs::Events) -> Result<(), Failure> {
    let mut answers = client.ask(Query::Events {
        since: asked.since,
        limit: asked.limit,
        pid: asked.pid,
        kinds: asked.kinds.clone(),
        follow: asked.follow,
    })?;
    let mut names = Names::default();
    let mut documents = vec![];
    let mut none = true;
    while let Some(reply) = answers.next_reply()? {
        let Reply::Event(event) = reply else { return Err(unexpected(&reply)) };
        none = false;
        match (answering.json, asked.follow) {
            (true, true) => answering.document_line(&document::event(&event))?,
            (true, false) => documents.push(document::event(&event)),
            (false, _) => {
                names.look_up(client, &event);
                answering.page(&page(&event, &mut names, answering))?;
            }
        }
    }
    if answering.json && !asked.follow {
        answering.document(&Value::Array(documents))?;
    } else if none && !answering.json && !asked.follow {
        let mut page = Page::new();
        page.push(Line::of("No events."));
        answering.page(&page)?;
    }
    Ok(())
}

/// What processes call themselves, so that an event that names only a pid can be read. Bounded: when full it
/// forgets all and learns anew.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<ProcessKey, String>);

impl Names {
    fn learn(&mut self, event: &Event) {
        let (key, comm) = match (&event.kind, event.process) {
            (EventKind::Found(info) | EventKind::Exec(info), _) => (info.key, &info.comm),
            (EventKind::Fork { child, comm }, _) => (*child, comm),
            (EventKind::Renamed { comm }, Some(key)) => (key, comm),
            _ => return,
        };
        self.insert(key, comm.clone());
    }

    /// Asks for the name of the process that an event is about, where no event told it. One that is not known, or
    /// whose pid another process has now, is remembered as nameless and not asked for again.
    fn look_up(&mut self, client: &Client, event: &Event) {
        // A rename must be told under the old name, so it is learned only after.
        if !matches!(event.kind, EventKind::Renamed { .. }) {
            self.learn(event);
        }
        let Some(key) = event.process.filter(|k| !self.0.contains_key(k)) else { return };
        let comm = match client.ask_one(Query::Process { pid: key.pid }) {
            Ok(Reply::Process(info)) if info.key == key => info.comm,
            _ => String::new(),
        };
        self.insert(key, comm);
    }

    fn insert(&mut self, key: ProcessKey, comm: String) {
        if self.0.len() >= NAMES {
            self.0.clear();
        }
        self.0.insert(key, comm);
    }

    fn of(&self, key: &ProcessKey) -> String {
        match self.0.get(key) {
            Some(comm) if !comm.is_empty() => format!("{comm} {}", key.pid),
            _ => format!("pid {}", key.pid),
        }
    }
}

/// An event's line, which begins with its time.
pub(crate) fn page(event: &Event, names: &mut Names, answering: &Answering) -> Page {
    let mut page = Page::new();
    page.push(line(event, names, answering));
    page
}

fn line(event: &Event, names: &mut Names, answering: &Answering) -> Line {
    // A rename is told under the old name.
    let renamed = matches!(event.kind, EventKind::Renamed { .. });
    if !renamed {
        names.learn(event);
    }
    let key = match &event.kind {
        EventKind::Found(info) | EventKind::Exec(info) => Some(info.key),
        EventKind::Memory(shape) => Some(shape.process),
        EventKind::Gpu(gpu) => Some(gpu.process),
        _ => event.process,
    };
    let who = key.map(|k| names.of(&k)).unwrap_or_default();
    let (role, word, text) = told(&event.kind, names);
    if renamed {
        names.learn(event);
    }
    Line::in_role(Role::Quiet, answering.clock.fine_moment(event.time))
        .and(role, format!("  {word:<9}  "))
        .and(Role::Strong, format!("{who:<22}"))
        .and(Role::Plain, format!("  {text}"))
}

fn told(kind: &EventKind, names: &Names) -> (Role, &'static str, String) {
    let plain = Role::Plain;
    match kind {
        EventKind::Found(info) => (plain, "found", program(info)),
        EventKind::Exec(info) => (plain, "exec", program(info)),
        EventKind::Fork { child, comm } => (plain, "fork", format!("began {comm} {}", child.pid)),
        EventKind::Renamed { comm } => (plain, "renamed", format!("now calls itself {comm:?}")),
        EventKind::Exit(exit) => (Role::Quiet, "exit", ended(exit)),
        EventKind::FlowOpen(open) => (plain, "flow", opened(open)),
        EventKind::Listen(open) => (plain, "listen", format!("{} {}", transport(open.transport), open.local)),
        EventKind::FlowChunk(chunk) => {
            let way = match chunk.direction {
                davy_model::Direction::Sent => "sent",
                davy_model::Direction::Received => "received",
            };
            (plain, "message", format!("{way} {} on flow {}", amount::bytes(chunk.size.into()), chunk.flow.0))
        }
        EventKind::FlowRead(reading) => (plain, "read", read(reading)),
        EventKind::FlowClose(close) => {
            (Role::Quiet, "closed", format!("flow {}, {}", close.flow.0, volume(&close.volume)))
        }
        EventKind::Flows(flows) => (plain, "flows", counted(flows)),
        EventKind::Inbound(refusal) => (Role::Warning, "inbound", refused(refusal)),
        EventKind::Name(name) => (plain, "name", format!("{} is {}", name.name, name.address)),
        EventKind::File(change) => (plain, "file", changed(change)),
        EventKind::Code(act) => (Role::Warning, "code", acted(act, names)),
        EventKind::CodeJudged(judgement) => (Role::Warning, "judged", judged(judgement)),
        EventKind::ServiceBreach(breach) => {
            let started = if breach.refused { "was kept from starting" } else { "started" };
            let what = format!("{} {started} {}: {}", breach.service, breach.class.words(), breach.command);
            (Role::Warning, "service", what)
        }
        EventKind::Outbound(attempt) => (Role::Warning, "outbound", outbound(attempt)),
        EventKind::Lateral(moved) => (Role::Warning, "lateral", moved.words()),
        EventKind::Scanned(hit) => (Role::Alarm, "scanned", scanned(hit)),
        EventKind::Memory(m) => (
            plain,
            "memory",
            format!(
                "{} resident, largest mapping {}, {} of huge pages, {} scratchpads, {} executable without a file",
                amount::bytes(m.resident),
                amount::bytes(m.largest_anonymous),
                amount::bytes(m.hugetlb),
                m.scratchpads,
                amount::bytes(m.anonymous_executable)
            ),
        ),
        EventKind::Gpu(gpu) => {
            let busy = match gpu.busy_permille {
                Some(p) => format!("busy {:.1} %", f64::from(p) / 10.0),
                None => "open".to_owned(),
            };
            (plain, "gpu", format!("{}: {busy}, {} of its memory", gpu.device, amount::bytes(gpu.memory)))
        }
        EventKind::Syscalls { count, cpu_ns } => (
            plain,
            "syscalls",
            format!(
                "{} in {} of CPU time",
                amount::of(*count, "system call", "system calls"),
                amount::duration(*cpu_ns as f64 / 1e9)
            ),
        ),
    }
}

fn outbound(attempt: &OutboundAttempt) -> String {
    let did = if attempt.refused { "refused" } else { "let go" };
    let to = match attempt.protocol {
        OutboundProtocol::Raw => "a socket that is neither TCP nor UDP".to_owned(),
        protocol => format!("{protocol} to {}", SocketAddr::new(attempt.address, attempt.port)),
    };
    let names =
        if attempt.names.is_empty() { String::new() } else { format!(" ({})", attempt.names.join(", ")) };
    format!("{did}, {}: {to}{names}: {}", amount::of(attempt.count, "time", "times"), attempt.why)
}

fn scanned(hit: &ScanHit) -> String {
    let occasion = match hit.occasion {
        ScanOccasion::Executed => "executed",
        ScanOccasion::Written | ScanOccasion::WebWritten => "written",
        ScanOccasion::Scheduled => "found by the scheduled scan",
    };
    let rules: Vec<&str> = hit.matches.iter().map(|found| found.rule.as_str()).collect();
    format!("{} ({occasion}): {}", hit.path, rules.join(", "))
}

fn judged(judgement: &CodeJudgement) -> String {
    let outcome = match judgement.outcome {
        CodeOutcome::WouldDeny => "would be refused",
        CodeOutcome::Ran => "ran",
        CodeOutcome::Denied => "refused",
        CodeOutcome::Marked => "runs on its writer's word",
    };
    let what = match judgement.kind {
        CodeKind::Exec => "program",
        CodeKind::Library => "library",
        CodeKind::Script => "script",
        CodeKind::Memory => "written memory",
        CodeKind::Nameless => "code without a name",
        CodeKind::Module => "kernel module",
        CodeKind::Bpf => "BPF program",
        CodeKind::Trace => "tracing",
        CodeKind::Service => "program that a service has no use for",
    };
    let why = match judgement.reason {
        CodeReason::Unknown => "nobody vouches for it",
        CodeReason::Blocked => "it is on a block-list",
        CodeReason::OpenForWriting => "it is open for writing",
        CodeReason::Unreadable => "it cannot be read, or not in the time there is",
        CodeReason::Nameless => "it has no name",
        CodeReason::Unstable => "its file system may give anyone anything",
        CodeReason::WrittenMemory => "it is or was writable",
        CodeReason::NotJudged => "it was not judged before",
        CodeReason::WithoutFile => "it comes out of memory",
        CodeReason::NotAllowed => "this program is not one that may",
        CodeReason::InUse => "it is in use as code",
        CodeReason::Expired => "what vouched for it has ended",
        CodeReason::WrittenByTrusted => "trusted programs alone wrote it",
    };
    let path = judgement.path.as_deref().map(|path| format!(" {path}")).unwrap_or_default();
    format!("{what}{path} {outcome}: {why}")
}

fn program(info: &ProcessInfo) -> String {
    let mut text = if info.args.is_empty() { info.image.path.clone() } else { command_line(&info.args) };
    if info.args_cut {
        text.push_str(" …");
    }
    let named_so = info.args.first().is_some_and(|a| *a == info.image.path);
    match info.image.kind {
        ImageKind::Memfd => text.push_str("  [from memory, no file]"),
        ImageKind::Deleted => text.push_str("  [its file is deleted]"),
        ImageKind::File if !named_so && !info.args.is_empty() && !info.image.path.is_empty() => {
            text.push_str(&format!("  [{}]", info.image.path));
        }
        ImageKind::File => {}
    }
    for (name, value) in &info.env {
        text.push_str(&format!("  {name}={value}"));
    }
    text.push_str(&format!("  uid {}", info.creds.uid));
    if info.creds.euid != info.creds.uid {
        text.push_str(&format!(" as {}", info.creds.euid));
    }
    if let Some(container) = &info.container {
        text.push_str(&format!("  container {container}"));
    }
    text
}

fn ended(exit: &ProcessExit) -> String {
    let cpu = amount::duration(exit.cpu_ns as f64 / 1e9);
    match (exit.code, exit.signal) {
        (_, Some(signal)) => format!("by {}, used {cpu} of CPU", signal_name(signal)),
        (Some(code), None) => format!("with {code}, used {cpu} of CPU"),
        (None, None) => format!("used {cpu} of CPU"),
    }
}

/// A signal by its name (signal(7), as numbered on x86-64 and arm64).
fn signal_name(signal: u8) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match usize::from(signal).checked_sub(1).and_then(|n| NAMES.get(n)) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    }
}

fn opened(open: &FlowOpen) -> String {
    let kind = transport(open.transport);
    let near: &SocketAddr = &open.local;
    if open.accepted {
        format!("{kind} from {} to {near}, flow {}", open.remote, open.flow.0)
    } else {
        format!("{kind} to {} from {near}, flow {}", open.remote, open.flow.0)
    }
}

fn counted(flows: &FlowAggregate) -> String {
    let how_many = amount::of(flows.flows, "more flow", "more flows");
    let (kind, volume) = (transport(flows.transport), volume(&flows.volume));
    if flows.accepted {
        format!("{how_many} accepted at {kind} port {}, {volume}", flows.local.port())
    } else {
        format!("{how_many} to {kind} {}, {volume}", flows.remote)
    }
}

fn refused(refusal: &InboundRefusal) -> String {
    let what = if refusal.refused { "refused" } else { "would have refused" };
    format!("{what} {} at {} port {}", refusal.from, transport(refusal.transport), refusal.port)
}

/// What went over a flow, as `sent 1.2 KiB, received 88 KiB`.
pub(crate) fn volume(volume: &FlowVolume) -> String {
    format!("sent {}, received {}", amount::bytes(volume.sent_bytes), amount::bytes(volume.received_bytes))
}

fn changed(change: &FileChange) -> String {
    let did = match &change.act {
        FileAct::Written => "wrote".to_owned(),
        FileAct::Renamed { from: Some(from) } => format!("renamed {from} to"),
        FileAct::Renamed { from: None } => "gave a file the name".to_owned(),
        FileAct::Deleted => "deleted".to_owned(),
        FileAct::AttributesChanged => "changed owner or mode of".to_owned(),
    };
    let mut marks = vec![];
    if let Some(place) = change.place {
        marks.push(format!("runs or lets in later: {}", document::raw(&place).as_str().unwrap_or_default()));
    }
    if change.executable {
        marks.push("executable".to_owned());
    }
    if change.code {
        marks.push("a program or script".to_owned());
    }
    let marks = if marks.is_empty() { String::new() } else { format!("  [{}]", marks.join(", ")) };
    format!("{did} {}{marks}", change.path)
}

fn acted(act: &CodeAct, names: &Names) -> String {
    let access = |write: bool| if write { "for writing" } else { "for reading" };
    match act {
        CodeAct::NamelessExec { memfd: true } => "executed a program from memory".to_owned(),
        CodeAct::NamelessExec { memfd: false } => "executed a program whose file is deleted".to_owned(),
        CodeAct::WrittenThenExecutable { bytes } => {
            format!("made {} of written memory executable", amount::bytes(*bytes))
        }
        CodeAct::Trace { target, write } => {
            format!("reached into {} {}", names.of(target), access(*write))
        }
        CodeAct::ModuleLoad { name } => format!("loaded the kernel module {name}"),
        CodeAct::BpfLoad { name, program_type } => {
            format!("loaded the BPF program {name:?} of type {program_type}")
        }
        CodeAct::DeviceOpen { major, minor, write } => {
            format!("opened the device {major}:{minor} {}", access(*write))
        }
        CodeAct::Hidden { how } => format!("is hidden from ps and top: {how}"),
        CodeAct::HugePagesReserved { before, now } => {
            format!("huge pages reserved: {before} before, {now} now")
        }
        CodeAct::Signal { target, signal } => {
            format!("sent {} to {}", signal_name(*signal), names.of(target))
        }
    }
}

/// What the first bytes of a flow say.
fn read(reading: &FlowReading) -> String {
    let mut said = Vec::new();
    if reading.tls {
        said.push("speaks TLS".to_owned());
    }
    if let Some(name) = &reading.name {
        said.push(format!("with {name}"));
    }
    if let Some(request) = &reading.request {
        said.push(format!("asks {request}"));
    }
    if let Some(dialect) = reading.dialogue.dialect() {
        said.push(format!("speaks {}", dialect.name()));
    }
    if said.is_empty() {
        said.push("says nothing that is known".to_owned());
    }
    format!("flow {} {}", reading.flow.0, said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_names() {
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(19), "SIGSTOP");
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!((signal_name(0), signal_name(34)), ("signal 0".to_owned(), "signal 34".to_owned()));
    }

    #[test]
    fn names_are_bounded() {
        let mut names = Names::default();
        for pid in 0..10_000 {
            let child = ProcessKey { pid, start_ticks: 1, boot: 1 };
            let kind = EventKind::Fork { child, comm: "x".to_owned() };
            names.learn(&Event { time: davy_model::Timestamp(0), process: None, kind });
        }
        assert!(names.0.len() <= NAMES);
    }
}
