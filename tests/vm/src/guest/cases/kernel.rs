use std::fs;

use anyhow::{Context, Result, ensure};
use davy_kernel::{ProbeContext, probe};

/// What everything else here builds on: BPF among the active security modules, and type information.
pub(super) fn stock_kernel_offers_bpf_lsm() -> Result<()> {
    let active =
        fs::read_to_string("/sys/kernel/security/lsm").context("reading the list of security modules")?;
    ensure!(active.split(',').any(|module| module.trim() == "bpf"), "bpf is not among {active}");
    let types = fs::metadata("/sys/kernel/btf/vmlinux").context("type information of the kernel")?;
    ensure!(types.len() > 1_000_000, "only {} bytes of type information", types.len());
    Ok(())
}

/// On a stock kernel, as root, each thing that the kernel room probes works.
pub(super) fn every_capability_is_proven() -> Result<()> {
    let probes = probe(&ProbeContext::default());
    ensure!(!probes.is_empty(), "nothing was probed");
    for probe in &probes {
        println!("{:?}: {} ({})", probe.capability, probe.works, probe.reason);
    }
    let failed: Vec<_> = probes.iter().filter(|probe| !probe.works).map(|probe| probe.capability).collect();
    ensure!(failed.is_empty(), "does not work here: {failed:?}");
    Ok(())
}
