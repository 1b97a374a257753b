//! Puts the miner exam to a live agent and prints its tables.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use davy_test_exam::{Exam, Length, Report, full, obstacle, short};

#[derive(Parser)]
#[command(name = "davy-test-exam", about = "Real miners and honest loads before a live agent")]
struct Arguments {
    /// Every miner, disguise, transport and load (about forty minutes).
    #[arg(long, conflicts_with = "short")]
    full: bool,
    /// A dozen that has each of them once (under four minutes); the default.
    #[arg(long)]
    short: bool,
    /// Only cases whose name contains one of these, such as `memfd/tls` or `everyday/`.
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Print the names of the cases and put none.
    #[arg(long)]
    list: bool,
    /// Write everything as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let (mut cases, length) = if arguments.full { (full(), Length::FULL) } else { (short(), Length::SHORT) };
    if !arguments.only.is_empty() {
        cases.retain(|case| arguments.only.iter().any(|part| case.name().contains(part.as_str())));
    }
    if arguments.list {
        cases.iter().for_each(|case| println!("{}", case.name()));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(reason) = obstacle() {
        println!("SKIPPED: the miner exam needs {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    let mut exam = Exam::begin(length)?;
    let mut marks = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let mark = exam.put(*case);
        let seconds = mark.seconds.map_or_else(String::new, |s| format!(" {s:.1} s"));
        eprintln!("[{}/{}] {}: {:?}{seconds}", number + 1, cases.len(), case.name(), mark.outcome);
        marks.push(mark);
    }
    let report = Report::of(&exam, marks, began.elapsed().as_secs_f64());
    print!("{}", report.markdown());
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
