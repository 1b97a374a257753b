//! A Debian that talks to others, watched and then enforced: each step as one test result.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use davy_test_vm::network::{MODULES, PACKAGE, STEPS, lay_into};
use davy_test_vm::{Boot, Recipe, Series, SystemdMachine, Unbooted, judge, package, store, turn};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let turn = (!arguments.list).then(turn).transpose();
    if let Err(error) = &turn {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let once: Arc<OnceLock<Result<Boot, Unbooted>>> = Arc::default();
    let trials = STEPS.iter().map(|step| {
        let once = Arc::clone(&once);
        Trial::ignorable_test(format!("network::{step}"), move || {
            judge(step, once.get_or_init(boot).as_ref())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn boot() -> Result<Boot, Unbooted> {
    let machine = SystemdMachine {
        name: "network",
        recipe: Recipe::NETWORK,
        series: Series::ALL[0],
        modules: MODULES,
        memory: 3072,
        limit: Duration::from_secs(900),
        program: Path::new(env!("CARGO_BIN_EXE_davy-vm-service")),
        steps: "network",
    };
    machine.boot(|binary, folder| {
        let deb = package(binary, &std::path::absolute(store())?.join("network.deb"), "")?;
        fs::rename(deb, folder.join(PACKAGE.trim_start_matches('/')))?;
        lay_into(folder)
    })
}
