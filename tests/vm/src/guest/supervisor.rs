use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use davy_test_vm::cases::NAMES;
use davy_test_vm::report::{Line, Outcome, SKIP_CODE};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

use crate::cases::{SELF, boot_option};

/// The longest one case may take before its cgroup is killed.
const LIMIT: Duration = Duration::from_secs(120);

/// And one of the bench, whose seconds are a thousand million instructions each. The host ends it sooner.
const COST_LIMIT: Duration = Duration::from_secs(3600);

/// How much of a failed case's output is reported, in bytes.
const TOLD: usize = 12_000;

/// Runs the whole machine. Never returns: the first program must not end.
pub(crate) fn run() -> ExitCode {
    if let Err(error) = mount_all() {
        println!("mounting failed: {error:#}");
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    say(&Line::Up { kernel: kernel.trim().to_owned() });
    if let Some(case) = boot_option("davy.cost") {
        tell(&case, COST_LIMIT);
    } else {
        let only = boot_option("davy.only").unwrap_or_default();
        NAMES.iter().filter(|case| case.contains(&only)).for_each(|case| tell(case, LIMIT));
    }
    say(&Line::Done);
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    loop {
        std::thread::park();
    }
}

/// Runs a case and says how it went.
fn tell(case: &str, limit: Duration) {
    say(&Line::Begin { case: case.to_owned() });
    let begin = Instant::now();
    let outcome = run_case(case, limit).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    say(&Line::End { case: case.to_owned(), outcome, ms });
}

/// One line on the console, begun on a line of its own.
fn say(line: &Line) {
    println!("\n{}", line.print());
}

fn mount_all() -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    for (kind, place, flags) in [
        ("proc", "/proc", plain),
        ("sysfs", "/sys", plain),
        ("devtmpfs", "/dev", MountFlags::NOSUID),
        ("tmpfs", "/tmp", plain),
        ("tmpfs", "/run", plain),
        ("cgroup2", "/sys/fs/cgroup", plain),
        ("bpf", "/sys/fs/bpf", plain),
        ("securityfs", "/sys/kernel/security", plain),
    ] {
        mount(kind, place, kind, flags, None).with_context(|| format!("{kind} on {place}"))?;
    }
    for folder in ["/dev/shm", "/var/log"] {
        fs::create_dir_all(folder)?;
    }
    mount("tmpfs", "/dev/shm", "tmpfs", plain, None)?;
    Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]).status()?;
    Ok(())
}

fn run_case(case: &str, limit: Duration) -> Result<Outcome> {
    let cgroup = Cgroup::make(case)?;
    let log = PathBuf::from(format!("/tmp/{case}.log"));
    let output = fs::File::create(&log)?;
    let mut command = Command::new(SELF);
    command
        .args(["case", case])
        .arg(&cgroup.0)
        .env("PATH", "/bin:/usr/sbin")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    command.process_group(0);
    let mut child = command.spawn()?;
    let status = wait(&mut child, &cgroup, limit)?;
    let said = fs::read(&log)?;
    let tail = String::from_utf8_lossy(&said[said.len().saturating_sub(TOLD)..]).into_owned();
    // What was tried is for the harness; a case that failed says nothing of it.
    if status.is_some_and(|status| status.success()) {
        let lines = String::from_utf8_lossy(&said).into_owned();
        let lines = lines.lines().filter_map(Line::parse);
        lines.filter(|line| matches!(line, Line::Tried { .. })).for_each(|line| say(&line));
    }
    Ok(match status.map(|status| status.code()) {
        Some(Some(0)) => Outcome::Passed,
        Some(Some(SKIP_CODE)) => Outcome::Skipped(tail.lines().next_back().unwrap_or("").to_owned()),
        Some(code) => Outcome::Failed(format!("exit {code:?}\n{tail}")),
        None => Outcome::Failed(format!("not done after {} s\n{tail}", limit.as_secs())),
    })
}

/// The status of a case, or nothing when its time was over.
fn wait(child: &mut Child, cgroup: &Cgroup, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            cgroup.kill();
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The cgroup of one case; killed and removed with everything in it.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(name: &str) -> Result<Self> {
        let path = Path::new("/sys/fs/cgroup").join(name);
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    fn kill(&self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.kill();
        for _ in 0..100 {
            // Orphans of the case are this program's children now.
            while rustix::process::wait(rustix::process::WaitOptions::NOHANG).is_ok_and(|w| w.is_some()) {}
            remove_below(&self.0);
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Removes the empty cgroups that a case made below its own.
fn remove_below(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_below(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}
