//! Whatever a scan is given, its worker stays below what is promised: read is the most that the kernel ever saw it have.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use davy_model::ScanReport;
use davy_sweep::{Looked, Recipe, Scanner};
use flate2::{Compression, write::GzEncoder};

/// The promise, in bytes of resident memory, and how much of that is the program's at most.
const PROMISED: u64 = 250_000_000;
const PROGRAM: u64 = 40_000_000;

const MIB: usize = 1 << 20;

struct Worker {
    scanner: Scanner,
    promised: u64,
    folder: tempfile::TempDir,
}

impl Worker {
    fn new() -> Self {
        let mut recipe = Recipe::new(vec![davy_scan::built_in()]);
        recipe.program = davy_test_e2e::davy();
        recipe.programs = true;
        // The promise is that of a release build; one for tests has a longer program.
        let beyond = code(&recipe.program).saturating_sub(PROGRAM);
        if beyond > 0 {
            println!("a program that is {} MB longer than a release build's", beyond / 1_000_000);
        }
        Self {
            scanner: Scanner::new(recipe),
            promised: PROMISED + beyond,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has a file looked at; `None` when it broke the worker each time, which costs the file alone.
    fn look(&mut self, what: &str, path: &Path) -> Option<ScanReport> {
        let file = File::open(path).unwrap();
        let length = file.metadata().unwrap().len();
        let looked = self.scanner.file(&file, length).unwrap();
        // One that broke has no memory to be asked for; what it may have had at the most was bounded all the same.
        if let Some(pid) = self.scanner.pid() {
            let most = most_resident(pid);
            println!("{what}: {length} bytes, worker at most {} MB", most / 1_000_000);
            assert!(most <= self.promised, "{what}: {most} bytes resident, promised {}", self.promised);
        }
        match looked {
            Looked::Report(report) => Some(*report),
            Looked::Not(why) => {
                println!("{what}: {why}");
                None
            }
        }
    }

    fn look_at(&mut self, what: &str, bytes: &[u8]) -> Option<ScanReport> {
        let path = self.place("input");
        fs::write(&path, bytes).unwrap();
        self.look(what, &path)
    }
}

/// What a program takes in memory: of its file, what size(1) counts.
fn code(program: &Path) -> u64 {
    let output = Command::new("size").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.lines().nth(1).unwrap().split_whitespace();
    numbers.take(3).map(|number| number.parse::<u64>().unwrap()).sum()
}

/// The peak that proc_pid_status(5) gives.
fn most_resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn has_bomb(report: &ScanReport) -> bool {
    report.matches.iter().any(|found| found.rule == "archive_bomb")
}

/// Bytes that look random and are the same every time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn tar_with_long_name(length: usize) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_path("././@LongLink").unwrap();
    header.set_size(length as u64);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.resize(out.len() + length.next_multiple_of(512), b'n');
    let mut file = tar::Header::new_gnu();
    file.set_path("short").unwrap();
    file.set_size(4);
    file.set_cksum();
    out.extend_from_slice(file.as_bytes());
    out.extend_from_slice(b"text");
    out.resize(out.len().next_multiple_of(512) + 1024, 0);
    out
}

fn zip_of(members: impl Iterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in members {
        out.start_file(name, stored).unwrap();
        out.write_all(&bytes).unwrap();
    }
    out.finish().unwrap().into_inner()
}

/// What `xz` makes with a dictionary of so many MiB; `None` without the tool.
fn xz(dictionary: u32, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("xz")
        .args(["-c", &format!("--lzma2=preset=0,dict={dictionary}MiB")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.status.success().then_some(output.stdout)
}

#[test]
fn hostile_files_cost_no_more_memory_than_promised() {
    let mut worker = Worker::new();

    let zeros = gzip(&vec![0; 100 * MIB]);
    assert!(has_bomb(&worker.look_at("a bomb of zeros", &zeros).unwrap()));
    let packed = zip_of([("a".to_owned(), zeros)].into_iter());
    assert!(has_bomb(&worker.look_at("a bomb in a zip", &packed).unwrap()));

    let mut deep = noise(MIB);
    for _ in 0..20 {
        deep = gzip(&deep);
    }
    assert!(has_bomb(&worker.look_at("archives twenty deep", &deep).unwrap()));

    // Each level holds its members until those within are looked at.
    let mut nested = noise(15 * MIB);
    for depth in 0..5 {
        let members = [(format!("{depth}/a"), nested), (format!("{depth}/b"), noise(MIB))];
        nested = zip_of(members.into_iter());
    }
    worker.look_at("long members in each other", &nested).unwrap();

    let sparse = worker.place("sparse");
    File::create(&sparse).unwrap().set_len(200 * MIB as u64).unwrap();
    assert_eq!(worker.look("a sparse file", &sparse).unwrap().bytes, 200 * MIB as u64);

    let words =
        b"stratum+tcp://pool.example:3333 --donate-level=1 donate-over-proxy randomx-wrmsr cn-heavy/tube\n";
    for length in [15 * MIB, 40 * MIB] {
        let many = words.repeat(length / words.len());
        worker.look_at("many matches", &many).unwrap();
    }

    let name = worker.look_at("a name of 180 MB in a tar", &tar_with_long_name(180 * MIB));
    println!("a name of 180 MB: {:?}", name.map(|report| report.gaps));

    let many = zip_of((0..60_000).map(|number| (format!("{number:0200}"), Vec::new())));
    worker.look_at("a zip of 60,000 long names", &many);

    for dictionary in [64, 1024] {
        match xz(dictionary, &noise(2 * MIB)) {
            Some(bytes) => {
                let report =
                    worker.look_at(&format!("xz with {dictionary} MiB of dictionary"), &bytes).unwrap();
                assert_eq!(report.gaps.is_empty(), dictionary == 64, "{report:?}");
            }
            None => println!("SKIPPED: xz with a dictionary of {dictionary} MiB: xz-utils is not installed"),
        }
    }
    let mut long = zstd::Encoder::new(Vec::new(), 1).unwrap();
    long.window_log(27).unwrap();
    long.write_all(&noise(2 * MIB)).unwrap();
    let report = worker.look_at("zstd with a window of 128 MiB", &long.finish().unwrap()).unwrap();
    assert!(!report.gaps.is_empty(), "a window beyond the bound is told: {report:?}");

    let mut own = fs::read(std::env::current_exe().unwrap()).unwrap();
    own.truncate(16 * MIB);
    let programs = own.repeat(3);
    worker.look_at("programs within a program", &programs).unwrap();
}

#[test]
fn after_the_worst_it_works_on() {
    let mut worker = Worker::new();
    // Cut off where the dictionary is asked for, damaged, and lying about lengths: none may end more than itself.
    for (place, value) in [(8, 0xff), (20, 0xff), (28, 0xff), (40, 0x00)] {
        let mut damaged = zip_of([("a".to_owned(), noise(MIB))].into_iter());
        damaged[place] = value;
        worker.look_at("a damaged zip", &damaged);
    }
    let report = worker.look_at("a script", b"#!/bin/sh\nexit 0\n").unwrap();
    assert_eq!((report.matches, report.gaps), (Vec::new(), Vec::new()));
}
