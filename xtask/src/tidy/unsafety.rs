//! `unsafe` is denied by a workspace lint; only rooms that must may lift it.

use super::{Fault, Report};
use crate::house::House;

/// Rooms whose modules may lift the lint, with the reason why there is no other way.
const MAY: [(&str, &str); 5] = [
    ("host/", "system calls, BPF and netlink have no safe form"),
    ("apps/drill", "harmless attacks do what the safe world forbids"),
    ("tests/miner", "calls the reference RandomX, which is C++"),
    ("tests/vm", "the guest's cases set the rounding mode and change memory protection"),
    ("tests/bench", "measures fork and exec without a library between"),
];

pub(super) fn check(house: &House, report: &mut Report) {
    for file in house.files.iter().filter(|f| f.ending() == "rs" && !f.path.starts_with("xtask/")) {
        if MAY.iter().any(|(room, _)| file.path.starts_with(room)) {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if code.contains("unsafe_code") || code.contains("unsafe {") || code.contains("unsafe fn") {
                report.faults.push(Fault::new(
                    format!("{}:{}", file.path, number + 1),
                    "unsafe code is for host/* and the few rooms that xtask/src/tidy/unsafety.rs names",
                ));
            }
        }
    }
}
