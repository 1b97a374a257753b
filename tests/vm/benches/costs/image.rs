use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use davy_test_vm::costs::QUEUE_MODULES;
use davy_test_vm::{Initramfs, Kernel, Series, Userland, davy, store};

/// Debian's settings, then programs and connections: the rules of a usual deployment.
const AUDIT_RULES: &str = "-D\n-b 8192\n--backlog_wait_time 60000\n-f 1\n\
    -a always,exit -F arch=b64 -S execve,execveat -k davy-bench\n\
    -a always,exit -F arch=b64 -S connect -k davy-bench\n";

/// fapolicyd's default policy, `known-libs`, as the README of its rules composes it. Debian installs the last but one
/// alone, which lets nothing run.
const FAPOLICYD_RULES: [&str; 11] = [
    "10-languages",
    "20-dracut",
    "21-updaters",
    "30-patterns",
    "40-bad-elf",
    "41-shared-obj",
    "42-trusted-elf",
    "70-trusted-lang",
    "72-shell",
    "90-deny-execute",
    "95-allow-open",
];

/// Lays out and packs what the machines of a kernel have for a file system.
pub(crate) fn pack(series: Series, kernel: &Kernel) -> Result<PathBuf> {
    let store = store();
    let folder = store.join(format!("{}.costs.root", series.name()));
    let image = store.join(format!("{}.costs.cpio", series.name()));
    let guest = std::env::var_os("CARGO_BIN_EXE_davy-vm-guest").context("run this by cargo bench")?;
    let initramfs = Initramfs::lay_out(&folder, Path::new(&guest))?;
    Userland::obtain(&store)?.lay_into(&initramfs)?;
    if let Some(davy) = davy() {
        initramfs.add(&davy, "usr/sbin/davy")?;
    }
    for module in QUEUE_MODULES.iter().filter_map(|name| kernel.module(name)) {
        initramfs.add_module(&module)?;
    }
    initramfs.write("etc/group", "root:x:0:\nadm:x:4:\n")?;
    initramfs.write("etc/audit/davy-bench.rules", AUDIT_RULES)?;
    configure_fapolicyd(&initramfs)?;
    initramfs.write(
        "etc/opensnitchd/default-config.json",
        r#"{
    "Server": {"Address": "unix:///tmp/osui.sock", "LogFile": "/tmp/opensnitchd.log"},
    "DefaultAction": "allow",
    "DefaultDuration": "once",
    "InterceptUnknown": false,
    "ProcMonitorMethod": "proc",
    "LogLevel": 2,
    "Firewall": "nftables",
    "Stats": {"MaxEvents": 150, "MaxStats": 25}
}
"#,
    )?;
    initramfs.pack(&image)?;
    Ok(image)
}

/// Debian's configuration but for the accounts and file systems that this machine has, and the whole of it trusted.
fn configure_fapolicyd(initramfs: &Initramfs) -> Result<()> {
    let mut rules = String::new();
    for name in FAPOLICYD_RULES {
        rules.push_str(&initramfs.read(&format!("usr/share/fapolicyd/sample-rules/{name}.rules"))?);
    }
    initramfs.write("etc/fapolicyd/compiled.rules", &rules)?;
    let configuration = initramfs.read("etc/fapolicyd/fapolicyd.conf")?;
    let settings = [
        ("uid = fapolicyd", "uid = root"),
        ("gid = fapolicyd", "gid = root"),
        ("watch_fs = ", "watch_fs = rootfs,"),
        ("trust = rpmdb,file", "trust = file"),
    ];
    let configuration = settings.iter().fold(configuration, |text, (from, to)| text.replace(from, to));
    initramfs.write("etc/fapolicyd/fapolicyd.conf", &configuration)?;
    let mut trusted = String::new();
    for (path, size, sum) in initramfs.programs()? {
        writeln!(trusted, "{} {size} {sum}", path.display())?;
    }
    initramfs.write("etc/fapolicyd/fapolicyd.trust", &trusted)
}
