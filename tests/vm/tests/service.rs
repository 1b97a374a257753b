//! The package's life under systemd, each step as one test result.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use davy_test_vm::report::Outcome;
use davy_test_vm::service_life::{PACKAGES, PROGRAM, STEPS, UNIT};
use davy_test_vm::{Boot, Clock, DebianRoot, Emulator, Kernel, Machine, Series, davy, pack, store, turn};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// The boot and all steps, with an emulated CPU on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

/// In MiB: the root, twice while it is unpacked, and what runs in it.
const MEMORY: u32 = 1024;

/// Why there was no boot.
#[derive(Clone, Debug)]
enum Unbooted {
    /// Something that it needs is not here.
    Missing(String),
    /// The package cannot be made.
    Broken(String),
}

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
        Trial::ignorable_test(format!("service::{step}"), move || judge(step, once.get_or_init(boot)))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn boot() -> Result<Boot, Unbooted> {
    let missing = |error: anyhow::Error| Unbooted::Missing(format!("{error:#}"));
    let store = store();
    let binary = davy().ok_or_else(|| {
        Unbooted::Missing("the release binary, target/release/davy (make build)".to_owned())
    })?;
    let emulator = Emulator::obtain(&store).map_err(missing)?;
    let kernel = Kernel::obtain(Series::ALL[0], &store).map_err(missing)?;
    let root = DebianRoot::obtain(&store).map_err(missing)?;
    try_boot(&binary, &emulator, &kernel, &root).map_err(|error| Unbooted::Broken(format!("{error:#}")))
}

fn try_boot(binary: &Path, emulator: &Emulator, kernel: &Kernel, root: &DebianRoot) -> Result<Boot> {
    let store = std::path::absolute(store())?;
    let folder = store.join("service.root");
    let _ = fs::remove_dir_all(&folder);
    let units = folder.join("etc/systemd/system");
    for place in [&units.join("multi-user.target.wants"), &folder.join("opt")] {
        fs::create_dir_all(place)?;
    }
    let inside = |path: &str| folder.join(path.trim_start_matches('/'));
    for (path, revision) in PACKAGES.into_iter().zip(["", "2"]) {
        let package = package(binary, &store.join("service.deb"), revision)?;
        fs::rename(&package, inside(path))?;
    }
    fs::copy(env!("CARGO_BIN_EXE_davy-vm-service"), inside(PROGRAM))?;
    fs::write(units.join("life.service"), UNIT)?;
    symlink("../life.service", units.join("multi-user.target.wants/life.service"))?;
    let (more, image) = (store.join("service.more.cpio"), store.join("service.cpio"));
    pack(&folder, &more)?;
    root.with(&more, &image)?;
    // The console is the test's own; nobody logs in there.
    let options =
        "systemd.mask=serial-getty@ttyS0.service systemd.mask=getty.target systemd.show_status=false";
    let boot = Machine {
        emulator,
        kernel: &kernel.image,
        initramfs: &image,
        memory: MEMORY,
        options,
        clock: Clock::Host,
        limit: LIMIT,
    }
    .boot()?;
    println!("service: Linux {}, {} steps", boot.kernel, boot.outcomes.len());
    for line in &boot.console {
        println!("{line}");
    }
    Ok(boot)
}

/// What `make deb` makes of this binary, with a packaging revision if one is given.
fn package(binary: &Path, folder: &Path, revision: &str) -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/build-deb.sh");
    let binary = binary.canonicalize()?;
    let output = Command::new(script)
        .arg(binary)
        .env("DEB_DIR", folder)
        .env("DEB_REVISION", revision)
        .output()
        .context("starting packaging/build-deb.sh")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "no package: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(PathBuf::from(said.trim().lines().next_back().context("packaging/build-deb.sh names no package")?))
}

fn judge(step: &str, booted: &Result<Boot, Unbooted>) -> Result<Completion, Failed> {
    let skip = |why: &str| {
        println!("SKIPPED: {step}: {why}");
        Ok(Completion::ignored_with(why))
    };
    match booted {
        Err(Unbooted::Missing(missing)) => skip(missing),
        Err(Unbooted::Broken(why)) => Err(why.into()),
        Ok(boot) => match boot.outcome(step) {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::Skipped(why) => skip(&why),
            Outcome::Failed(why) => Err(why.into()),
        },
    }
}
