//! Arithmetic under the SSE rounding modes and flags that RandomX runs under, without computing anything of use.
//!
//! The register is changed and put back inside one block of assembly, because the compiler may assume the default
//! everywhere else.
#![allow(unsafe_code)]

/// Flush-to-zero, denormals-are-zero, all exceptions masked (Intel SDM vol. 1, 10.2.3).
#[cfg(target_arch = "x86_64")]
const FLUSH: u32 = 0x9fc0;

/// Where the rounding mode stands in the register.
#[cfg(target_arch = "x86_64")]
const ROUNDING_SHIFT: u32 = 13;

/// The scratchpad's length in numbers: 2 MiB, which is RandomX's.
pub(crate) const PAD: usize = (2 << 20) / size_of::<f64>();

/// Walks the scratchpad at random for `steps` steps in one of the four rounding modes.
///
/// Gives the control and status register as it was inside; `None` where this machine has none.
#[cfg(target_arch = "x86_64")]
pub(crate) fn churn(pad: &mut [f64; PAD], rounding: u32, steps: u32, seed: &mut u64) -> Option<u32> {
    use std::arch::asm;

    let wanted: u32 = FLUSH | ((rounding & 3) << ROUNDING_SHIFT);
    let mut saved: u32 = 0;
    let mut inside: u32 = 0;
    // The block counts down before it looks.
    let steps = steps.max(1);
    // SAFETY: loads and stores stay in `pad`: the offset is masked to a multiple of 16 below its 2 MiB. The control
    // register is put back before the block ends, and everything else that changes is declared.
    unsafe {
        asm!(
            "stmxcsr dword ptr [{saved}]",
            "ldmxcsr dword ptr [{wanted}]",
            "xorpd {sum}, {sum}",
            "2:",
            "imul {state}, {factor}",
            "inc {state}",
            "mov {offset}, {state}",
            "shr {offset}, 24",
            "and {offset}, {mask}",
            "movupd {value}, xmmword ptr [{pad} + {offset}]",
            "addpd {sum}, {value}",
            "mulpd {value}, {sum}",
            "xorpd {value}, {sum}",
            "movupd xmmword ptr [{pad} + {offset}], {value}",
            "dec {left:e}",
            "jnz 2b",
            "stmxcsr dword ptr [{inside}]",
            "ldmxcsr dword ptr [{saved}]",
            saved = in(reg) &raw mut saved,
            wanted = in(reg) &raw const wanted,
            inside = in(reg) &raw mut inside,
            pad = in(reg) pad.as_mut_ptr(),
            factor = in(reg) 6_364_136_223_846_793_005_u64,
            mask = in(reg) (size_of::<[f64; PAD]>() as u64 - 1) & !15,
            state = inout(reg) *seed,
            left = inout(reg) steps => _,
            offset = out(reg) _,
            sum = out(xmm_reg) _,
            value = out(xmm_reg) _,
            options(nostack),
        );
    }
    Some(inside)
}

/// Other machines have no such register.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn churn(_: &mut [f64; PAD], _: u32, _: u32, _: &mut u64) -> Option<u32> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_mode_is_set_inside_and_put_back() {
        let mut pad: Box<[f64; PAD]> = vec![1.5; PAD].into_boxed_slice().try_into().unwrap();
        let mut seed = 7;
        for rounding in 0..4 {
            let inside = churn(&mut pad, rounding, 1000, &mut seed).unwrap();
            assert_eq!(inside & 0xffc0, FLUSH | (rounding << ROUNDING_SHIFT));
        }
        // 1/3 rounds to nearest again.
        assert_eq!((std::hint::black_box(1.0_f64) / 3.0).to_bits(), 0x3fd5_5555_5555_5555);
        assert!(pad.iter().any(|n| *n != 1.5), "the scratchpad was never written");
        assert_ne!(seed, 7);
    }
}
