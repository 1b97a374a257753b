use std::sync::mpsc;
use std::time::Duration;

use super::Refusal;
use crate::sample::Sampler;

/// Loads the task iterator and looks for this thread in what it gives.
pub(super) fn iterator() -> Result<String, Refusal> {
    let sampler = load()?;
    let threads =
        sampler.sweep().map_err(|error| format!("the task iterator loads but cannot be read: {error}"))?;
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    if threads.iter().any(|thread| i32::try_from(thread.tid) == Ok(own)) {
        Ok(format!("the task iterator loads, and found this thread among {}", threads.len()))
    } else {
        Err("the task iterator loads, but did not find this thread; Davy must run in the host's pid namespace".to_owned())
    }
}

/// Sets the rounding mode of a thread of its own and looks whether the iterator reads it back.
#[cfg(target_arch = "x86_64")]
pub(super) fn registers() -> Result<String, Refusal> {
    /// The initial state with rounding up and with rounding down: exceptions stay masked.
    const MODES: [u32; 2] = [0x5f80, 0x3f80];
    let sampler = load()?;
    for mode in MODES {
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _ = tell.send(rustix::thread::gettid().as_raw_nonzero().get());
            crate::sys::sleep_with_mxcsr(mode, Duration::from_millis(100));
        });
        let tid = told.recv().map_err(|_| "a thread to look at could not be started".to_owned())?;
        std::thread::sleep(Duration::from_millis(30));
        let seen = sampler.sweep().map_err(|error| error.to_string())?;
        let seen = seen.iter().find(|thread| i32::try_from(thread.tid) == Ok(tid)).copied();
        let _ = thread.join();
        let read = seen.filter(|thread| thread.has_mxcsr != 0).map(|thread| thread.mxcsr);
        // The sticky exception flags in the low six bits are not part of what was set.
        if read.map(|value| value & !0x3f) != Some(mode) {
            let found = read.map_or_else(|| "nothing".to_owned(), |value| format!("{value:#x}"));
            return Err(format!(
                "a thread that had set MXCSR to {mode:#x} was read as {found}: the saved registers lie elsewhere in this kernel"
            ));
        }
    }
    Ok("a thread's rounding mode was set to up and to down, and read back from its saved registers"
        .to_owned())
}

/// MXCSR is a register of x86.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn registers() -> Result<String, Refusal> {
    Err("this processor has no MXCSR; the rounding mode is only read on x86-64".to_owned())
}

fn load() -> Result<Sampler, Refusal> {
    Sampler::load(0)
        .map_err(|error| format!("the kernel refuses task iterators ({error}); they need Linux 5.8 or later"))
}
