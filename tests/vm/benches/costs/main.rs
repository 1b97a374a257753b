//! What Davy in its highest tier and its peers cost, as counts of executed instructions on stock Debian kernels.
//!
//! The machines are emulated with a clock that counts instructions, so that counts repeat whatever else the host
//! does; and what a peer does to a whole machine (audit rules, permission marks, a queue for every connection) is
//! done to that machine alone.

mod image;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use davy_test_vm::costs::Watcher;
use davy_test_vm::report::Outcome;
use davy_test_vm::{Clock, Emulator, Kernel, Machine, Series, davy, store};

use table::{Compared, Report};

/// One watcher on one kernel, on a busy host.
const LIMIT: Duration = Duration::from_secs(240);

/// Memory of a machine in MiB; its files lie in it twice while it starts.
const MEMORY: u32 = 1536;

/// Counts instructions with and without Davy and its peers, in virtual machines.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only the watchers whose name holds this
    #[arg(long, default_value = "")]
    only: String,
    /// Only this kernel, such as 6.1
    #[arg(long)]
    kernel: Option<String>,
    /// Also write the numbers here, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// `cargo bench` says what it is
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wants_davy = Watcher::Davy.name().contains(&arguments.only);
    ensure!(!wants_davy || davy().is_some(), "no release binary here: make build");
    let store = store();
    std::fs::create_dir_all(&store)?;
    let emulator = Emulator::obtain(&store)?;
    let wanted = |series: &Series| arguments.kernel.as_ref().is_none_or(|version| version == series.version);
    let systems = Series::ALL.into_iter().filter(wanted).map(|series| {
        let kernel = Kernel::obtain(series, &store)?;
        Ok(System { series, image: image::pack(series, &kernel)?, kernel })
    });
    let systems = systems.collect::<Result<Vec<_>>>()?;
    // A machine has one CPU: all kernels run at the same time.
    let reports = std::thread::scope(|scope| {
        let all = systems.iter().map(|system| scope.spawn(|| system.report(&arguments.only, &emulator)));
        let all = all.collect::<Vec<_>>().into_iter();
        let joined = all.map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<Vec<_>>>()
    })?;
    reports.iter().for_each(|report| println!("{}", report.markdown()));
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&reports)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// What boots.
struct System {
    series: Series,
    kernel: Kernel,
    image: PathBuf,
}

impl System {
    /// The watchers whose names hold `only`, one boot each.
    fn report(&self, only: &str, emulator: &Emulator) -> Result<Report> {
        let mut report = Report::default();
        for watcher in Watcher::ALL.into_iter().filter(|watcher| watcher.name().contains(only)) {
            eprintln!("{}: nothing against {}", self.series.name(), watcher.name());
            let machine = Machine {
                emulator,
                kernel: &self.kernel.image,
                initramfs: &self.image,
                memory: MEMORY,
                clock: Clock::Instructions,
                options: &format!("davy.cost={}", watcher.case()),
                limit: LIMIT,
            };
            let boot = machine.boot()?;
            report.kernel = boot.kernel.clone();
            report.watchers.push(match boot.outcome(watcher.case()) {
                Outcome::Passed => Compared::counted(watcher, &boot.counts),
                Outcome::Failed(why) | Outcome::Skipped(why) => Compared::impossible(watcher, &why),
            });
        }
        Ok(report)
    }
}
