//! A file that needs scrolling all day knows too much.

use super::{Fault, Report};
use crate::house::House;

/// Lines from which tidy advises to split.
const ADVISE: usize = 400;

/// Lines from which it insists.
const INSIST: usize = 800;

pub(super) fn check(house: &House, report: &mut Report) {
    for file in house.files.iter().filter(|f| matches!(f.ending(), "rs" | "c" | "h" | "sh")) {
        let lines = file.text.lines().count();
        if lines > INSIST {
            report.faults.push(Fault::new(&file.path, format!("{lines} lines: split it (at most {INSIST})")));
        } else if lines > ADVISE {
            report
                .advice
                .push(Fault::new(&file.path, format!("{lines} lines: is it still about one thing?")));
        }
    }
}
