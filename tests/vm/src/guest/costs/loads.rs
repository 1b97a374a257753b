use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use davy_test_vm::costs::{Count, DIGEST, FIRST_SIGHT, LOADS, REST};
use davy_test_vm::report::Line;

const EXECS: u32 = 200;
const CONNECTS: u32 = 4_000;
const DATAGRAMS: u32 = 10_000;
const OPENS: u32 = 30_000;
const SOURCES: u32 = 3;
const STRANGERS: u32 = 4;

/// Where loads keep what they work on.
const FOLDER: &str = "/tmp/loads";

/// For how long the machine is watched with nothing to do.
const REST_TIME: Duration = Duration::from_secs(5);

/// How long after a load its traces are worked up still: batches of events, writes of a store.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Counts the machine at rest and then every load, and says each on standard output. All loads are made `of_all`
/// times smaller, and those of the network `of_net` times again.
pub(super) fn run(round: u32, watched: bool, of_all: u32, of_net: u32) -> Result<()> {
    fs::create_dir_all(FOLDER)?;
    for number in 0..SOURCES {
        fs::write(format!("{FOLDER}/part{number}.c"), source(number))?;
    }
    fs::write(format!("{FOLDER}/plain"), "text")?;
    let say = |load: &str, times, instructions| {
        let count = Count { load: load.to_owned(), round, watched, times, instructions };
        println!("\n{}", Line::Counted(count).print());
    };

    let rest = executed_during(|| Ok(()), REST_TIME)?.0 as f64 / REST_TIME.as_secs_f64();
    say(REST, 1, rest as u64);
    let sizes = [EXECS, CONNECTS / of_net, DATAGRAMS / of_net, OPENS, SOURCES];
    let kinds: [fn(u32) -> Result<()>; 5] = [exec, tcp, udp, open, build];
    for (load, (kind, times)) in LOADS.iter().zip(kinds.into_iter().zip(sizes)) {
        let times = times.div_ceil(of_all);
        let (executed, time) = executed_during(|| kind(times), AFTERMATH).context(load.name)?;
        say(load.name, times, (executed as f64 - rest * time.as_secs_f64()) as u64);
    }
    let times = STRANGERS.div_ceil(of_all);
    let programs = strangers(round, watched, times)?;
    let of_programs: [(_, fn(&Path)); 2] = [(FIRST_SIGHT, execute), (DIGEST, digest)];
    for (load, act) in of_programs {
        let all = || {
            programs.iter().for_each(|program| act(program));
            Ok(())
        };
        let (executed, time) = executed_during(all, AFTERMATH).context(load)?;
        say(load, times, (executed as f64 - rest * time.as_secs_f64()) as u64);
    }
    programs.iter().try_for_each(fs::remove_file)?;
    Ok(())
}

/// Programs of 1 MiB that end at once, each with other bytes.
fn strangers(round: u32, watched: bool, times: u32) -> Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for number in 0..times {
        let path = Path::new(FOLDER).join(format!("stranger{number}"));
        let mut bytes = crate::cases::tiny_program(0);
        bytes.extend(format!("{round} {watched} {number} {}", std::process::id()).bytes());
        bytes.resize(1 << 20, 0x5a);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        programs.push(path);
    }
    Ok(programs)
}

fn execute(program: &Path) {
    // Refused where somebody guards against strangers.
    let _ = Command::new(program).status();
}

fn digest(program: &Path) {
    let _ = Command::new("/usr/bin/sha256sum").arg(program).stdout(Stdio::null()).status();
}

/// Instructions that were executed, and the time that went by, while something was done and for `after` longer.
fn executed_during(act: impl FnOnce() -> Result<()>, after: Duration) -> Result<(u64, Duration)> {
    // The scheduler adds a slice when it ends: this process's own must have ended.
    std::thread::sleep(Duration::from_millis(20));
    let (before, begin) = (executed()?, Instant::now());
    act()?;
    std::thread::sleep(after);
    Ok((executed()? - before, begin.elapsed()))
}

/// Nanoseconds that the CPU was not idle since it started.
fn executed() -> Result<u64> {
    let text = fs::read_to_string("/proc/schedstat").context("reading /proc/schedstat")?;
    let cpu = text.lines().find_map(|line| line.strip_prefix("cpu0 ")).context("schedstat has no CPU")?;
    // Documentation/scheduler/sched-stats.rst: the seventh is the time spent running tasks.
    Ok(cpu.split(' ').nth(6).context("schedstat has no running time")?.parse()?)
}

/// A file of C that keeps a compiler busy for some hundredths of a second.
fn source(number: u32) -> String {
    let mut text = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    for function in 0..10 {
        text.push_str(&format!(
            "static int f{function}(int n, const char *s) {{\n    int sum = {number};\n    \
             for (int i = 0; i < n; i++) sum += s[i % (int)strlen(s)] * i ^ {function};\n    return sum;\n}}\n"
        ));
    }
    text.push_str(&format!("int part{number}(int n) {{\n    int sum = 0;\n"));
    for function in 0..10 {
        text.push_str(&format!("    sum += f{function}(n, \"part {function}\");\n"));
    }
    text.push_str("    return sum;\n}\n");
    text
}

fn exec(times: u32) -> Result<()> {
    for _ in 0..times {
        ensure!(Command::new("/bin/true").status()?.success(), "/bin/true failed");
    }
    Ok(())
}

fn tcp(times: u32) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    for _ in 0..times {
        let client = TcpStream::connect(address)?;
        drop(listener.accept()?);
        drop(client);
    }
    Ok(())
}

fn udp(times: u32) -> Result<()> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = receiver.local_addr()?;
    let mut buffer = [0; 8];
    for _ in 0..times {
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        sender.connect(address)?;
        sender.send(b"datagram")?;
        receiver.recv(&mut buffer)?;
    }
    Ok(())
}

fn open(times: u32) -> Result<()> {
    let path = Path::new(FOLDER).join("plain");
    for _ in 0..times {
        drop(File::open(&path)?);
    }
    Ok(())
}

fn build(times: u32) -> Result<()> {
    for number in 0..times {
        let name = format!("part{number}");
        let mut compiler = Command::new("/usr/bin/gcc-12");
        compiler.env("PATH", "/usr/bin").current_dir(FOLDER).args([
            "-O1",
            "-c",
            "-o",
            &format!("{name}.o"),
            &format!("{name}.c"),
        ]);
        ensure!(compiler.status()?.success(), "gcc failed on {name}.c");
    }
    Ok(())
}
