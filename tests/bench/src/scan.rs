//! How fast a scan is beside others with the same rules, all on one and the same processor, and how much memory its worker
//! takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::ratio::Ratio;

/// One look at the same folder by everybody.
#[derive(Debug, Serialize)]
pub(crate) struct Scan {
    folder: PathBuf,
    files: u64,
    bytes: u64,
    /// Davy's own speed, middle round.
    megabytes_a_second: f64,
    files_a_second: f64,
    /// The most memory that the worker had resident, in bytes.
    resident: u64,
    /// A second scan of what has not changed, against the first.
    again: Option<Ratio>,
    /// Others' time against Davy's; `None` where one is not installed.
    yara: Option<Ratio>,
    clamscan: Option<Ratio>,
}

/// Scans `folder` with each, `rounds` times, taking turns.
pub(crate) fn measure(davy: &Path, folder: &Path, rounds: u32) -> Result<Scan> {
    let work = tempfile::tempdir()?;
    let rules = work.path().join("rules.yar");
    fs::write(&rules, gather()?)?;
    let with_rules =
        |command: &mut Command| command.arg(&rules).arg(folder).stdout(Stdio::null()).status().is_ok();
    let yara = || timed(&["yara", "-r", "-N", "-w", "-p", "1"], with_rules);
    let clam = |command: &mut Command| {
        command.arg("-d").arg(&rules).arg(folder).stdout(Stdio::null()).status().is_ok()
    };
    let clamscan = || {
        timed(
            &[
                "clamscan",
                "-r",
                "-i",
                "--no-summary",
                "--scan-archive=no",
                "--cross-fs=no",
                "--max-filesize=2000M",
                "--max-scansize=2000M",
            ],
            clam,
        )
    };
    let mut scan = Scan {
        folder: folder.to_owned(),
        files: 0,
        bytes: 0,
        megabytes_a_second: 0.0,
        files_a_second: 0.0,
        resident: 0,
        again: None,
        yara: None,
        clamscan: None,
    };
    let (mut again, mut yaras, mut clams, mut speeds) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        let base = work.path().join(round.to_string());
        let first = scan_once(davy, &base, folder)?;
        let second = scan_once(davy, &base, folder)?;
        let (yara, clamscan) = (yara(), if round < 2 { clamscan() } else { None });
        scan.resident = scan.resident.max(first.resident);
        if round == 0 {
            continue;
        }
        let time = first.time.as_secs_f64();
        (scan.files, scan.bytes) = (first.files, first.bytes);
        speeds.push(time);
        again.push(second.time.as_secs_f64() / time);
        yaras.extend(yara.map(|other| other.as_secs_f64() / time));
        clams.extend(clamscan.map(|other| other.as_secs_f64() / time));
    }
    speeds.sort_by(f64::total_cmp);
    let middle = speeds.get(speeds.len() / 2).copied().unwrap_or(f64::NAN);
    scan.megabytes_a_second = scan.bytes as f64 / 1e6 / middle;
    scan.files_a_second = scan.files as f64 / middle;
    scan.again = Ratio::of(&again);
    scan.yara = Ratio::of(&yaras);
    scan.clamscan = Ratio::of(&clams);
    Ok(scan)
}

impl Scan {
    pub(crate) fn write(&self, out: &mut String) -> std::fmt::Result {
        use std::fmt::Write;
        writeln!(
            out,
            "\nScan of {}, one core, archives not opened: {} files, {:.0} MB, {:.0} MB/s, {:.0} files/s; worker at most {:.0} MB \
             resident (goal 250).\n",
            self.folder.display(),
            self.files,
            self.bytes as f64 / 1e6,
            self.megabytes_a_second,
            self.files_a_second,
            self.resident as f64 / 1e6
        )?;
        writeln!(
            out,
            "| time against a first scan by davy, same rules | goal | median (quartiles) |\n|---|---|---|"
        )?;
        let rows = [
            ("davy again, nothing changed", "0.05 or less", &self.again),
            ("yara", "2 or more", &self.yara),
            ("clamscan", "", &self.clamscan),
        ];
        for (name, goal, ratio) in rows {
            match ratio {
                Some(r) => {
                    writeln!(out, "| {name} | {goal} | {:.3} ({:.3} to {:.3}) |", r.median, r.lower, r.upper)?
                }
                None => writeln!(out, "| {name} | {goal} | SKIPPED: not installed |")?,
            }
        }
        Ok(())
    }
}

/// One scan by Davy.
struct Once {
    time: Duration,
    files: u64,
    bytes: u64,
    resident: u64,
}

fn scan_once(davy: &Path, base: &Path, folder: &Path) -> Result<Once> {
    let begin = Instant::now();
    let mut child = on_one_core(davy.as_os_str())
        .arg("--base-dir")
        .arg(base)
        .args(["scan", "--json", "--no-archives"])
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .context("davy scan does not start")?;
    let mut output = child.stdout.take().context("it has no output")?;
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut output));
    let resident = watch(&mut child)?;
    let time = begin.elapsed();
    let text = reader.join().map_err(|_| anyhow::anyhow!("the reader of its output ended"))??;
    let end: Value = serde_json::from_str(text.lines().last().unwrap_or(""))?;
    ensure!(end["scan"] == "end" && end["cut_short"] == false, "the scan did not come to its end: {end}");
    let number = |name: &str| end[name].as_u64().unwrap_or(0);
    Ok(Once { time, files: number("files"), bytes: number("bytes"), resident })
}

/// Waits for the end, and gives the most that its worker had resident.
fn watch(child: &mut Child) -> Result<u64> {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let mut most = 0;
    while child.try_wait()?.is_none() {
        for worker in fs::read_to_string(&children).unwrap_or_default().split_whitespace() {
            let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
            most = most.max(kib.unwrap_or(0) * 1024);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(most)
}

/// How long another scanner takes; `None` when it is not here.
fn timed(words: &[&str], run: impl Fn(&mut Command) -> bool) -> Option<Duration> {
    let here =
        Command::new(words[0]).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    here.then_some(())?;
    let mut command = on_one_core(words[0].as_ref());
    command.args(&words[1..]).stderr(Stdio::null());
    let begin = Instant::now();
    run(&mut command).then(|| begin.elapsed())
}

/// A command that stays on one processor with all it starts.
fn on_one_core(program: &std::ffi::OsStr) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

/// All rules that come with Davy, as text.
fn gather() -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../content/yara");
    let mut text = String::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "yar") {
            text += &fs::read_to_string(path)?;
        }
    }
    Ok(text)
}
