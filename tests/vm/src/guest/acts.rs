//! Processes for cases to look at. Each ends by itself, or with its case's cgroup.
#![allow(unsafe_code)]

use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a load runs when nobody ends it.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn run(act: &[&str]) -> ExitCode {
    match act {
        ["spin", "rounding"] => spin(true),
        ["spin", "plain"] => spin(false),
        ["connect", to] => match TcpStream::connect(to) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        },
        _ => ExitCode::from(2),
    }
}

/// Computes without a system call but the clock's; with `rounding`, in RandomX's FPU state: flush to zero, denormals
/// are zero, and the rounding mode changed all the time.
fn spin(rounding: bool) -> ExitCode {
    let end = Instant::now() + LIMIT;
    let mut value = 1.000_000_1_f64;
    let mut round = 0u32;
    while Instant::now() < end {
        for _ in 0..10_000 {
            if rounding {
                round = round.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                set_mxcsr(0x9fc0 | ((round >> 28) & 3) << 13);
            }
            for _ in 0..200 {
                value = std::hint::black_box(value * 1.000_000_3);
            }
            if !value.is_finite() {
                value = 1.000_000_1;
            }
        }
    }
    ExitCode::SUCCESS
}

fn set_mxcsr(value: u32) {
    // SAFETY: loads the SSE control register from a local with all exceptions masked and no reserved bit set. The
    // arithmetic that follows only loses precision by it.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, readonly)) }
}
