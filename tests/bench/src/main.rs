//! What Davy costs a host: everyday loads with and without it, its own use at rest, how many process events it takes in
//! without loss; and how fast it scans.
//!
//! Only ratios within one run are reported. A machine's speed drifts, so nothing and Davy take turns at going first
//! (A B, B A), and the ratio is taken within the round.

mod agent;
mod flood;
mod gate;
mod loads;
mod network;
mod ratio;
mod report;
mod scan;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use agent::Agent;
use loads::{LOADS, Workshop};
use ratio::Ratio;
use report::Report;

/// Measures what Davy costs, as ratios within one run.
#[derive(Debug, Parser)]
struct Arguments {
    /// The release binary
    #[arg(long, default_value = "target/release/davy")]
    davy: PathBuf,
    /// Rounds of Davy against nothing
    #[arg(long, default_value_t = 9)]
    rounds: u32,
    /// Seconds to watch the agent at rest
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// What is scanned, by Davy and by other scanners
    #[arg(long, default_value = "/usr")]
    scan: PathBuf,
    /// Rounds of scans; none leaves them out
    #[arg(long, default_value_t = 3)]
    scans: u32,
    /// Rounds of the network's protections against nothing; none leaves them out
    #[arg(long, default_value_t = 5)]
    network: u32,
    /// Also write the numbers here, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Processes that the bench starts itself.
#[derive(Debug, Subcommand)]
enum Part {
    /// Bears children that end at once, at a rate, and prints how many
    #[command(hide = true)]
    Flood {
        /// Children a second
        rate: u32,
        /// For how many seconds
        seconds: u64,
    },
    /// Connects from one network namespace to another and prints how long it took
    #[command(hide = true)]
    Dial {
        /// From where
        from: PathBuf,
        /// To where
        to: PathBuf,
    },
    /// Sends connection requests from forged addresses
    #[command(hide = true)]
    FloodPort {
        /// From which network namespace
        namespace: PathBuf,
        /// To which hardware address
        hardware: String,
    },
    /// Measures the permission gate, in a mount namespace of its own
    #[command(hide = true)]
    Gate {
        /// Which of the processes that takes this is
        part: GatePart,
    },
}

/// The processes of a measurement of the gate.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum GatePart {
    /// The load under a gate
    With,
    /// The load without one
    Without,
    /// The gate's keeper
    Keep,
    /// The load
    Load,
    /// All rounds, with the result on standard output
    Rounds,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Flood { rate, seconds }) => {
            println!("{}", flood::generate(rate, Duration::from_secs(seconds)));
            return Ok(());
        }
        Some(Part::Gate { part }) => return gate_part(part),
        Some(Part::Dial { from, to }) => return network::dial(&from, &to),
        Some(Part::FloodPort { namespace, hardware }) => return network::send_flood(&namespace, &hardware),
        None => {}
    }
    let davy = arguments.davy.canonicalize().context("no release binary here: make build")?;
    let workshop = Workshop::open()?;
    let mut report = Report::about_this_host(arguments.rounds)?;

    if arguments.network > 0 {
        report.network = network::measure(&davy, arguments.network)?;
    }
    if arguments.scans > 0 {
        eprintln!("scans of {}, {} rounds", arguments.scan.display(), arguments.scans);
        report.scan = Some(scan::measure(&davy, &arguments.scan, arguments.scans)?);
    }
    eprintln!("davy at rest, {} s", arguments.rest);
    let agent = Agent::start(&davy)?;
    report.tier = agent.status()?["tier"].as_str().unwrap_or("unknown").to_owned();
    report.rest = Some(agent.at_rest(Duration::from_secs(arguments.rest))?);
    report.floods = flood::RATES.iter().map(|rate| flood::measure(&agent, *rate)).collect::<Result<_>>()?;
    drop(agent);

    eprintln!("nothing against davy, {} rounds", arguments.rounds);
    report.ratios = rounds(&workshop, arguments.rounds, || Agent::start(&davy))?;

    eprintln!("the permission gate against nothing");
    report.gate = gate::measure()?;

    print!("{}", report.markdown());
    if let Some(path) = arguments.json {
        std::fs::write(&path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn gate_part(part: GatePart) -> Result<()> {
    match part {
        GatePart::With => gate::inside(true),
        GatePart::Without => gate::inside(false),
        GatePart::Keep => Ok(davy_files::permission::keep()?),
        GatePart::Load => gate::load(),
        GatePart::Rounds => {
            println!("{}", serde_json::to_string_pretty(&gate::measure()?)?);
            Ok(())
        }
    }
}

/// The ratios of every load.
fn rounds<T>(workshop: &Workshop, rounds: u32, start: impl Fn() -> Result<T>) -> Result<Vec<Option<Ratio>>> {
    let mut ratios = vec![Vec::new(); LOADS.len()];
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        let run = || LOADS.iter().map(|load| (load.run)(workshop)).collect::<Result<Vec<_>>>();
        let watched = || start().and_then(|_running| run());
        // Turns are taken, so that a machine that slows down or speeds up favours neither.
        let (alone, with) = if round % 2 == 0 {
            let alone = run()?;
            (alone, watched()?)
        } else {
            let with = watched()?;
            (run()?, with)
        };
        if round > 0 {
            for (load, (alone, with)) in alone.iter().zip(&with).enumerate() {
                ratios[load].push(with.as_secs_f64() / alone.as_secs_f64());
            }
        }
    }
    Ok(ratios.iter().map(|rounds| Ratio::of(rounds)).collect())
}
