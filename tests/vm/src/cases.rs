//! What the guest can try. The names are here, because test results need them before any machine has booted.

/// Every case, in the order they run.
pub const NAMES: &[&str] = &[
    "stock_kernel_offers_bpf_lsm",
    "every_capability_is_proven",
    "processes_are_seen",
    "flows_are_seen",
    "rounding_mode_is_seen",
    "written_then_executable_is_seen",
    "memfd_execution_is_seen",
    "msr_write_is_seen",
    "guarded_process_is_not_killed",
    "guarded_process_is_not_traced",
    "guarded_files_are_not_changed",
    "guarded_attributes_are_not_changed",
    "guarded_pins_are_not_taken",
    "guard_ends_with_the_sensors",
    "destination_is_closed_for_one_cgroup",
    "pinned_block_outlives_the_agent",
    "agent_finds_a_randomx_shape",
];

/// Kernel modules that cases load.
pub const MODULES: &[&str] = &["msr"];
