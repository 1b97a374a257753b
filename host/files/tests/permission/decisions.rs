//! What is asked, and what the answers do.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use davy_files::permission::{Answer, AskKind, GateConfig, LONGEST, PermissionGate, Steadiness, prove};

use crate::ground::{Ground, WRONG, execute, gate, keeper, until, write_program};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("what_nobody_vouches_for_does_not_run", what_nobody_vouches_for_does_not_run),
    ("a_verdict_for_anyone_is_asked_for_once", a_verdict_for_anyone_is_asked_for_once),
    ("a_verdict_for_one_is_asked_for_each_time", a_verdict_for_one_is_asked_for_each_time),
    ("libraries_are_asked_for_and_reading_them_is_not", libraries_are_asked_for_and_reading_them_is_not),
    ("scripts_are_asked_for_and_reading_them_is_not", scripts_are_asked_for_and_reading_them_is_not),
    ("a_file_open_for_writing_is_told_as_such", a_file_open_for_writing_is_told_as_such),
    ("a_fifo_holds_nobody_up", a_fifo_holds_nobody_up),
    ("another_mount_is_marked_while_it_runs", another_mount_is_marked_while_it_runs),
    ("the_gate_is_proven_only_by_a_refusal", the_gate_is_proven_only_by_a_refusal),
    ("a_judge_that_panics_is_counted_and_goes_on", a_judge_that_panics_is_counted_and_goes_on),
    ("no_file_is_let_through_for_its_length", no_file_is_let_through_for_its_length),
];

fn what_nobody_vouches_for_does_not_run() {
    for ground in [Ground::tmpfs(), Ground::disk()] {
        let (good, bad) = (ground.program("good", "a"), ground.program("bad", WRONG));
        let (gate, record) = gate(&ground, false);
        assert!(execute(&good).is_ok());
        assert_eq!(execute(&bad), Err(libc::EPERM));
        assert_eq!((record.of(&good), record.of(&bad)), (vec![AskKind::Program], vec![AskKind::Program]));
        assert!(record.all().iter().all(|asked| asked.steadiness == Steadiness::Held), "{:?}", record.all());
        // Reading and linking change nothing about it.
        fs::hard_link(&bad, ground.path().join("link")).unwrap();
        assert_eq!(execute(&ground.path().join("link")), Err(libc::EPERM));
        let counts = gate.stop();
        assert_eq!((counts.asked, counts.judged, counts.late, counts.crowded), (3, 3, 0, 0), "{counts:?}");
        assert!(execute(&bad).is_ok(), "the gate is gone");
    }
}

fn a_verdict_for_anyone_is_asked_for_once() {
    let ground = Ground::tmpfs();
    let (good, bad) = (ground.program("good", "a"), ground.program("bad", WRONG));
    let (gate, record) = gate(&ground, false);
    for _ in 0..20 {
        assert!(execute(&good).is_ok());
        assert_eq!(execute(&bad), Err(libc::EPERM));
    }
    assert_eq!((record.of(&good).len(), record.of(&bad).len()), (1, 20));
    gate.forget();
    until("it is asked for again", Duration::from_secs(2), || {
        assert!(execute(&good).is_ok());
        record.of(&good).len() == 2
    });
    // Held files keep a mount busy for a few seconds and no longer.
    until("the mount is let go", Duration::from_secs(9), || ground.unmount());
    drop(gate);
}

fn a_verdict_for_one_is_asked_for_each_time() {
    let ground = Ground::tmpfs();
    let good = ground.program("good", "a");
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let config = GateConfig::new(keeper, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Answer::Allow
    });
    let _gate = PermissionGate::start(config, vec![ground.mark()]).unwrap();
    for _ in 0..10 {
        assert!(execute(&good).is_ok());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 10);
}

fn libraries_are_asked_for_and_reading_them_is_not() {
    let ground = Ground::tmpfs();
    let libc = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = libc.lines().find_map(|l| l.split_whitespace().last().filter(|p| p.ends_with("/libm.so.6")));
    let source = libc.map_or("/lib/x86_64-linux-gnu/libm.so.6", |path| path);
    let mut bytes = fs::read(source).unwrap();
    let good = ground.path().join("good.so");
    fs::write(&good, &bytes).unwrap();
    bytes.extend(WRONG.as_bytes());
    let bad = ground.path().join("bad.so");
    fs::write(&bad, &bytes).unwrap();

    let (_gate, record) = gate(&ground, true);
    let said = |library: &std::path::Path| {
        let output = Command::new("/bin/true").env("LD_PRELOAD", library).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(said(&good), "");
    assert!(said(&bad).contains("cannot be preloaded"), "{}", said(&bad));
    assert_eq!(record.of(&good), [AskKind::Library]);
    // Late loading is the loader's too.
    let loads = format!("import ctypes; ctypes.CDLL('{}')", bad.display());
    match Command::new("python3").args(["-c", &loads]).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("Operation not permitted"), "{said}");
        }
        Err(error) => println!("SKIPPED: no python3 to load a library late: {error}"),
    }
    let before = record.all().len();
    let copied = Command::new("cp").arg(&bad).arg("/dev/null").status().unwrap();
    assert!(copied.success(), "reading is not judged");
    assert_eq!(record.all().len(), before);
}

