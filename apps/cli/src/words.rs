//! The words for what the model names, and the role each is shown in.

use davy_model::{
    Action, ActionRecord, ActionState, Capability, Destination, FindingKind, IncidentState, Mode, Severity,
    Signal, Tier,
};

use crate::amount;
use crate::page::Role;

/// A mode's word.
pub(crate) fn mode(mode: Mode) -> (Role, &'static str) {
    match mode {
        Mode::Off => (Role::Quiet, "off"),
        Mode::Observe => (Role::Plain, "observe"),
        Mode::Enforce => (Role::Good, "enforce"),
    }
}

/// A tier's word.
pub(crate) fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Poll => "poll",
        Tier::Signal => "signal",
        Tier::Permission => "permission",
        Tier::Lsm => "lsm",
    }
}

/// A severity's word.
pub(crate) fn severity(severity: Severity) -> (Role, &'static str) {
    match severity {
        Severity::Info => (Role::Quiet, "info"),
        Severity::Low => (Role::Plain, "low"),
        Severity::Medium => (Role::Warning, "medium"),
        Severity::High => (Role::Alarm, "high"),
        Severity::Critical => (Role::Alarm, "critical"),
    }
}

/// Where an incident stands.
pub(crate) fn state(state: IncidentState) -> (Role, &'static str) {
    match state {
        IncidentState::Running => (Role::Alarm, "running"),
        IncidentState::Stopped => (Role::Good, "stopped"),
        IncidentState::Ended => (Role::Plain, "ended"),
        IncidentState::Undone => (Role::Warning, "undone"),
    }
}

/// What a finding says.
pub(crate) fn kind(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Mining => "mining",
        FindingKind::PoolContact => "pool contact",
        FindingKind::Masquerade => "masquerade",
        FindingKind::Fileless => "fileless",
        FindingKind::Persistence => "persistence",
        FindingKind::Campaign => "campaign",
        FindingKind::Tampering => "tampering",
        FindingKind::Unproven => "unproven",
        FindingKind::Untrusted => "untrusted code",
        FindingKind::Service => "service breach",
        FindingKind::Malware => "malware",
        FindingKind::Scan => "port scan",
        FindingKind::Outbound => "outbound",
        FindingKind::Lateral => "lateral movement",
    }
}

/// What evidence was recognised by.
pub(crate) fn signal(signal: Signal) -> &'static str {
    match signal {
        Signal::RoundingMode => "rounding mode",
        Signal::ComputeShape => "compute shape",
        Signal::MemoryShape => "memory shape",
        Signal::Gpu => "GPU",
        Signal::Stratum => "mining protocol",
        Signal::PoolShape => "pool rhythm",
        Signal::PoolList => "pool list",
        Signal::Masquerade => "masquerade",
        Signal::OddParent => "odd parent",
        Signal::Fileless => "fileless",
        Signal::Campaign => "campaign",
        Signal::Persistence => "persistence",
        Signal::Preparation => "preparation",
        Signal::CommandLine => "command line",
        Signal::Canary => "canary",
        Signal::Trust => "trust",
        Signal::Service => "service profile",
        Signal::Scan => "scan",
        Signal::PortScan => "port scan",
        Signal::Outbound => "outbound rules",
        Signal::Lateral => "first connections",
    }
}

/// What a capability is for.
pub(crate) fn capability(capability: Capability) -> &'static str {
    match capability {
        Capability::Root => "root",
        Capability::Btf => "kernel type information",
        Capability::Tracing => "tracing BPF",
        Capability::TaskIterator => "BPF task iterator",
        Capability::FpuState => "saved FPU state",
        Capability::CgroupBpf => "cgroup BPF",
        Capability::LsmBpf => "BPF-LSM",
        Capability::TrustLsm => "code judged by BPF-LSM",
        Capability::Fanotify => "fanotify",
        Capability::FanotifyPermission => "fanotify permission events",
        Capability::SockDiag => "sock_diag",
        Capability::SockDestroy => "socket destroy",
        Capability::CgroupFreezer => "cgroup freezer",
        Capability::BpfFs => "BPF file system",
    }
}

/// A destination as people write it.
pub(crate) fn destination(to: &Destination) -> String {
    match (to.port, to.address) {
        (0, address) => address.to_string(),
        (port, address) => std::net::SocketAddr::new(address, port).to_string(),
    }
}

/// How far an action got.
pub(crate) fn action_state(state: ActionState) -> (Role, &'static str) {
    match state {
        ActionState::WouldHave => (Role::Quiet, "would have"),
        ActionState::Intended => (Role::Warning, "under way"),
        ActionState::Done => (Role::Good, "done"),
        ActionState::Failed => (Role::Alarm, "failed"),
        ActionState::Refused => (Role::Warning, "refused"),
        ActionState::Undone => (Role::Plain, "undone"),
        ActionState::Expired => (Role::Quiet, "expired"),
    }
}

/// What an action did (`killed 4 processes`) or, where it was not done, would do (`kill 4 processes`).
pub(crate) fn deed(record: &ActionRecord) -> String {
    let past = matches!(
        record.state,
        ActionState::WouldHave | ActionState::Done | ActionState::Undone | ActionState::Expired
    );
    let verb = |did: &'static str, does: &'static str| if past { did } else { does };
    let processes = |tree: &[_]| amount::of(tree.len().max(1) as u64, "process", "processes");
    match &record.action {
        Action::Alert => verb("raised an alert", "raise an alert").to_owned(),
        Action::Freeze { tree, .. } => format!("{} {}", verb("frozen", "freeze"), processes(tree)),
        Action::Kill { tree, .. } => format!("{} {}", verb("killed", "kill"), processes(tree)),
        Action::Quarantine { path, .. } if path.is_empty() => {
            verb("put the program in quarantine", "put the program in quarantine").to_owned()
        }
        Action::Quarantine { path, .. } => format!("put {path} in quarantine"),
        Action::Cut { destination: to, cgroup, seconds } => {
            let long = match seconds {
                0 => "until undone".to_owned(),
                s => format!("for {}", amount::duration(f64::from(*s))),
            };
            let whom = cgroup.as_ref().map(|cgroup| format!(" for {cgroup}")).unwrap_or_default();
            format!("{} {} off{whom} {long}", verb("cut", "cut"), destination(to))
        }
        Action::Isolate { cgroup, seconds, .. } => format!(
            "{} {} for {}",
            verb("isolated", "isolate"),
            cgroup.as_deref().unwrap_or("the host"),
            amount::duration(f64::from(*seconds))
        ),
        Action::Ban { who, ports, seconds, .. } => {
            let from = match ports.as_slice() {
                [] => String::new(),
                [port] => format!(" from port {port}"),
                ports => {
                    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                    format!(" from ports {}", ports.join(", "))
                }
            };
            let long = amount::duration(f64::from(*seconds));
            format!("{} {who}{from} for {long}", verb("banned", "ban"))
        }
        Action::ClosePorts { entries, .. } => {
            let open = amount::of((*entries).into(), "entry opens", "entries open");
            format!("{} every port but those that {open}", verb("closed", "close"))
        }
    }
}
