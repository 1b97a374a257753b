//! The life of the package under systemd, as both sides of the serial line know it.

/// Every step, in the order they run. Each goes on where the one before it ended.
pub const STEPS: &[&str] = &[
    "package_installs_and_the_unit_starts",
    "unit_is_hardened",
    "pool_is_cut_off_in_one_service",
    "canary_is_stopped_in_the_units_sandbox",
    "code_that_nobody_vouches_for_is_refused",
    "upgrade_leaves_no_gap",
    "signals_from_outside_are_refused",
    "crash_leaves_no_gap",
    "restarted_service_stays_cut_off",
    "stop_by_systemd_keeps_what_is_cut_off",
    "order_to_stop_opens_and_stays_stopped",
    "read_only_disk_leaves_protection_on",
    "purge_leaves_nothing",
];

/// Where the package lies in the machine, by its version: the first, and the one it is upgraded to.
pub const PACKAGES: [&str; 2] = ["/opt/first.deb", "/opt/second.deb"];

/// Kernel modules that Davy's tables in nftables need, each after what it depends on. They lie in `/opt/modules`.
pub const FIREWALL_MODULES: [&str; 11] = [
    "libcrc32c",
    "nfnetlink",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_conntrack",
    "nf_tables",
    "nft_ct",
    "nft_fib",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_fib_inet",
];