fn scripts_are_asked_for_and_reading_them_is_not() {
    let ground = Ground::tmpfs();
    let script = |name: &str, last: &str| {
        let path = ground.path().join(name);
        fs::write(&path, format!("echo ran\n#{last}")).unwrap();
        path
    };
    let (good, bad) = (script("good.sh", ""), script("bad.sh", WRONG));
    let (_gate, record) = gate(&ground, true);
    let runs = |command: &mut Command| {
        String::from_utf8_lossy(&command.stderr(Stdio::null()).output().unwrap().stdout).into_owned()
    };
    assert_eq!(runs(Command::new("sh").arg(&good)), "ran\n");
    assert_eq!(record.of(&good), [AskKind::Script]);
    assert_eq!(runs(Command::new("sh").arg(&bad)), "");
    // By another name, from another folder, through a link: it is the same file.
    assert_eq!(runs(Command::new("sh").arg("bad.sh").current_dir(ground.path())), "");
    std::os::unix::fs::symlink("bad.sh", ground.path().join("link")).unwrap();
    assert_eq!(runs(Command::new("sh").arg(ground.path().join("link"))), "");
    let before = record.all().len();
    assert!(runs(Command::new("cat").arg(&bad)).contains("echo ran"), "reading is not judged");
    assert!(runs(Command::new("sh").args(["-c", "cat bad.sh"]).current_dir(ground.path())).contains("ran"));
    assert_eq!(record.all().len(), before, "{:?}", record.all());
}

fn a_file_open_for_writing_is_told_as_such() {
    let ground = Ground::tmpfs();
    let good = ground.program("good", "a");
    let (_gate, record) = gate(&ground, false);
    let writer = fs::OpenOptions::new().write(true).open(&good).unwrap();
    assert_eq!(execute(&good), Err(libc::ETXTBSY), "the kernel's own answer, as without a gate");
    drop(writer);
    assert!(execute(&good).is_ok());
    let told: Vec<_> = record.all().into_iter().map(|asked| asked.steadiness).collect();
    assert_eq!(told, [Steadiness::Written, Steadiness::Held]);
    // Whoever writes waits for the keeper, and not for long.
    let begin = Instant::now();
    write_program(&good, "b");
    assert!(begin.elapsed() < Duration::from_millis(300), "{:?}", begin.elapsed());
}

fn a_fifo_holds_nobody_up() {
    let ground = Ground::tmpfs();
    let fifo = ground.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let good = ground.program("good", "a");
    let (_gate, _) = gate(&ground, true);
    let mut reader = Command::new("cat").arg(&fifo).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let took = execute(&good);
    let fed = fs::OpenOptions::new().write(true).open(&fifo);
    drop(fed);
    let _ = reader.kill();
    let _ = reader.wait();
    assert!(took.is_ok_and(|took| took < Duration::from_millis(500)), "{took:?}");
}

fn another_mount_is_marked_while_it_runs() {
    let (first, second) = (Ground::tmpfs(), Ground::tmpfs());
    let bad = second.program("bad", WRONG);
    let (gate, _) = gate(&first, false);
    assert!(execute(&bad).is_ok());
    gate.mark(second.mark()).unwrap();
    assert_eq!(execute(&bad), Err(libc::EPERM));
    let missing = davy_files::permission::Marked::FileSystem(second.path().join("missing"));
    assert!(gate.mark(missing).unwrap_err().to_string().contains("missing"));
}

fn a_judge_that_panics_is_counted_and_goes_on() {
    let ground = Ground::tmpfs();
    let good = ground.program("good", "a");
    let config = GateConfig::new(keeper, |_| panic!("on purpose"));
    let gate = PermissionGate::start(config, vec![ground.mark()]).unwrap();
    for _ in 0..6 {
        assert!(execute(&good).is_ok());
    }
    assert_eq!(gate.counts().panics, 6);
}

fn the_gate_is_proven_only_by_a_refusal() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let before = mounts();
    prove(keeper).unwrap();
    prove(|| Command::new("true")).unwrap_err();
    assert_eq!(mounts(), before);
}

/// Denies what it cannot read, as the agent does, and what ends wrong; allows all else to anyone.
fn what_can_be_read(ask: &davy_files::permission::Ask) -> Answer {
    if ask.digest().is_err() { Answer::Deny } else { crate::ground::by_content(ask) }
}

fn no_file_is_let_through_for_its_length() {
    use std::os::unix::fs::FileExt;
    let ground = Ground::tmpfs();
    let good = ground.program("good", "a");
    // Holes cost their maker nothing, and are as long to read as bytes.
    let long = |name: &str, bytes: u64| {
        let path = ground.program(name, name);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(WRONG.as_bytes(), bytes - WRONG.len() as u64).unwrap();
        path
    };
    let too_long = long("too-long", 1 << 44);
    let long: Vec<_> = (0..16).map(|n| long(&format!("long-{n}"), LONGEST)).collect();
    let config = GateConfig::new(keeper, what_can_be_read);
    let gate = PermissionGate::start(config, vec![ground.mark()]).unwrap();
    assert_eq!(execute(&too_long), Err(libc::EPERM));
    let together: Vec<_> = long.into_iter().map(|path| std::thread::spawn(move || execute(&path))).collect();
    assert!(execute(&good).is_ok());
    for one in together {
        assert_eq!(one.join().unwrap(), Err(libc::EPERM));
    }
    let counts = gate.stop();
    assert_eq!((counts.late, counts.absent, counts.crowded), (0, 0, 0), "{counts:?}");
}
