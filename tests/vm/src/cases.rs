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
    "isolated_host_reaches_nobody",
    "port_watch_begins",
    "outbound_rules_hold_in_their_scope",
    "agent_finds_a_randomx_shape",
    "drills_of_campaign_and_tampering_hold",
    "unknown_programs_are_refused_in_their_scope",
    "changed_programs_are_refused",
    "no_race_of_writer_and_exec_is_won",
    "judging_is_never_passed_over",
    "observing_refuses_nothing",
    "blocked_programs_are_refused_although_vouched_for",
    "nameless_programs_are_refused",
    "trusted_files_are_read_once",
    "code_for_the_loader_is_judged",
    "written_memory_is_not_executed",
    "mapped_files_are_judged_when_made_executable",
    "mapped_code_is_not_overwritten",
    "page_zero_is_survived",
    "injection_is_refused",
    "kernel_code_is_judged",
    "unknown_scripts_are_refused",
    "trusted_writers_output_is_trusted",
    "package_managers_are_trusted_as_root",
    "another_file_system_is_judged_anew",
    "nothing_is_remembered_on_overlays",
    "services_start_no_shells",
    "containers_are_not_bound_by_their_daemon",
    "running_services_are_bound",
    "unknown_programs_are_refused_by_every_name",
    "mounted_images_are_judged",
    "what_user_space_serves_is_refused",
    "overlays_of_users_are_refused",
    "enforcement_outlives_the_agent",
];

/// A program with a loader and one library, and where each lies in the machine.
pub const DYNAMIC: [(&str, &str); 3] = [
    ("/bin/true", "bin/dynamic"),
    ("/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ("/lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libc.so.6"),
];

/// Kernel modules that cases load.
pub const MODULES: &[&str] = &["msr", "overlay", "loop", "fuse"];
