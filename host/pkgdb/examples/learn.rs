//! What learning a system costs: `cargo run --release -p davy-pkgdb --example learn [ROOT [THREADS [SHARE]]]`.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::env::args;
use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use davy_pkgdb::{Budget, PackageDb, Verdict, learn, refresh};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(args().nth(1).unwrap_or_else(|| "/".to_owned()));
    let threads = args().nth(2).map_or(Ok(1), |n| n.parse())?;
    let share = args().nth(3).map_or(Ok(f64::INFINITY), |s| s.parse())?;
    let budget = Budget::new(threads, share);
    for db in PackageDb::open(&root)? {
        let began = Instant::now();
        let learning = learn(&db, budget, &mut |_| ControlFlow::Continue(()))?;
        let took = began.elapsed().as_secs_f64();
        let (trust, summary) = (&learning.trust, &learning.summary);
        let count = |verdict| trust.iter().filter(|l| l.verdict == verdict).count();
        println!(
            "{:?}: {} packages, {} paths, {} files of code hashed ({:.0} MB) in {took:.2} s on {threads} thread(s), {:.0} MB/s",
            db.manager(),
            summary.packages,
            summary.listed,
            summary.hashed,
            summary.bytes as f64 / 1e6,
            summary.bytes as f64 / 1e6 / took,
        );
        println!(
            "  {} match, {} changed, {} without a digest; {} missing, {} unreadable, {} unsettled, {} faults",
            count(Verdict::Matches),
            count(Verdict::Changed),
            count(Verdict::NoDigest),
            summary.missing,
            summary.unreadable,
            summary.unsettled,
            summary.faults.count(),
        );
        println!("  trust database {:.1} MB; process {}", trust.memory() as f64 / 1e6, resident());
        let mut changed: BTreeMap<String, usize> = BTreeMap::new();
        for learned in trust.iter().filter(|l| l.verdict == Verdict::Changed) {
            *changed.entry(learned.package.to_string()).or_default() += 1;
        }
        for (package, files) in changed {
            println!("  {files} changed of {package}");
        }
        let began = Instant::now();
        let again = refresh(&db, trust, budget, &mut |_| ControlFlow::Continue(()))?;
        println!(
            "  refresh of an unchanged database: {:.1} ms, {}",
            began.elapsed().as_secs_f64() * 1e3,
            if again.is_none() { "nothing read" } else { "read again" }
        );
    }
    Ok(())
}

/// Memory of this process now, and at its peak (proc_pid_status(5)).
fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status.lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"));
    lines.map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}
