//! core/ decides without I/O, threads or a clock: neither by a crate nor by the standard library.

use super::{Fault, Report};
use crate::house::{House, Layer};

/// Crates that reach outside the process.
const CRATES: [&str; 24] = [
    "async-std",
    "davy-kernel",
    "hyper",
    "inotify",
    "libbpf-rs",
    "libc",
    "memmap2",
    "mio",
    "netlink-sys",
    "nix",
    "polling",
    "procfs",
    "rand",
    "reqwest",
    "rusqlite",
    "rustix",
    "smol",
    "socket2",
    "sqlx",
    "sysinfo",
    "tokio",
    "tracing-subscriber",
    "ureq",
    "walkdir",
];

/// Words of the standard library that do.
const WORDS: [&str; 16] = [
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::io::std",
    "std::os::",
    "SystemTime",
    "Instant::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "println!(",
    "eprintln!(",
    "eprint!(",
    "File::open",
];

pub(super) fn check(house: &House, report: &mut Report) {
    for room in house.rooms.iter().filter(|room| room.layer == Some(Layer::Core)) {
        for dependency in room.dependencies() {
            if !dependency.only_tests && CRATES.contains(&dependency.package.as_str()) {
                report.faults.push(Fault::new(
                    format!("{}/Cargo.toml", room.path),
                    format!("depends on {}: core decides without I/O or a clock", dependency.package),
                ));
            }
        }
        let sources = format!("{}/src", room.path);
        for file in house.files.iter().filter(|f| f.lies_in(&sources) && f.ending() == "rs") {
            if is_test_module(&file.path) {
                continue;
            }
            for (number, line) in file.text.lines().enumerate() {
                // Test modules close a file by convention, and may read fixtures.
                if line.trim_start().starts_with("#[cfg(test)]") {
                    break;
                }
                let code = line.split("//").next().unwrap_or("");
                if let Some(word) = WORDS.iter().find(|word| code.contains(*word)) {
                    report.faults.push(Fault::new(
                        format!("{}:{}", file.path, number + 1),
                        format!(
                            "uses {word}: core decides without I/O or a clock; the caller passes both in"
                        ),
                    ));
                }
            }
        }
    }
}

fn is_test_module(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
        || path.contains("/src/tests/")
        || path.contains("/tests/")
}
