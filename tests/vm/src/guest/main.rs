//! The first program of the virtual machine: mounts what a host has, runs every case in a process and a cgroup of
//! its own, says on the console how each went, and switches the machine off.
//!
//! Called as `davy-vm-guest case NAME` it is one case, as `davy-vm-guest act ...` one of the processes that a
//! case looks at, and as `davy-vm-guest loads ...` the loads of the bench.

mod acts;
mod cases;
mod code_acts;
mod costs;
mod fuse;
mod ring;
mod supervisor;
mod watch;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["case", name, cgroup] => cases::run(name, Path::new(cgroup)),
        ["act", act @ ..] => acts::run(act),
        ["loads", loads @ ..] => costs::run_loads(loads),
        _ if std::process::id() == 1 => supervisor::run(),
        _ => {
            eprintln!("this is the first program of a virtual machine (or: davy-vm-guest case NAME CGROUP)");
            ExitCode::from(2)
        }
    }
}
