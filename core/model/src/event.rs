use serde::{Deserialize, Serialize};

use crate::{
    CodeJudgement, Exit, FileChange, FlowAggregate, FlowChunk, FlowClose, FlowOpen, FlowReading, GpuUse,
    InboundRefusal, LateralMove, MemoryShape, NameAnswer, OutboundAttempt, ProcessInfo, ProcessKey, ScanHit,
    ServiceBreach, Timestamp,
};

/// Something that happened on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// Who did it, where that is known.
    pub process: Option<ProcessKey>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kinds of event that sensors give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event", content = "data")]
pub enum EventKind {
    /// A process was found already running (at start, or by the poll tier).
    Found(Box<ProcessInfo>),
    /// A process began as a copy of `process`.
    Fork {
        /// The new process.
        child: ProcessKey,
        /// Its short name.
        comm: String,
    },
    /// A process executed a program.
    Exec(Box<ProcessInfo>),
    /// A process changed its short name.
    Renamed {
        /// The name now.
        comm: String,
    },
    /// A process ended.
    Exit(Exit),
    /// A flow began.
    FlowOpen(FlowOpen),
    /// A socket began to listen; `remote` is unspecified.
    Listen(FlowOpen),
    /// A message went over a flow.
    FlowChunk(FlowChunk),
    /// The first bytes of a flow were read.
    FlowRead(Box<FlowReading>),
    /// A flow ended.
    FlowClose(FlowClose),
    /// Flows that were counted together.
    Flows(FlowAggregate),
    /// Somebody reached a port that the policy does not open to them, or was kept from it; `process` is whose port it is, where
    /// that is known.
    Inbound(InboundRefusal),
    /// A name was resolved.
    Name(NameAnswer),
    /// A file changed.
    File(FileChange),
    /// Code came from an unusual place, or reached into another process or the kernel.
    Code(CodeAct),
    /// Code was refused, or would have been, or ran on its writer's word.
    CodeJudged(Box<CodeJudgement>),
    /// What came from a service started what its profile does not have.
    ServiceBreach(Box<ServiceBreach>),
    /// Connections that no rule allows; `process` tried last.
    Outbound(Box<OutboundAttempt>),
    /// Somebody reaches inside addresses that it never spoke to; `process` did so last.
    Lateral(Box<LateralMove>),
    /// A scan found something in a file; `process` runs it or wrote it, where that is known.
    Scanned(Box<ScanHit>),
    /// The memory shape of a process, asked for by the detector.
    Memory(MemoryShape),
    /// A process uses a GPU.
    Gpu(GpuUse),
    /// A process's system calls in a short window, asked for by the detector.
    Syscalls {
        /// System calls in the window.
        count: u64,
        /// CPU time used in the window, in nanoseconds.
        cpu_ns: u64,
    },
}

impl EventKind {
    /// Its name in JSON and on the command line.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Found(_) => "found",
            Self::Fork { .. } => "fork",
            Self::Exec(_) => "exec",
            Self::Renamed { .. } => "renamed",
            Self::Exit(_) => "exit",
            Self::FlowOpen(_) => "flow_open",
            Self::Listen(_) => "listen",
            Self::FlowChunk(_) => "flow_chunk",
            Self::FlowRead(_) => "flow_read",
            Self::FlowClose(_) => "flow_close",
            Self::Flows(_) => "flows",
            Self::Inbound(_) => "inbound",
            Self::Name(_) => "name",
            Self::File(_) => "file",
            Self::Code(_) => "code",
            Self::CodeJudged(_) => "code_judged",
            Self::ServiceBreach(_) => "service_breach",
            Self::Outbound(_) => "outbound",
            Self::Lateral(_) => "lateral",
            Self::Scanned(_) => "scanned",
            Self::Memory(_) => "memory",
            Self::Gpu(_) => "gpu",
            Self::Syscalls { .. } => "syscalls",
        }
    }
}

/// Acts on code and on other processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "act")]
pub enum CodeAct {
    /// A program without a name was executed.
    NamelessExec {
        /// Whether it was a memfd (else a deleted file).
        memfd: bool,
    },
    /// Memory that had been written was made executable.
    WrittenThenExecutable {
        /// Its length in bytes.
        bytes: u64,
    },
    /// Another process was traced, or its memory opened.
    Trace {
        /// Whose.
        target: ProcessKey,
        /// Whether it was for writing.
        write: bool,
    },
    /// A kernel module was loaded.
    ModuleLoad {
        /// Its name.
        name: String,
    },
    /// A BPF program was loaded.
    BpfLoad {
        /// The program's name.
        name: String,
        /// The kernel's program type number (`enum bpf_prog_type`).
        program_type: u32,
    },
    /// A device node was opened that reaches model-specific registers or GPUs.
    DeviceOpen {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Whether for writing.
        write: bool,
    },
    /// The number of reserved huge pages changed.
    HugePagesReserved {
        /// Pages before.
        before: u64,
        /// Pages now.
        now: u64,
    },
    /// The process is hidden from those who look into /proc.
    Hidden {
        /// By what, in words.
        how: String,
    },
    /// A signal was sent to another process.
    Signal {
        /// To whom.
        target: ProcessKey,
        /// Which.
        signal: u8,
    },
}

/// What the detector asks the host to look at more closely. The answer comes back as an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeRequest {
    /// Its memory's shape, as [`EventKind::Memory`].
    Memory(ProcessKey),
    /// More frequent samples for a few seconds.
    Burst(ProcessKey),
    /// Count its system calls for a short window, as [`EventKind::Syscalls`].
    Syscalls(ProcessKey),
}
