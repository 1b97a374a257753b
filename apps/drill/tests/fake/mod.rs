//! An agent that is none. It finds acts among this process's children by what /proc shows of them, and stops them,
//! or claims to.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use davy_model::{
    Action, ActionId, ActionRecord, ActionState, Capability, Destination, Evidence, FileId, Finding,
    FindingId, FindingKind, Incident, IncidentId, IncidentState, Mode, Probe, ProcessKey, ProtectionStatus,
    Severity, Signal, Tier, Timestamp,
};
use davy_wire::{
    AgentStatus, Command, ErrorCode, PolicySummary, Query, Reply, Request, RequestBody, StoreStatus, Tally,
};
use rustix::process::{Pid, kill_process};

/// How this agent behaves.
#[derive(Clone, Copy, Default)]
pub(crate) struct Manners {
    /// Finds nothing.
    pub(crate) silent: bool,
    /// Writes into the journal what it does not do.
    pub(crate) liar: bool,
    /// Gives a file back with another mode.
    pub(crate) careless: bool,
    /// A capability that is missing.
    pub(crate) lacks: Option<Capability>,
    /// Refuses every connection to a pool but in a rehearsal, where it only observes.
    pub(crate) refuses_connections: bool,
    /// The mode of every protection.
    pub(crate) mode: Mode,
    /// Says that the kernel refuses what reaches for it.
    pub(crate) lsm: bool,
    /// CPU time an act must have used to be found, in milliseconds.
    pub(crate) cpu_ms: u64,
}

/// A running fake.
pub(crate) struct Fake {
    folder: tempfile::TempDir,
    told: Arc<Mutex<Option<Tally>>>,
}

struct State {
    manners: Manners,
    attic: PathBuf,
    rehearsed: Option<String>,
    journal: Vec<ActionRecord>,
    told: Arc<Mutex<Option<Tally>>>,
}

impl Fake {
    pub(crate) fn start(manners: Manners) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let attic = folder.path().join("attic");
        let told = Arc::default();
        let journal = Vec::new();
        let state =
            Arc::new(Mutex::new(State { manners, attic, rehearsed: None, journal, told: Arc::clone(&told) }));
        for name in ["read.sock", "control.sock"] {
            let listener = UnixListener::bind(folder.path().join(name)).unwrap();
            let state = Arc::clone(&state);
            // Ends with the test process.
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let _ = serve(&stream.unwrap(), &mut state.lock().unwrap());
                }
            });
        }
        Self { folder, told }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it was last told of a drill.
    pub(crate) fn told(&self) -> Option<Tally> {
        self.told.lock().unwrap().clone()
    }
}

fn serve(stream: &UnixStream, state: &mut State) -> Option<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    let request: Request = serde_json::from_str(&line).ok()?;
    let mut replies = match request.body {
        RequestBody::Query(query) => state.query(query),
        RequestBody::Command(command) => vec![state.command(command)],
    };
    replies.push(Reply::End);
    let mut writer = stream;
    for reply in replies {
        writeln!(writer, "{}", serde_json::to_string(&reply).unwrap()).ok()?;
    }
    Some(())
}

impl State {
    fn query(&mut self, query: Query) -> Vec<Reply> {
        match query {
            Query::Status => vec![Reply::Status(status(self.manners))],
            Query::Findings { .. } => {
                self.act_on();
                self.findings().into_iter().map(Reply::Finding).collect()
            }
            Query::Incidents { .. } => self.incident().map(Reply::Incident).into_iter().collect(),
            Query::Incident { id: IncidentId(1) } => {
                self.incident().map(Reply::Incident).into_iter().collect()
            }
            Query::Actions { .. } => self.journal.iter().cloned().map(Reply::Action).collect(),
            _ => vec![failed("not known here")],
        }
    }

    fn command(&mut self, command: Command) -> Reply {
        match command {
            Command::Rehearse { cgroup, seconds, .. } => {
                self.rehearsed = (seconds > 0).then_some(cgroup);
                Reply::Done("rehearsing".to_owned())
            }
            Command::Act { .. } => {
                let Some(act) = acts().first().copied() else { return failed("no act") };
                self.signal(act, rustix::process::Signal::STOP);
                self.note(Action::Freeze { root: key(act), tree: vec![key(act)] });
                Reply::Done("frozen".to_owned())
            }
            Command::UndoIncident { .. } => {
                for act in acts() {
                    self.signal(act, rustix::process::Signal::CONT);
                }
                Reply::Done("undone".to_owned())
            }
            Command::Isolate { cgroup, keep, seconds, .. } => {
                self.note(Action::Isolate { cgroup, keep, seconds });
                Reply::Done("isolated".to_owned())
            }
            Command::UndoAction { id } => self.undo(id),
            Command::Drilled(tally) => {
                *self.told.lock().unwrap() = Some(tally);
                Reply::Done("noted".to_owned())
            }
            _ => failed("not known here"),
        }
    }

