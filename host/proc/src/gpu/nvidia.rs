//! NVML by way of `nvidia-smi`: `pmon` for utilisation, `--query-compute-apps` for memory by device.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// Where the driver's packages put it. PATH is not asked: Davy runs as root.
const PLACES: &[&str] = &["/usr/bin/nvidia-smi", "/usr/local/bin/nvidia-smi", "/opt/bin/nvidia-smi"];

/// How long one call may take; `pmon` measures for a second.
const PATIENCE: Duration = Duration::from_secs(8);

/// At most so many bytes of its output are read.
const MAX_OUTPUT: u64 = 1024 * 1024;

/// At most so many processes are believed of one output.
const MAX_ROWS: usize = 4096;

/// What it says of one process on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) pid: u32,
    pub(super) device: String,
    pub(super) busy_permille: Option<u16>,
    pub(super) memory: u64,
}

/// The program, asked in a thread of its own so that a poll never waits for it.
#[derive(Debug)]
pub(super) struct Program {
    path: Option<PathBuf>,
    asked: Option<Receiver<Vec<Told>>>,
    last: Vec<Told>,
}

impl Program {
    pub(super) fn find() -> Self {
        PLACES.iter().map(Path::new).find(|p| is_trustworthy(p)).map_or_else(Self::none, Self::at)
    }

    pub(super) fn at(path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..Self::none() }
    }

    pub(super) fn none() -> Self {
        Self { path: None, asked: None, last: Vec::new() }
    }

    /// The newest answer; asks again when there is none under way.
    pub(super) fn poll(&mut self) -> Vec<Told> {
        let Some(path) = self.path.clone() else { return Vec::new() };
        match self.asked.as_ref().map(Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => return self.last.clone(),
            Some(Ok(told)) => self.last = told,
            Some(Err(TryRecvError::Disconnected)) => self.last.clear(),
            None => {}
        }
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("davy-nvidia".into()).spawn(move || {
            let busy = run(&path, &["pmon", "-c", "1", "-s", "um"]);
            let held = run(
                &path,
                &["--query-compute-apps=pid,gpu_bus_id,used_memory", "--format=csv,noheader,nounits"],
            );
            let _ = sender.send(join(&parse_pmon(&busy), &parse_apps(&held)));
        });
        self.asked = thread.ok().map(|_| receiver);
        self.last.clone()
    }
}

/// Only a program that root alone can change is run.
fn is_trustworthy(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|m| m.is_file() && m.uid() == 0 && m.mode() & 0o022 == 0 && m.mode() & 0o111 != 0)
}

fn run(path: &Path, args: &[&str]) -> String {
    let spawned = Command::new(path)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = spawned else { return String::new() };
    let output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(output) = output {
            let _ = output.take(MAX_OUTPUT).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let end = Instant::now() + PATIENCE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    reader.join().unwrap_or_default()
}

/// A row of pmon: device number, pid, utilisation in percent, memory in MiB.
#[derive(Debug, PartialEq, Eq)]
struct Busy {
    gpu: u32,
    pid: u32,
    percent: Option<u16>,
    memory: u64,
}

/// Reads pmon's table. Its columns differ between driver versions, so they are found by their heading; the command's
/// name, which may hold anything, is last.
fn parse_pmon(text: &str) -> Vec<Busy> {
    let mut columns: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix('#') {
            let words: Vec<String> = heading.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
            if words.iter().any(|w| w == "pid") {
                columns = words;
            }
            continue;
        }
        let words: Vec<&str> = line.split_ascii_whitespace().take(64).collect();
        let cell = |name: &str| columns.iter().position(|c| c == name).and_then(|at| words.get(at));
        let (Some(Ok(gpu)), Some(Ok(pid))) = (cell("gpu").map(|w| w.parse()), cell("pid").map(|w| w.parse()))
        else {
            continue;
        };
        let percent = cell("sm").and_then(|w| w.parse::<u16>().ok()).map(|p| p.min(100));
        let memory = cell("fb").and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
        if rows.len() < MAX_ROWS {
            rows.push(Busy { gpu, pid, percent, memory: memory.saturating_mul(1 << 20) });
        }
    }
    rows
}

