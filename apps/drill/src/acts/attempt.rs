//! Tries to run code that nobody vouches for, from inside a cgroup, and says what came of it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, bail};
use rustix::fs::MemfdFlags;

/// A packaged program that does nothing.
const PACKAGED: &str = "/usr/bin/true";

/// Loaders of the C library, by machine.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

/// Makes the code in the folder, enters the cgroup, and tries: `ran`, or `refused` and why.
pub(super) fn run(cgroup: &str, code: &str, folder: &Path) -> anyhow::Result<()> {
    let mut memory = None;
    let mut command = match code {
        "altered" => Command::new(altered(folder)?),
        "by-loader" => {
            let loader = LOADERS.iter().find(|path| Path::new(path).exists());
            let mut command = Command::new(loader.context("there is no loader known to this drill")?);
            command.arg(altered(folder)?);
            command
        }
        "script" => {
            let script = folder.join(format!("script-{}.sh", std::process::id()));
            fs::write(&script, "exit 0\n").context("write a script")?;
            let mut command = Command::new("/bin/sh");
            command.arg(script);
            command
        }
        "memory" => {
            let file = rustix::fs::memfd_create("davy-drill", MemfdFlags::empty()).context("make a memfd")?;
            let mut file = File::from(file);
            io::copy(&mut File::open(PACKAGED)?, &mut file).context("copy a program into memory")?;
            let command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
            memory = Some(file);
            command
        }
        _ => bail!("there is no such code: {code}"),
    };
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0")
        .with_context(|| format!("enter the cgroup {cgroup}"))?;
    let tried = command.env_clear().stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null()).status();
    drop(memory);
    println!("{}", outcome(tried));
    Ok(())
}

/// What a try came to. A loader or a shell that may not open what it was given ends with an error of its own.
fn outcome(tried: io::Result<ExitStatus>) -> String {
    match tried {
        Ok(status) if status.success() => "ran".to_owned(),
        Ok(status) => format!("refused {status}"),
        Err(why) => format!("refused {why}"),
    }
}

/// A packaged program with a byte more.
fn altered(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    // Another file each time: what is told of one and the same is told once a while.
    let copy = folder.join(format!("altered-{}", std::process::id()));
    let mut bytes = fs::read(PACKAGED).with_context(|| format!("read {PACKAGED}"))?;
    bytes.push(0);
    let mut file = File::create(&copy).context("make a copy")?;
    file.write_all(&bytes).context("write a copy")?;
    drop(file);
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).context("make the copy executable")?;
    Ok(copy)
}
