use std::fmt::Write;

use davy_test_vm::costs::{Count, DIGEST, FIRST_SIGHT, LOADS, REST, Watcher};
use serde::Serialize;

/// One kernel.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Its release.
    pub(crate) kernel: String,
    /// What was compared on it.
    pub(crate) watchers: Vec<Compared>,
}

/// A watcher against nothing, within one boot.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    name: String,
    loads: Vec<Cost>,
    /// Why it could not be counted.
    impossible: Option<String>,
}

/// What a load costs: instructions for one repetition, by round.
#[derive(Debug, Serialize)]
struct Cost {
    load: String,
    without: Vec<f64>,
    with: Vec<f64>,
    /// With against without, by round.
    ratios: Vec<f64>,
}

impl Cost {
    fn of(load: &str, counts: &[Count]) -> Self {
        let each = |watched: bool| -> Vec<f64> {
            // The first round warms caches.
            let wanted = |count: &&Count| count.load == load && count.watched == watched && count.round > 0;
            let one = |count: &Count| count.instructions as f64 / f64::from(count.times);
            counts.iter().filter(wanted).map(one).collect()
        };
        let (without, with) = (each(false), each(true));
        let ratios = with.iter().zip(&without).map(|(with, without)| with / without).collect();
        Self { load: load.to_owned(), without, with, ratios }
    }
}

impl Compared {
    pub(crate) fn counted(watcher: Watcher, counts: &[Count]) -> Self {
        let names = LOADS.iter().map(|load| load.name).chain([REST, FIRST_SIGHT, DIGEST]);
        let loads = names.map(|name| Cost::of(name, counts)).collect();
        Self { name: watcher.name().to_owned(), loads, impossible: None }
    }

    pub(crate) fn impossible(watcher: Watcher, why: &str) -> Self {
        Self { name: watcher.name().to_owned(), loads: Vec::new(), impossible: Some(why.to_owned()) }
    }

    fn cost(&self, load: &str) -> Option<&Cost> {
        self.loads.iter().find(|cost| cost.load == load)
    }
}

impl Report {
    /// A table for people.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let names: String = self.watchers.iter().map(|watcher| format!(" {} |", watcher.name)).collect();
        writeln!(out, "Linux {}:\n", self.kernel)?;
        writeln!(out, "| instructions against nothing | each, with nothing | goal |{names}")?;
        writeln!(out, "|---|---|---|{}", "---|".repeat(self.watchers.len()))?;
        for load in LOADS {
            let costs = || self.watchers.iter().map(|watcher| watcher.cost(load.name));
            let base =
                costs().flatten().find_map(|cost| median(&cost.without)).map_or_else(String::new, thousands);
            write!(out, "| {} | {base} | {:.2} |", load.name, load.goal)?;
            for cost in costs() {
                let ratio = cost.and_then(|cost| median(&cost.ratios));
                write!(out, " {} |", ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")))?;
            }
            writeln!(out)?;
        }
        write!(out, "| at rest, millions a second | | |")?;
        for cost in self.watchers.iter().map(|watcher| watcher.cost(REST)) {
            let more = cost.and_then(|cost| Some(median(&cost.with)? - median(&cost.without)?));
            write!(out, " {} |", more.map_or_else(String::new, |more| format!("{:.1}", more / 1e6)))?;
        }
        writeln!(out)?;
        // How much more the first sight costs, in times of reading the file once.
        write!(out, "| {FIRST_SIGHT}, against {DIGEST} | | |")?;
        for watcher in &self.watchers {
            let of = |load| watcher.cost(load);
            let more = of(FIRST_SIGHT).and_then(|cost| Some(median(&cost.with)? - median(&cost.without)?));
            let digest = of(DIGEST).and_then(|cost| median(&cost.without));
            let times = more.zip(digest).map(|(more, digest)| more / digest);
            write!(out, " {} |", times.map_or_else(String::new, |times| format!("{times:.2}")))?;
        }
        writeln!(out)?;
        for watcher in &self.watchers {
            if let Some(why) = &watcher.impossible {
                writeln!(out, "\n{} was not counted: {why}", watcher.name)?;
            }
        }
        Ok(())
    }
}

/// The middle one; of an even number, the middle of both.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let high = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[sorted.len() / 2 - 1], high)
    } else {
        high
    })
}

fn thousands(instructions: f64) -> String {
    format!("{:.1} k", instructions / 1e3)
}
