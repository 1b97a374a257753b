//! Preparation of the machine for RandomX: huge pages reserved, prefetchers switched off by model-specific registers.

use davy_model::{CodeAct, Evidence, ProcessInfo, ProcessKey, Signal, Timestamp};

use crate::flow_watch::Noted;
use crate::ledger::{Particulars, evidence};
use crate::process_table::base_name;
use crate::weights::PREPARATION;

/// Major number of /dev/cpu/*/msr (Linux devices.txt).
const MSR_MAJOR: u32 = 202;
/// Huge pages of 2 MiB for a cache and scratchpads; a dataset needs 1,168.
const FEW_PAGES: u64 = 128;

fn prepared(time: Timestamp, process: ProcessKey, weight: f32, text: String) -> Evidence {
    evidence(time, Signal::Preparation, weight, text).of(process).technique("T1496.001")
}

/// What an act on code and devices says.
pub(crate) fn look(time: Timestamp, process: ProcessKey, act: &CodeAct) -> Option<Noted> {
    match act {
        CodeAct::DeviceOpen { major: MSR_MAJOR, write: true, .. } => {
            let text = "opened the CPU's model-specific registers for writing".to_owned();
            Some(("preparation/msr", prepared(time, process, PREPARATION, text)))
        }
        CodeAct::ModuleLoad { name } if name == "msr" => {
            let text = "loaded the kernel module for model-specific registers".to_owned();
            Some(("preparation/msr", prepared(time, process, PREPARATION * 0.6, text)))
        }
        CodeAct::HugePagesReserved { before, now } if *now >= before.saturating_add(FEW_PAGES) => {
            let text = format!("reserved huge pages: {before} before, {now} now");
            Some((
                "preparation/pages",
                prepared(time, process, PREPARATION, text).number("pages", *now as f64),
            ))
        }
        _ => None,
    }
}

/// What an exec of the tools for it says.
pub(crate) fn command(time: Timestamp, info: &ProcessInfo) -> Option<Noted> {
    let tool = base_name(&info.image.path);
    let tool = if matches!(tool, "kmod" | "busybox") {
        info.args.first().map_or(tool, |a| base_name(a))
    } else {
        tool
    };
    let has = |word: &str| info.args.iter().skip(1).take(32).any(|a| a.contains(word));
    match tool {
        "modprobe" | "insmod" if info.args.iter().skip(1).any(|a| a == "msr") => {
            let text = "loads the kernel module for model-specific registers".to_owned();
            Some(("preparation/msr", prepared(time, info.key, PREPARATION * 0.6, text)))
        }
        "wrmsr" => {
            let text = "writes model-specific registers".to_owned();
            Some(("preparation/msr", prepared(time, info.key, PREPARATION, text)))
        }
        "sysctl" if has("nr_hugepages") && info.args.iter().any(|a| a.contains('=') || a == "-w") => {
            let text = format!("reserves huge pages: {}", info.args.join(" "));
            Some(("preparation/pages", prepared(time, info.key, PREPARATION * 0.8, text)))
        }
        _ => None,
    }
}
