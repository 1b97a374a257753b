use std::fs;
use std::thread;
use std::time::Duration;

/// Starts threads that do a service's small work: wake up, ask the kernel something, compute a little, wait.
/// They live as long as the process.
pub(crate) fn start(count: u32) {
    for index in 0..count {
        thread::spawn(move || {
            let pause = Duration::from_millis(20 + u64::from(index % 7) * 15);
            let mut sum = 0_u64;
            loop {
                thread::sleep(pause);
                sum = sum.wrapping_add(
                    fs::metadata("/proc/self").map_or(0, |m| m.permissions().readonly().into()),
                );
                sum = std::hint::black_box((0..20_000_u64).fold(sum, |a, b| a.rotate_left(5) ^ b));
            }
        });
    }
}
