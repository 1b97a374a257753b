//! What BPF the kernel holds, whoever loaded it.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys;

/// Attach types of programs on cgroups lie below this number, with others between them.
const TYPES: u32 = 64;

/// The most programs of one type that are counted.
const BOUND: u32 = 64;

/// Loaded programs, and how many of them sit at the root of the cgroup tree by attach type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) loaded: usize,
    pub(crate) at_root: BTreeMap<u32, u32>,
}

impl Attached {
    pub(crate) fn now() -> Result<Self> {
        let root = File::open("/sys/fs/cgroup").context("opening the root of the cgroup tree")?;
        let at_root = (0..TYPES).map(|of_type| (of_type, count(&root, of_type))).filter(|(_, n)| *n > 0);
        Ok(Self { loaded: loaded(), at_root: at_root.collect() })
    }
}

/// How many programs of a type are attached; none for types that are not of cgroups.
fn count(cgroup: &File, of_type: u32) -> u32 {
    let (mut flags, mut ids, mut number) = (0, [0; BOUND as usize], BOUND);
    // SAFETY: every pointer leads to a local that lives through the call, and `number` says how many ids have room.
    let failed = unsafe {
        libbpf_sys::bpf_prog_query(
            cgroup.as_raw_fd(),
            of_type,
            0,
            &raw mut flags,
            ids.as_mut_ptr(),
            &raw mut number,
        )
    };
    if failed == 0 { number } else { 0 }
}

fn loaded() -> usize {
    let (mut id, mut number) = (0, 0);
    // SAFETY: the pointer leads to a local that lives through the call.
    while unsafe { libbpf_sys::bpf_prog_get_next_id(id, &raw mut id) } == 0 {
        number += 1;
    }
    number
}
