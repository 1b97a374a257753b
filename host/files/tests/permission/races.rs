//! A verdict that is kept never says yes to other bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::ground::{Ground, WRONG, execute, gate, gate_of, is, strictly, until, write_program};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("bytes_written_right_before_the_exec_are_judged", bytes_written_right_before_the_exec_are_judged),
    ("bytes_written_through_a_mapping_are_judged", bytes_written_through_a_mapping_are_judged),
    ("a_file_renamed_over_another_is_judged", a_file_renamed_over_another_is_judged),
    ("writers_race_execs_and_never_win", writers_race_execs_and_never_win),
    ("a_writer_that_does_not_wait_is_told_so_and_is_let_in_soon", a_writer_that_does_not_wait),
];

const ROUNDS: usize = 200;

/// Makes the end of a program right or wrong, without changing its length.
fn turn(file: &mut File, wrong: bool) {
    let right = "x".repeat(WRONG.len());
    file.seek(SeekFrom::End(-(WRONG.len() as i64))).unwrap();
    file.write_all(if wrong { WRONG } else { &right }.as_bytes()).unwrap();
}

fn each_ground(test: impl Fn(&Path)) {
    for ground in [Ground::tmpfs(), Ground::disk()] {
        let path = ground.program("program", WRONG);
        let (gate, _) = gate(&ground, false);
        test(&path);
        let counts = gate.stop();
        println!("{counts:?}");
        assert_eq!(counts.late + counts.absent + counts.crowded, 0, "{counts:?}");
        assert!(counts.remembered > 0, "nothing was remembered, so nothing was tried");
    }
}

/// Runs what was open for writing. A child that another test starts at that moment holds it open until its own exec, and the
/// kernel runs nothing that is open for writing.
fn execute_closed(path: &Path) -> Result<(), i32> {
    let begin = Instant::now();
    loop {
        match execute(path).map(drop) {
            Err(libc::ETXTBSY) if begin.elapsed() < Duration::from_secs(1) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            ended => return ended,
        }
    }
}

/// Runs it right twice, so that it is remembered, changes it by `change`, and runs it wrong.
fn alternate(path: &Path, change: impl Fn(bool)) {
    for round in 0..ROUNDS {
        change(false);
        assert_eq!(execute_closed(path), Ok(()), "round {round}");
        assert_eq!(execute_closed(path), Ok(()), "round {round}");
        change(true);
        assert_eq!(execute_closed(path), Err(libc::EPERM), "round {round}: changed bytes ran");
    }
}

fn bytes_written_right_before_the_exec_are_judged() {
    each_ground(|path| {
        alternate(path, |wrong| turn(&mut OpenOptions::new().write(true).open(path).unwrap(), wrong));
        // By truncation and writing anew, which keeps the inode.
        alternate(path, |wrong| write_program(path, if wrong { WRONG } else { "x" }));
    });
}

fn bytes_written_through_a_mapping_are_judged() {
    let script = "import mmap,os,sys\n\
        f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); f.close()\n\
        for line in sys.stdin:\n\
        \x20 if line=='close\\n': m.close()\n\
        \x20 elif line=='open\\n': f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); f.close()\n\
        \x20 else: m[-len(line)+1:]=line[:-1].encode()\n\
        \x20 print('done',flush=True)\n";
    if Command::new("python3").arg("--version").output().is_err() {
        println!("SKIPPED: no python3 to write through a mapping");
        return;
    }
    each_ground(|path| {
        use std::io::{BufRead, BufReader};
        use std::process::Stdio;
        let mut writer = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut input, mut output) =
            (writer.stdin.take().unwrap(), BufReader::new(writer.stdout.take().unwrap()));
        let mut tell = |what: &str| {
            writeln!(input, "{what}").unwrap();
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert_eq!(line, "done\n");
        };
        let right = "x".repeat(WRONG.len());
        for round in 0..50 {
            tell(&right);
            // While it is mapped for writing the kernel does not run it.
            assert_eq!(execute(path), Err(libc::ETXTBSY));
            tell("close");
            assert!(execute(path).is_ok() && execute(path).is_ok(), "round {round}");
            tell("open");
            tell(WRONG);
            tell("close");
            assert_eq!(execute(path), Err(libc::EPERM), "round {round}: changed bytes ran");
            tell("open");
        }
        drop(input);
        assert!(writer.wait().unwrap().success());
    });
}

fn a_file_renamed_over_another_is_judged() {
    each_ground(|path| {
        let other = path.with_extension("new");
        alternate(path, |wrong| {
            write_program(&other, if wrong { WRONG } else { "x" });
            fs::rename(&other, path).unwrap();
        });
    });
}

/// A writer turns the program wrong and right again as fast as it can, while others run it. The program tells by its end
/// what it is, so that a run of the wrong one shows: here it is a script whose wrong form leaves a mark.
fn writers_race_execs_and_never_win() {
    for ground in [Ground::tmpfs(), Ground::disk()] {
        let (path, mark) = (ground.path().join("script"), ground.path().join("mark"));
        // Both have one length, and the wrong one ends as the judge knows it.
        let wrong = format!("#!/bin/sh\n: > {}\n#{WRONG}", mark.display());
        let right = format!("{:x<1$}", "#!/bin/sh\nexit 0\n#", wrong.len());
        fs::write(&path, &right).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (gate, _) = gate_of(&ground, true, strictly);
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (path, stop) = (path.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut turns = 0;
                while !stop.load(Ordering::Relaxed) {
                    for text in [&wrong, &right] {
                        let Ok(mut file) = OpenOptions::new().write(true).open(&path) else { continue };
                        file.write_all(text.as_bytes()).unwrap();
                        turns += 1;
                    }
                    std::thread::sleep(Duration::from_micros(300));
                }
                turns
            })
        };
        let until = Instant::now() + Duration::from_secs(4);
        let (mut ran, mut refused) = (0, 0);
        while Instant::now() < until {
            let status = Command::new(&path).stderr(std::process::Stdio::null()).status();
            match status {
                Ok(status) if status.success() => ran += 1,
                _ => refused += 1,
            }
            assert!(!mark.exists(), "the wrong bytes ran after {ran} runs and {refused} refusals");
        }
        stop.store(true, Ordering::Relaxed);
        let turns = writer.join().unwrap();
        println!("{turns} turns, {ran} ran, {refused} refused, {:?}", gate.stop());
        assert!(ran > 0 && turns > 100);
    }
}

fn a_writer_that_does_not_wait() {
    use std::os::unix::fs::OpenOptionsExt;
    let ground = Ground::tmpfs();
    let path = ground.program("program", "x");
    let (_gate, _) = gate(&ground, false);
    assert!(execute(&path).is_ok());
    let open = || OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let first = open();
    assert!(first.is_ok() || is(&first, libc::EWOULDBLOCK), "{first:?}");
    until("it is let in", Duration::from_millis(500), || open().is_ok());
}
