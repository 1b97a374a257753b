//! A Debian that does what servers do, watched and then enforced: each step as one test result.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use davy_test_vm::everyday::{PACKAGE, STEPS, lay_into};
use davy_test_vm::{Boot, Recipe, Series, SystemdMachine, Unbooted, judge, package, store, turn};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let turn = (!arguments.list).then(turn).transpose();
    if let Err(error) = &turn {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let mut trials = Vec::new();
    for series in Series::ALL {
        let once: Arc<OnceLock<Result<Boot, Unbooted>>> = Arc::default();
        trials.extend(STEPS.iter().map(|step| {
            let once = Arc::clone(&once);
            Trial::ignorable_test(format!("{}::{step}", series.name()), move || {
                judge(step, once.get_or_init(|| boot(series)).as_ref())
            })
            // Each takes minutes; Debian 12's own kernel is the one that lacks more. `-- --include-ignored` runs all.
            .with_ignored_flag(series.version != "6.1")
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn boot(series: Series) -> Result<Boot, Unbooted> {
    let name = format!("everyday_{}", series.name());
    let machine = SystemdMachine {
        name: &name,
        recipe: Recipe::SERVER,
        series,
        modules: &[],
        memory: 3072,
        limit: Duration::from_secs(900),
        program: Path::new(env!("CARGO_BIN_EXE_davy-vm-service")),
        steps: "everyday",
    };
    machine.boot(|binary, folder| {
        let deb = package(binary, &std::path::absolute(store())?.join(format!("{name}.deb")), "")?;
        fs::rename(deb, folder.join(PACKAGE.trim_start_matches('/')))?;
        lay_into(folder)
    })
}