    /// What enforcing in the rehearsed cgroup does to the first act there that is seen twice.
    fn act_on(&mut self) {
        let rehearsed = self.rehearsed.clone().filter(|_| !self.manners.refuses_connections);
        let Some(cgroup) = rehearsed else { return };
        let Some(act) = self.found().first().map(|(pid, _)| *pid) else { return };
        if !self.journal.is_empty() || !cgroup_of(act).starts_with(&format!("{cgroup}/")) {
            return;
        }
        let path = fs::read_link(format!("/proc/{act}/exe")).unwrap();
        let tree = || (key(act), vec![key(act)]);
        let (root, all) = tree();
        self.signal(act, rustix::process::Signal::STOP);
        self.note(Action::Freeze { root, tree: all });
        if !self.manners.liar {
            fs::create_dir_all(&self.attic).unwrap();
            fs::copy(&path, self.attic.join("kept")).unwrap();
            fs::remove_file(&path).unwrap();
            let path = path.to_string_lossy().into_owned();
            self.note(Action::Quarantine { path, file: FileId::default(), process: Some(key(act)) });
        }
        let destination = Destination { address: "198.51.100.7".parse().unwrap(), port: 3333 };
        self.note(Action::Cut { destination, cgroup: None, seconds: 60 });
        let (root, tree) = tree();
        self.signal(act, rustix::process::Signal::KILL);
        self.note(Action::Kill { root, tree });
    }

    fn undo(&mut self, id: ActionId) -> Reply {
        let Some(record) = self.journal.iter_mut().find(|r| r.id == id) else {
            return failed("no such action");
        };
        if let Action::Quarantine { path, .. } = &record.action {
            let path = Path::new(path);
            fs::copy(self.attic.join("kept"), path).unwrap();
            if self.manners.careless {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
            }
        }
        record.state = ActionState::Undone;
        Reply::Done("undone".to_owned())
    }

    fn signal(&self, pid: u32, signal: rustix::process::Signal) {
        if !self.manners.liar {
            let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal);
        }
    }

    fn note(&mut self, action: Action) {
        self.journal.push(ActionRecord {
            id: ActionId(self.journal.len() as u64 + 1),
            time: now(),
            changed: now(),
            incident: Some(IncidentId(1)),
            finding: Some(FindingId(1)),
            undoable: !matches!(action, Action::Kill { .. }),
            action,
            state: ActionState::Done,
            note: String::new(),
            undo: String::new(),
        });
    }

    /// Acts that show, by what /proc tells, and as what.
    fn found(&self) -> Vec<(u32, Signal)> {
        if self.manners.refuses_connections && self.rehearsed.is_none() {
            return Vec::new();
        }
        let found =
            acts().into_iter().filter(|_| !self.manners.silent).filter(|p| cpu_ms(*p) >= self.manners.cpu_ms);
        found.filter_map(culprit).filter_map(|pid| Some((pid, shows(pid)?))).collect()
    }

    fn findings(&self) -> Vec<Finding> {
        // Who was killed a moment ago is still found.
        let gone = self.journal.iter().filter_map(|r| match &r.action {
            Action::Kill { root, .. } => Some((root.pid, Signal::RoundingMode)),
            _ => None,
        });
        self.found().into_iter().chain(gone).map(|(pid, signal)| finding(pid, signal)).collect()
    }

    fn incident(&self) -> Option<Incident> {
        let findings = self.findings();
        (!findings.is_empty()).then(|| Incident {
            id: IncidentId(1),
            state: IncidentState::Running,
            severity: Severity::High,
            title: "mining".to_owned(),
            first: now(),
            last: now(),
            detected: now(),
            stopped: None,
            timeline: Vec::new(),
            tree: Vec::new(),
            findings,
            actions: Vec::new(),
            techniques: Vec::new(),
        })
    }
}

/// This process's children that play an act, beyond its first step.
pub(crate) fn acts() -> Vec<u32> {
    acts_of(std::process::id())
}

/// The same of another process.
pub(crate) fn acts_of(own: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(own))
        .filter(|pid| {
            let words = cmdline(*pid);
            let act = words.iter().skip_while(|w| *w != "drill-act").nth(1).map(String::as_str);
            act.is_some_and(|act| act != "enter" && act != "stage")
        })
        .collect()
}

/// Who is found in an act's place: of a campaign, the shell that does it.
fn culprit(act: u32) -> Option<u32> {
    if !cmdline(act).iter().any(|word| word == "campaign") {
        return Some(act);
    }
    let mut pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.find(|pid| parent(*pid) == Some(act))
}

