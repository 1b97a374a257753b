//! Developer tasks. `cargo xtask tidy` checks the rules of the house that no compiler knows.

mod house;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use house::House;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => run_tidy(Path::new(".")),
        ["tidy", root] => run_tidy(Path::new(root)),
        _ => {
            eprintln!("usage: cargo xtask tidy [ROOT]");
            Ok(ExitCode::from(2))
        }
    }
}

fn run_tidy(root: &Path) -> anyhow::Result<ExitCode> {
    let house = House::read(root)?;
    let report = tidy::inspect(&house);
    for advice in &report.advice {
        println!("advice: {advice}");
    }
    for fault in &report.faults {
        println!("fault: {fault}");
    }
    println!(
        "tidy: {} rooms, {} files, {} promises bound to tests: {} faults",
        house.rooms.len(),
        house.files.len(),
        report.promises,
        report.faults.len()
    );
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
