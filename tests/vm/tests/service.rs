//! The package's life under systemd, each step as one test result.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use davy_test_vm::service_life::{FIREWALL_MODULES, PACKAGES, STEPS};
use davy_test_vm::{Boot, Kernel, Recipe, Series, SystemdMachine, Unbooted, judge, package, store, turn};
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
        Trial::ignorable_test(format!("service::{step}"), move || {
            judge(step, once.get_or_init(boot).as_ref())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn boot() -> Result<Boot, Unbooted> {
    let machine = SystemdMachine {
        name: "service",
        recipe: Recipe::SMALL,
        series: Series::ALL[0],
        modules: &[],
        memory: 1024,
        limit: Duration::from_secs(600),
        program: Path::new(env!("CARGO_BIN_EXE_davy-vm-service")),
        steps: "life",
    };
    machine.boot(|binary, folder| {
        let modules = folder.join("opt/modules");
        fs::create_dir_all(&modules)?;
        let kernel = Kernel::obtain(machine.series, &store())?;
        for name in FIREWALL_MODULES {
            let module = kernel.module(name).with_context(|| format!("the kernel has no module {name}"))?;
            fs::copy(module, modules.join(format!("{name}.ko")))?;
        }
        for (path, revision) in PACKAGES.into_iter().zip(["", "2"]) {
            let package = package(binary, &std::path::absolute(store())?.join("service.deb"), revision)?;
            fs::rename(&package, folder.join(path.trim_start_matches('/')))?;
        }
        Ok(())
    })
}
