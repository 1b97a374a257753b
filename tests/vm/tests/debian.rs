//! Every case of the guest on every kernel, as one test result each.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use davy_test_vm::{
    Boot, Clock, Emulator, Initramfs, Kernel, Machine, Series, Unbooted, bypasses, cases, davy, judge, store,
    turn,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// All cases of one kernel, with an emulated CPU on a busy machine.
const LIMIT: Duration = Duration::from_secs(2400);

/// Memory of one machine in MiB.
const MEMORY: u32 = 512;

/// The page of bypasses against what the machines say.
const BYPASSES: &str = "all::bypasses_are_as_published";

/// A machine is booted once, by whichever test asks first.
type Once = Arc<OnceLock<Result<Boot, Unbooted>>>;

/// The emulator is looked for once: two machines must not unpack it at the same time.
static EMULATOR: OnceLock<Result<Emulator, Unbooted>> = OnceLock::new();

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let machines: BTreeMap<String, (Series, Once)> =
        Series::ALL.into_iter().map(|series| (series.name(), (series, Once::default()))).collect();
    let options = options(&arguments);
    let mut trials = Vec::new();
    // Case by case and not kernel by kernel, so that the machines boot side by side.
    for case in cases::NAMES {
        for (name, (series, once)) in &machines {
            let (series, once, options) = (*series, Arc::clone(once), options.clone());
            trials.push(Trial::ignorable_test(format!("{name}::{case}"), move || {
                judge(case, once.get_or_init(|| boot(series, &options)).as_ref())
            }));
        }
    }
    let of_all = machines.clone();
    let filtered = options.contains("davy.only");
    trials.push(Trial::ignorable_test(BYPASSES, move || {
        if filtered {
            return Ok(Completion::ignored_with("only some cases run"));
        }
        published(&of_all)
    }));
    let turn = (!arguments.list).then(turn).transpose();
    if let Err(error) = &turn {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// When only some results are asked for, only their cases run. `DAVY_VM_VERBOSE=1` adds libbpf's log.
fn options(arguments: &Arguments) -> String {
    let mut options = String::new();
    if let Some(filter) = &arguments.filter {
        let case = filter.rsplit("::").next().unwrap_or("");
        if cases::NAMES.iter().any(|name| name.contains(case)) {
            options.push_str(&format!("davy.only={case} "));
        }
    }
    if std::env::var_os("DAVY_VM_VERBOSE").is_some() {
        options.push_str("davy.verbose");
    }
    options
}

fn boot(series: Series, options: &str) -> Result<Boot, Unbooted> {
    let store = store();
    let emulator =
        EMULATOR.get_or_init(|| Ok(Emulator::obtain(&store)?)).as_ref().map_err(Unbooted::clone)?;
    let kernel = Kernel::obtain(series, &store)?;
    let folder = store.join(format!("{}.root", series.name()));
    let image = store.join(format!("{}.cpio", series.name()));
    let initramfs = Initramfs::lay_out(&folder, Path::new(env!("CARGO_BIN_EXE_davy-vm-guest")))?;
    if let Some(davy) = davy() {
        initramfs.add(&davy, "usr/sbin/davy")?;
    }
    // A dynamic program and what it needs, as the machine that builds has them: both are Debian's.
    for (file, inside) in cases::DYNAMIC.into_iter().filter(|(file, _)| Path::new(file).exists()) {
        initramfs.add(Path::new(file), inside)?;
    }
    for module in cases::MODULES.iter().filter_map(|name| kernel.module(name)) {
        initramfs.add_module(&module)?;
    }
    initramfs.pack(&image)?;
    let machine = Machine {
        emulator,
        kernel: &kernel.image,
        initramfs: &image,
        memory: MEMORY,
        clock: Clock::Host,
        options,
        limit: LIMIT,
    };
    let boot = machine.boot()?;
    println!("{}: Linux {}, {} cases", series.name(), boot.kernel, boot.outcomes.len());
    Ok(boot)
}

/// Holds the page of bypasses against what was tried on all kernels; with `DAVY_BLESS=1` writes it.
fn published(machines: &BTreeMap<String, (Series, Once)>) -> Result<Completion, Failed> {
    let mut kernels = Vec::new();
    for (series, once) in Series::ALL.into_iter().filter_map(|series| machines.get(&series.name())) {
        match once.get_or_init(|| boot(*series, "")) {
            Ok(boot) => kernels.push((series.version, boot.tried.as_slice())),
            Err(Unbooted::Missing(missing)) => {
                println!("SKIPPED: {BYPASSES}: {missing}");
                return Ok(Completion::ignored_with(missing));
            }
            Err(Unbooted::Broken(why)) => return Err(why.into()),
        }
    }
    let page = bypasses::page(&kernels)?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(bypasses::PAGE);
    if std::env::var_os("DAVY_BLESS").is_some() {
        std::fs::write(&file, &page).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    if written == page {
        return Ok(Completion::Completed);
    }
    let differs = page.lines().zip(written.lines()).find(|(new, old)| new != old);
    let differs = differs.map_or_else(String::new, |(new, old)| format!(": {old:?} is now {new:?}"));
    Err(format!("{} says something else than the machines{differs} (DAVY_BLESS=1 writes it)", bypasses::PAGE)
        .into())
}
