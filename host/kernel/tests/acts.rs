//! Acts that reach for the machine: device nodes, and programs in the kernel.
#![allow(clippy::unwrap_used, missing_docs)]

mod live;

use davy_model::{Capability, CodeAct, EventKind};
use live::Live;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

#[test]
fn an_open_of_a_register_device_is_told() {
    let Some(live) = Live::start(&[Capability::Tracing, Capability::CgroupBpf]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("msr");
    // A node of the test's own, of a processor that is not there: the attempt is told before any driver is asked.
    if let Err(error) =
        mknodat(CWD, &node, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(202, 0xfffff))
    {
        return eprintln!("SKIPPED: no device node can be made: {error}");
    }
    assert!(std::fs::OpenOptions::new().write(true).open(&node).is_err());
    let (process, act) = live.wait("the open", |event| match event.kind {
        EventKind::Code(act @ CodeAct::DeviceOpen { .. }) => Some((event.process, act)),
        _ => None,
    });
    assert_eq!(process.map(|key| key.pid), Some(std::process::id()));
    assert_eq!(act, CodeAct::DeviceOpen { major: 202, minor: 0xfffff, write: true });
}

#[test]
fn a_program_that_someone_loads_is_told_and_our_own_are_not() {
    let Some(live) = Live::start(&[Capability::Tracing]) else { return };
    let path = std::path::Path::new(env!("OUT_DIR")).join("syscalls.bpf.o");
    let foreign = libbpf_rs::ObjectBuilder::default().open_file(path).unwrap().load().unwrap();
    let mut before = Vec::new();
    let program_type = live.wait("the load", |event| match event.kind {
        EventKind::Code(CodeAct::BpfLoad { name, program_type }) if name == "on_syscall" => {
            Some(program_type)
        }
        EventKind::Code(CodeAct::BpfLoad { name, .. }) => {
            before.push(name);
            None
        }
        _ => None,
    });
    assert_eq!(program_type, libbpf_rs::libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT);
    drop(foreign);
    assert!(!before.iter().any(|name| name == "on_fork"), "{before:?}");
}