fn shows(pid: u32) -> Option<Signal> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let words = cmdline(pid);
    let has = |word: &str| words.iter().any(|w| w == word);
    if exe.to_string_lossy().ends_with("(deleted)") && has("compute") {
        Some(Signal::Fileless)
    } else if comm.trim() == "kworker/0:1" && words.first().is_some_and(|w| w == "[kworker/0:1]") {
        Some(Signal::Masquerade)
    } else if has("compute") {
        Some(Signal::RoundingMode)
    } else if has("persistence") && arranged(&exe) {
        Some(Signal::Persistence)
    } else if has("signal") || words.iter().any(|w| w.contains("pkill -0")) {
        Some(Signal::Campaign)
    } else if has("stratum") {
        Some(Signal::Stratum)
    } else if has("pool-tls") {
        Some(Signal::PoolShape)
    } else if has("pool-name") {
        Some(Signal::PoolList)
    } else {
        None
    }
}

/// Whether what makes a program start again was written beside it.
fn arranged(exe: &Path) -> bool {
    let home = exe.parent().unwrap();
    [".config/systemd/user/davy-drill.service", ".ssh/authorized_keys", ".bashrc"]
        .iter()
        .all(|name| fs::metadata(home.join(name)).is_ok_and(|m| m.len() > 0))
}

fn cmdline(pid: u32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    text.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect()
}

fn stat(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(field)?.parse().ok()
}

/// Whether a process runs; one that ended and waits to be reaped does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn parent(pid: u32) -> Option<u32> {
    u32::try_from(stat(pid, 1)?).ok()
}

fn cpu_ms(pid: u32) -> u64 {
    (stat(pid, 11).unwrap_or(0) + stat(pid, 12).unwrap_or(0)) * 10
}

fn cgroup_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or_default().to_owned()
}

/// Where cgroup v2 is mounted.
pub(crate) fn cgroup2() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mounts").ok()?;
    let line = text.lines().find(|l| l.split(' ').nth(2) == Some("cgroup2"))?;
    line.split(' ').nth(1).map(PathBuf::from)
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_ticks: 0, boot: 0 }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_micros()).unwrap())
}

fn failed(message: &str) -> Reply {
    Reply::Error { code: ErrorCode::Failed, message: message.to_owned() }
}

fn finding(pid: u32, signal: Signal) -> Finding {
    let evidence = Evidence {
        time: now(),
        signal,
        weight: 10.0,
        text: "seen in /proc".to_owned(),
        numbers: Default::default(),
        process: Some(key(pid)),
        flow: None,
        technique: None,
    };
    let kind = match signal {
        Signal::Persistence => FindingKind::Persistence,
        Signal::Campaign if cmdline(pid).iter().any(|w| w == "signal") => FindingKind::Tampering,
        Signal::Campaign => FindingKind::Campaign,
        _ => FindingKind::Mining,
    };
    Finding {
        id: FindingId(1),
        kind,
        first: now(),
        time: now(),
        severity: Severity::High,
        confidence: 0.99,
        subject: Some(key(pid)),
        processes: vec![key(pid)],
        summary: format!("{pid} mines"),
        evidence: vec![evidence],
        techniques: Vec::new(),
    }
}

fn status(manners: Manners) -> AgentStatus {
    let capabilities = [
        Capability::Tracing,
        Capability::TaskIterator,
        Capability::FpuState,
        Capability::CgroupBpf,
        Capability::Fanotify,
    ];
    let probe = |c| Probe { capability: c, works: manners.lacks != Some(c), reason: "not here".to_owned() };
    let protection = |name: &str| ProtectionStatus {
        name: name.to_owned(),
        mode: manners.mode,
        tier: Some(if manners.lsm { Tier::Lsm } else { Tier::Signal }),
        proven: None,
        note: String::new(),
    };
    let mut protections: Vec<_> =
        ["mining", "fileless", "masquerade", "persistence", "campaign", "tampering"].map(protection).into();
    if manners.refuses_connections {
        protections.push(ProtectionStatus { mode: Mode::Enforce, ..protection("outbound") });
    }
    AgentStatus {
        version: "0".to_owned(),
        started: now(),
        pid: std::process::id(),
        host: "fake".to_owned(),
        kernel: "6".to_owned(),
        tier: Tier::Signal,
        protections,
        probes: capabilities.map(probe).into(),
        disarmed_until: None,
        fallen_back: Vec::new(),
        isolated: Vec::new(),
        banned: 0,
        policy: PolicySummary { path: None, loaded: now(), scope: "host".to_owned(), refused: String::new() },
        events: 0,
        drops: Vec::new(),
        store: StoreStatus {
            path: String::new(),
            bytes: 0,
            max_bytes: 0,
            events: 0,
            lost: 0,
            failing: None,
            temporary: None,
        },
        running_incidents: Vec::new(),
        resident: 0,
        cpu_ns: 0,
        processes: 0,
        flows: 0,
        workers: Vec::new(),
        dashboard: None,
        last_canary: None,
        last_drill: None,
    }
}
