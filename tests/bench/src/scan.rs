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

/// ClamAV's scanner, with nothing but the rules that it is given, and no file passed over for its length.
const CLAMSCAN: [&str; 8] = [
    "clamscan",
    "-r",
    "-i",
    "--no-summary",
    "--scan-archive=no",
    "--cross-fs=no",
    "--max-filesize=2000M",
    "--max-scansize=2000M",
];

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
    /// How many rules Davy scanned with.
    rules: u64,
    /// Others' time against Davy's; `None` where one is not installed.
    yara: Option<Ratio>,
    clamscan: Option<Ratio>,
    /// What clamscan took of the same rules: it knows a part of their language.
    clamscan_rules: Option<u64>,
}

/// Scans `folder` with each, `rounds` times, taking turns.
pub(crate) fn measure(davy: &Path, folder: &Path, rounds: u32) -> Result<Scan> {
    let work = tempfile::tempdir()?;
    let rules = work.path().join("rules.yar");
    fs::write(&rules, gather()?)?;
    let rules = rules.as_path();
    let arguments = [rules.as_os_str(), folder.as_os_str()];
    let yara = || timed(&["yara", "-r", "-N", "-w", "-p", "1"], &arguments, 0);
    let clam_arguments = [std::ffi::OsStr::new("-d"), rules.as_os_str(), folder.as_os_str()];
    // It ends with 1 when it found something, and with 2 when it could not look.
    let clamscan = || timed(&CLAMSCAN, &clam_arguments, 1);
    let mut scan = Scan {
        folder: folder.to_owned(),
        files: 0,
        bytes: 0,
        megabytes_a_second: 0.0,
        files_a_second: 0.0,
        resident: 0,
        again: None,
        rules: 0,
        yara: None,
        clamscan: None,
        clamscan_rules: rules_taken_by_clamscan(rules),
    };
    let (mut again, mut yaras, mut clams, mut speeds) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        let base = work.path().join(round.to_string());
        let first = scan_once(davy, &base, folder)?;
        let second = scan_once(davy, &base, folder)?;
        let (yara, clamscan) = (yara()?, if round < 2 { clamscan()? } else { None });
        scan.rules = first.rules;
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
            "\nScan of {} with {} rules, one core, archives not opened: {} files, {:.0} MB, {:.0} MB/s, {:.0} files/s; worker at \
             most {:.0} MB resident (goal 250).\n",
            self.folder.display(),
            self.rules,
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
        let clamscan = match self.clamscan_rules {
            Some(rules) => format!("clamscan, which takes {rules} of them"),
            None => "clamscan".to_owned(),
        };
        let rows = [
            ("davy again, nothing changed", "0.05 or less", &self.again),
            ("yara", "2 or more", &self.yara),
            (clamscan.as_str(), "", &self.clamscan),
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
    /// Zero when nothing had to be looked at.
    rules: u64,
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
    let begin = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|v| v["scan"] == "begin");
    let rules = begin.and_then(|begin| begin["rules"].as_u64()).unwrap_or(0);
    Ok(Once { time, files: number("files"), bytes: number("bytes"), resident, rules })
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

/// How long another scanner takes; `None` when it is not here. Its highest exit status that is no failure is `most`: one that
/// refuses its rules is quick.
fn timed(words: &[&str], arguments: &[&std::ffi::OsStr], most: i32) -> Result<Option<Duration>> {
    let here =
        Command::new(words[0]).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !here {
        return Ok(None);
    }
    let mut command = on_one_core(words[0].as_ref());
    command.args(&words[1..]).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let status = command.status()?;
    let time = begin.elapsed();
    ensure!(status.code().is_some_and(|code| code <= most), "{} did not scan: {status}", words[0]);
    Ok(Some(time))
}

/// How many of the rules ClamAV loads, as it says itself; it passes over those that it does not understand.
fn rules_taken_by_clamscan(rules: &Path) -> Option<u64> {
    let output = Command::new("clamscan").arg("-d").arg(rules).arg("/etc/hostname").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("Known viruses:"))?;
    line.trim().parse().ok()
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
