/// kinds
pub(crate) const KINDS: [&str; 15] = [
    "found",
    "fork",
    "exec",
    "renamed",
    "exit",
    "flow_open",
    "listen",
    "flow_chunk",
    "flow_close",
    "name",
    "file",
    "code",
    "memory",
    "gpu",
    "syscalls",
];
