//! Processes that keep a GPU busy.

use davy_model::{Evidence, GpuUse, Signal, Timestamp};

use crate::ledger::{Particulars, Topic, evidence};
use crate::weights::{GPU_BUSY, GPU_MEMORY, GPU_OPEN};

/// The topic under which it is kept.
pub(crate) const TOPIC: Topic = "gpu";

const GIB: u64 = 1 << 30;
/// Busy from this part of a thousand on; below it work comes in bursts, as drawing does.
const BUSY: u16 = 850;

/// What one look at a GPU says; `None` for one that is merely used.
pub(crate) fn weigh(time: Timestamp, look: &GpuUse) -> Option<Evidence> {
    let memory = look.memory as f64 / GIB as f64;
    let (bits, text) = match look.busy_permille {
        Some(busy) if busy >= BUSY => {
            let held = if look.memory >= 2 * GIB { GPU_MEMORY } else { 0.0 };
            let share = f64::from(busy) / 10.0;
            (
                GPU_BUSY + held,
                format!(
                    "keeps GPU {} busy {share:.0} % of the time and holds {memory:.1} GiB of it",
                    look.device
                ),
            )
        }
        Some(_) => return None,
        None => (GPU_OPEN, format!("has GPU {} open; how busy it is cannot be seen", look.device)),
    };
    Some(
        evidence(time, Signal::Gpu, bits, text)
            .of(look.process)
            .technique("T1496.001")
            .number("busy_permille", f64::from(look.busy_permille.unwrap_or(0)))
            .number("memory_gib", memory),
    )
}
