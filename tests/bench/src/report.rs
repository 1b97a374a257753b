use std::fmt::Write;
use std::fs;

use anyhow::Result;
use serde::Serialize;

use crate::agent::Rest;
use crate::flood::Flood;
use crate::gate::GateCost;
use crate::loads::LOADS;
use crate::network::NetworkCost;
use crate::ratio::Ratio;
use crate::scan::Scan;

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    kernel: String,
    cpu: String,
    cpus: usize,
    /// Runnable processes a minute on average when the run began: a busy host gives wide ranges.
    load: f64,
    rounds: u32,
    /// The tier that the agent ran in.
    pub(crate) tier: String,
    pub(crate) rest: Option<Rest>,
    pub(crate) floods: Vec<Flood>,
    /// Davy against nothing, by load; none without rounds.
    pub(crate) ratios: Vec<Option<Ratio>>,
    /// Scans, by Davy and others; none without rounds.
    pub(crate) scan: Option<Scan>,
    /// The permission gate alone; none without root.
    pub(crate) gate: Option<GateCost>,
    /// The network's protections; none without root.
    pub(crate) network: Option<NetworkCost>,
}

impl Report {
    pub(crate) fn about_this_host(rounds: u32) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: model.map_or_else(String::new, |(_, name)| name.to_owned()),
            cpus: std::thread::available_parallelism()?.get(),
            load: load.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0),
            rounds,
            tier: String::new(),
            rest: None,
            floods: Vec::new(),
            ratios: Vec::new(),
            scan: None,
            gate: None,
            network: None,
        })
    }

    /// Tables for people.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "Linux {}, {} x {}, load {:.1} at the start, tier {}, {} rounds.\n",
            self.kernel, self.cpus, self.cpu, self.load, self.tier, self.rounds
        )?;
        writeln!(out, "| time against nothing, median (quartiles) | goal | davy |")?;
        writeln!(out, "|---|---|---|")?;
        for (load, ratio) in LOADS.iter().zip(&self.ratios) {
            write!(out, "| {} | {:.2} |", load.name, load.goal)?;
            match ratio {
                Some(r) => writeln!(out, " {:.3} ({:.3} to {:.3}) |", r.median, r.lower, r.upper)?,
                None => writeln!(out, " |")?,
            }
        }
        if let Some(GateCost { execs: r, first_sight_ms }) = &self.gate {
            writeln!(
                out,
                "\nPermission gate on a mount of its own: fork+exec+exit of a known program {:.3} ({:.3} to {:.3}; goal 1.02); \
                 first sight of an unknown one of 1 MiB {first_sight_ms:.1} ms more (goal 5).",
                r.median, r.lower, r.upper
            )?;
        }
        if let Some(rest) = &self.rest {
            writeln!(
                out,
                "\nAt rest, {:.0} s, {} processes on the host: {:.2} % of one core (goal 0.3), {:.1} MB resident (goal 60).",
                rest.seconds,
                rest.processes,
                rest.cpu_percent,
                rest.resident as f64 / 1e6
            )?;
        }
        writeln!(out, "\n| process events a second: asked | made | taken in | lost |\n|---|---|---|---|")?;
        for flood in &self.floods {
            let lost = if flood.lost.is_empty() { "nothing".to_owned() } else { flood.lost.join(", ") };
            writeln!(out, "| {} | {:.0} | {:.0} | {lost} |", flood.asked, flood.made, flood.taken)?;
        }
        if let Some(scan) = &self.scan {
            scan.write(out)?;
        }
        if let Some(network) = &self.network {
            network.write(out)?;
        }
        Ok(())
    }
}
