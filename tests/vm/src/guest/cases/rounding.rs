use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Started;
use crate::watch::Watch;

/// Sweeps over the threads, so many and so often.
const SWEEPS: u32 = 40;
const PERIOD: Duration = Duration::from_millis(100);

/// The saved rounding mode of a load that changes it, and of one that does not, on this kernel's FPU layout.
pub(super) fn rounding_mode_is_seen() -> Result<()> {
    let watch = Watch::start()?;
    let changing = Started::act(&["spin", "rounding"])?;
    let plain = Started::act(&["spin", "plain"])?;
    let (mut of_changing, mut of_plain) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..SWEEPS {
        std::thread::sleep(PERIOD);
        for thread in watch.sensors.sample()?.threads {
            let modes = match thread.process.pid {
                pid if pid == changing.pid() => &mut of_changing,
                pid if pid == plain.pid() => &mut of_plain,
                _ => continue,
            };
            modes.extend(thread.mxcsr.map(|mxcsr| (mxcsr >> 13) & 3));
        }
    }
    println!("rounding modes of the changing load {of_changing:?}, of the plain one {of_plain:?}");
    ensure!(of_changing.len() >= 3, "of four modes only {of_changing:?} were seen");
    ensure!(of_plain == BTreeSet::from([0]), "a plain load shows {of_plain:?}");
    Ok(())
}
