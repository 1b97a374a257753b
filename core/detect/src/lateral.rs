//! Who goes from this host to others inside.

use davy_model::{LateralMove, ProcessKey, Signal, Timestamp};

use crate::flow_watch::Noted;
use crate::ledger::{Particulars, evidence};

/// From how many bits on it is more than a first step: a new peer of a web service comes to 7 at the most.
pub(crate) const CLEAR: f32 = 10.0;

/// The number of a piece of evidence that says when its move began, in seconds of the epoch: what tells one move from the next.
pub(crate) const BEGAN: &str = "began";

/// What a move says. What is usual for whom is decided elsewhere; here it is told.
pub(crate) fn look(time: Timestamp, key: ProcessKey, moved: &LateralMove) -> Noted {
    let bits = moved.millibits as f32 / 1000.0;
    let addresses: u32 = moved.reached.iter().map(|reached| reached.count).sum();
    // Several services at once are going through a network; of one its own technique tells more.
    let technique = match moved.reached.as_slice() {
        [one] => one.technique.0.as_str(),
        _ => "T1021",
    };
    let found = evidence(time, Signal::Lateral, bits, moved.words())
        .of(key)
        .technique(if addresses > MANY { "T1046" } else { technique })
        .number("addresses", f64::from(addresses))
        .number(BEGAN, moved.began.secs_since(Timestamp(0)))
        .number("seconds", f64::from(moved.secs));
    ("lateral", found)
}

/// More addresses than this are looked through, whatever is done at each.
const MANY: u32 = 16;
