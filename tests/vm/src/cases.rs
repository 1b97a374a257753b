//! What the guest can try. The names are here, because test results need them before any machine has booted.

/// Every case, in the order they run.
pub const NAMES: &[&str] = &["stock_kernel_offers_bpf_lsm"];

/// Kernel modules that cases load.
pub const MODULES: &[&str] = &["msr"];
