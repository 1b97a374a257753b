//! The cases. Each is a function that returns or fails; what it prints is shown when it fails.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use davy_test_vm::report::SKIP_CODE;

/// A feature that this machine lacks, so that a case cannot be tried.
#[derive(Debug)]
pub(crate) struct Lacks(pub(crate) String);

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lacks {}

/// Runs the case of this name in this process.
pub(crate) fn run(name: &str) -> ExitCode {
    let result = match name {
        "stock_kernel_offers_bpf_lsm" => stock_kernel_offers_bpf_lsm(),
        _ => Err(anyhow::anyhow!("there is no case {name}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Lacks>() {
            Some(lacks) => {
                println!("{lacks}");
                ExitCode::from(u8::try_from(SKIP_CODE).unwrap_or(1))
            }
            None => {
                println!("{error:?}");
                ExitCode::FAILURE
            }
        },
    }
}

/// What everything else here builds on: BPF among the active security modules, and type information.
fn stock_kernel_offers_bpf_lsm() -> Result<()> {
    let active =
        fs::read_to_string("/sys/kernel/security/lsm").context("reading the list of security modules")?;
    ensure!(active.split(',').any(|module| module.trim() == "bpf"), "bpf is not among {active}");
    let types = fs::metadata("/sys/kernel/btf/vmlinux").context("type information of the kernel")?;
    ensure!(types.len() > 1_000_000, "only {} bytes of type information", types.len());
    Ok(())
}