/// Reads `pid, bus id, MiB` lines.
fn parse_apps(text: &str) -> HashMap<u32, (String, u64)> {
    let row = |line: &str| {
        let mut cells = line.split(',').map(str::trim);
        let pid = cells.next()?.parse().ok()?;
        let device = cells.next()?.to_ascii_lowercase();
        let is_address =
            !device.is_empty() && device.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
        let memory = cells.next().and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
        is_address.then_some((pid, (device, memory.saturating_mul(1 << 20))))
    };
    text.lines().take(MAX_ROWS).filter_map(row).collect()
}

fn join(busy: &[Busy], held: &HashMap<u32, (String, u64)>) -> Vec<Told> {
    let with_load = busy.iter().map(|row| {
        let (device, memory) =
            held.get(&row.pid).cloned().unwrap_or_else(|| (format!("/dev/nvidia{}", row.gpu), 0));
        let busy_permille = row.percent.map(|p| p.saturating_mul(10));
        Told { pid: row.pid, device, busy_permille, memory: memory.max(row.memory) }
    });
    let idle = held.iter().filter(|(pid, _)| busy.iter().all(|row| row.pid != **pid)).map(
        |(pid, (device, memory))| Told {
            pid: *pid,
            device: device.clone(),
            busy_permille: None,
            memory: *memory,
        },
    );
    with_load.chain(idle).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    const PMON: &str = "\
# gpu         pid   type     sm    mem    enc    dec    jpg    ofa     fb   ccpm    command
# Idx           #    C/G      %      %      %      %      %      %     MB     MB    name
    0       4711     C     98     45      -      -      -      -   4321      0    a b # c
    1          -     -      -      -      -      -      -      -      -      -    -
    1       4712   C+G      -      -      -      -      -      -     12      0    Xorg
";

    #[test]
    fn utilisation_and_memory_are_joined() {
        let apps = parse_apps("4711, 00000000:01:00.0, 4400\n4713, 00000000:02:00.0, [N/A]\nx, y\n");
        let mut told = join(&parse_pmon(PMON), &apps);
        told.sort_by_key(|t| t.pid);
        let expected = |pid, device: &str, busy_permille, mib: u64| Told {
            pid,
            device: device.to_owned(),
            busy_permille,
            memory: mib << 20,
        };
        assert_eq!(
            told,
            vec![
                expected(4711, "00000000:01:00.0", Some(980), 4400),
                expected(4712, "/dev/nvidia1", None, 12),
                expected(4713, "00000000:02:00.0", None, 0),
            ]
        );
    }

    #[test]
    fn older_tables_without_memory_are_read_by_their_headings() {
        let rows = parse_pmon(
            "# gpu pid type sm mem enc dec command\n# Idx # C/G % % % % name\n 0 77 C 12 3 0 0 x\n",
        );
        assert_eq!(rows, vec![Busy { gpu: 0, pid: 77, percent: Some(12), memory: 0 }]);
    }

    #[test]
    fn the_program_is_asked_without_waiting_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nvidia-smi");
        std::fs::write(folder.path().join("pmon"), PMON).unwrap();
        let script =
            "#!/bin/sh\n[ \"$1\" = pmon ] && exec cat \"${0%/*}/pmon\"\necho 4711, 00000000:01:00.0, 4400\n";
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut program = Program::at(&path);
        assert_eq!(program.poll(), vec![]);
        let end = Instant::now() + Duration::from_secs(10);
        let mut told = Vec::new();
        while told.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            told = program.poll();
        }
        assert!(
            told.iter()
                .any(|t| t.pid == 4711 && t.busy_permille == Some(980) && t.device == "00000000:01:00.0")
        );
        assert_eq!(Program::at(Path::new("/nonexistent")).poll(), vec![]);
    }

    #[test]
    fn a_program_that_others_may_change_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nvidia-smi");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!is_trustworthy(&path));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(#? ?(gpu|pid|sm|fb|-|[0-9]{1,22}| |,|:)*\n){0,20}") {
            let _ = join(&parse_pmon(&text), &parse_apps(&text));
        }
    }
}
