//! Debians with systemd, side by side: the package's life, the judging of code on a server's day, and that of whom a server
//! talks to. Each step as one test result.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use davy_test_vm::{
    Boot, Recipe, Series, SystemdMachine, Unbooted, everyday, judge, network, package, service_life, store,
    turn,
};
use libtest_mimic::{Arguments, Trial};

/// The program that goes through the steps.
const PROGRAM: &str = env!("CARGO_BIN_EXE_davy-vm-service");

/// Steps of one machine, the prefix of their names, and how it is booted.
struct Life {
    name: String,
    steps: &'static [&'static str],
    ignored: bool,
    boot: fn(Series) -> Result<Boot, Unbooted>,
    series: Series,
    once: Arc<OnceLock<Result<Boot, Unbooted>>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let turn = (!arguments.list).then(turn).transpose();
    if let Err(error) = &turn {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let lives = lives();
    let longest = lives.iter().map(|life| life.steps.len()).max().unwrap_or_default();
    // Step by step and not machine by machine, so that the machines boot side by side.
    let trials = (0..longest).flat_map(|number| lives.iter().filter_map(move |life| trial(life, number)));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn lives() -> Vec<Life> {
    let oldest = Series::ALL[0];
    let life = |name: &str, steps, boot, series| Life {
        name: name.to_owned(),
        steps,
        ignored: false,
        boot,
        series,
        once: Arc::default(),
    };
    let mut all = vec![
        life("service", service_life::STEPS, boot_service, oldest),
        life("network", network::STEPS, boot_network, oldest),
    ];
    for series in Series::ALL {
        let mut days = life(&series.name(), everyday::STEPS, boot_everyday, series);
        // Each takes minutes; Debian 12's own kernel is the one that lacks more. `-- --include-ignored` runs all.
        days.ignored = series.version != "6.1";
        all.push(days);
    }
    all
}

fn trial(life: &Life, number: usize) -> Option<Trial> {
    let (step, once) = (*life.steps.get(number)?, Arc::clone(&life.once));
    let (boot, series) = (life.boot, life.series);
    let run = move || judge(step, once.get_or_init(|| boot(series)).as_ref());
    Some(Trial::ignorable_test(format!("{}::{step}", life.name), run).with_ignored_flag(life.ignored))
}

fn boot_service(series: Series) -> Result<Boot, Unbooted> {
    let machine = SystemdMachine {
        name: "service",
        recipe: Recipe::SMALL,
        series,
        modules: &service_life::FIREWALL_MODULES,
        memory: 1024,
        limit: Duration::from_secs(1200),
        program: Path::new(PROGRAM),
        steps: "life",
    };
    machine.boot(|binary, folder| {
        for (path, revision) in service_life::PACKAGES.into_iter().zip(["", "2"]) {
            lay_package(binary, folder, "service", path, revision)?;
        }
        Ok(())
    })
}

fn boot_everyday(series: Series) -> Result<Boot, Unbooted> {
    let name = format!("everyday_{}", series.name());
    let machine = SystemdMachine {
        name: &name,
        recipe: Recipe::SERVER,
        series,
        modules: &[],
        memory: 3072,
        limit: Duration::from_secs(1500),
        program: Path::new(PROGRAM),
        steps: "everyday",
    };
    machine.boot(|binary, folder| {
        lay_package(binary, folder, &name, everyday::PACKAGE, "")?;
        everyday::lay_into(folder)
    })
}

fn boot_network(series: Series) -> Result<Boot, Unbooted> {
    let machine = SystemdMachine {
        name: "network",
        recipe: Recipe::NETWORK,
        series,
        modules: network::MODULES,
        memory: 3072,
        limit: Duration::from_secs(1500),
        program: Path::new(PROGRAM),
        steps: "network",
    };
    machine.boot(|binary, folder| {
        lay_package(binary, folder, "network", network::PACKAGE, "")?;
        network::lay_into(folder)
    })
}

/// Makes the package of this binary and lays it where the machine finds it.
fn lay_package(binary: &Path, folder: &Path, name: &str, path: &str, revision: &str) -> Result<()> {
    let place = std::path::absolute(store())?.join(format!("{name}.deb"));
    let package = package(binary, &place, revision)?;
    let inside = folder.join(path.trim_start_matches('/'));
    fs::rename(&package, &inside).with_context(|| inside.display().to_string())
}
