use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// What a worker needs: its open descriptors, memory, the clock, random seeds for hash tables, and its own end. Anything else
/// ends the process.
const ALLOWED: [i64; 24] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_ppoll,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What a worker needs besides that is handed files.
const WITH_FILES: [i64; 2] = [libc::SYS_recvmsg, libc::SYS_pread64];

/// Calls that take a protection, by the position of that argument: allowed as long as nothing becomes executable.
const MEMORY: [(i64, u8); 2] = [(libc::SYS_mmap, 2), (libc::SYS_mprotect, 2)];

/// Lets only these system calls through from here on. The error is a sentence for people.
pub(crate) fn filter(receives_files: bool) -> Result<(), String> {
    let program =
        program(receives_files).map_err(|error| format!("system calls are not filtered: {error}"))?;
    seccompiler::apply_filter(&program)
        .map_err(|error| format!("system calls are not filtered: {error}; it needs CONFIG_SECCOMP_FILTER"))
}

fn program(receives_files: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    if receives_files {
        rules.extend(WITH_FILES.map(|call| (call, Vec::new())));
        // Debug builds of the standard library ask whether a descriptor is open before they close it.
        let asks = u64::from(libc::F_GETFD.cast_unsigned());
        let only = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, asks)?;
        rules.insert(libc::SYS_fcntl, vec![SeccompRule::new(vec![only])?]);
    }
    for (call, argument) in MEMORY {
        let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC.cast_unsigned().into());
        let not = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, executable, 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![not])?]);
    }
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}
