//! The room against real file systems: a tmpfs in a mount namespace of its own, where the marks touch nothing else.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use davy_files::{FileSystems, WatchConfig, Watcher, Way};
use davy_model::{Event, EventKind, FileAct, FileChange, PersistencePlace};

/// Events as they come.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Event>>>);

impl Seen {
    fn sink(&self) -> Box<dyn FnMut(Event) + Send> {
        let seen = self.clone();
        Box::new(move |event| seen.0.lock().unwrap().push(event))
    }

    fn changes(&self) -> Vec<(Option<u32>, FileChange)> {
        let events = self.0.lock().unwrap();
        let change = |e: &Event| match &e.kind {
            EventKind::File(change) => Some((e.process.map(|p| p.pid), change.clone())),
            _ => None,
        };
        events.iter().filter_map(change).collect()
    }

    /// Waits until such a change was seen.
    fn wait(&self, what: &str, is: impl Fn(&FileChange) -> bool) -> (Option<u32>, FileChange) {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(found) = self.changes().into_iter().find(|(_, change)| is(change)) {
                return found;
            }
            assert!(Instant::now() < end, "not seen: {what}; seen: {:#?}", self.changes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs one ignored test of this file in a mount namespace; `false` without the right to make one.
fn inside(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: a mount namespace and fanotify need root");
        return false;
    }
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "-m"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    true
}

/// A fresh tmpfs, and a watcher of nothing else.
fn watched_tmpfs(per_process: u32) -> (tempfile::TempDir, Watcher, Seen) {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        Command::new("mount")
            .args(["-t", "tmpfs", "davy-test"])
            .arg(folder.path())
            .status()
            .unwrap()
            .success()
    );
    let seen = Seen::default();
    let mut config = WatchConfig::new(1);
    config.file_systems = FileSystems::At(vec![folder.path().to_owned()]);
    config.way = Some(Way::Fanotify);
    config.per_process = per_process;
    config.resolve = Box::new(|pid| Some(davy_model::ProcessKey { pid, start_ticks: 0, boot: 1 }));
    let watcher = Watcher::start(config, seen.sink()).unwrap();
    assert_eq!((watcher.way(), watcher.notes()), (Way::Fanotify, vec![]));
    (folder, watcher, seen)
}

/// A change by another process, because the watcher leaves out its own; its pid.
fn by_another(script: &str, folder: &Path) -> u32 {
    let mut child = Command::new("sh").args(["-ec", script]).current_dir(folder).spawn().unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
    child.id()
}

fn named(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn changes_that_matter_are_seen_on_a_marked_file_system() {
    inside("child_sees_changes_that_matter");
}

#[test]
#[ignore = "is run by another test in a mount namespace"]
fn child_sees_changes_that_matter() {
    let (root, watcher, seen) = watched_tmpfs(200);
    let folder = root.path();
    by_another(
        "mkdir -p a/b .ssh; printf 'hello' > plain; printf '#!/bin/sh\\n' > a/b/script; sleep 0.3",
        folder,
    );
    let (pid, script) = seen.wait("a script", |c| c.path == named(folder, "a/b/script"));
    let shell = seen.0.lock().unwrap().iter().find_map(|e| e.process).unwrap();
    assert!(shell.start_ticks > 0, "it still ran, so /proc tells its start");
    assert_eq!(
        (script.act, script.code, script.executable, script.place),
        (FileAct::Written, true, false, None)
    );
    assert_eq!(
        script.file.ino,
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(folder.join("a/b/script")).unwrap())
    );
    assert_eq!(pid, Some(shell.pid));

    by_another(
        "cp /bin/true program; sleep 0.1; chmod 644 program; mv program renamed; sleep 0.1; chmod 755 renamed",
        folder,
    );
    seen.wait("a program", |c| {
        c.path == named(folder, "program") && c.act == FileAct::Written && c.executable && c.code
    });
    let from = Some(named(folder, "program"));
    seen.wait("its new name", |c| {
        c.path == named(folder, "renamed") && c.act == FileAct::Renamed { from: from.clone() }
    });
    seen.wait("its mode", |c| {
        c.path == named(folder, "renamed") && c.act == FileAct::AttributesChanged && c.executable && c.code
    });
    by_another("rm renamed", folder);
    seen.wait("its end", |c| {
        c.path == named(folder, "renamed") && c.act == FileAct::Deleted && c.file.ino != 0
    });

    by_another("echo key > .ssh/authorized_keys", folder);
    let (_, keys) = seen.wait("keys", |c| c.path == named(folder, ".ssh/authorized_keys"));
    assert_eq!((keys.place, keys.code), (Some(PersistencePlace::AuthorizedKeys), false));
    by_another("ln -s /tmp/x .bashrc", folder);
    let (_, link) = seen.wait("a link", |c| c.path == named(folder, ".bashrc"));
    assert_eq!(
        (link.act, link.place),
        (FileAct::Renamed { from: None }, Some(PersistencePlace::ShellProfile))
    );
    by_another("rm .ssh/authorized_keys", folder);
    seen.wait("keys' end", |c| c.path == named(folder, ".ssh/authorized_keys") && c.act == FileAct::Deleted);

    assert!(seen.changes().iter().all(|(_, c)| c.path != named(folder, "plain")), "plain files are no news");
    assert_eq!(watcher.drops(), vec![]);
    fs::write(folder.join("own"), "#!/bin/sh\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(
        seen.changes().iter().all(|(_, c)| c.path != named(folder, "own")),
        "Davy's own acts are no news"
    );

    watcher.stop();
    let before = seen.changes().len();
    by_another("printf '#!/bin/sh\\n' > after", folder);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(seen.changes().len(), before, "a stopped watcher still tells");
    assert!(
        Command::new("umount").arg(folder).status().unwrap().success(),
        "a mark keeps the file system busy"
    );
}

#[test]
fn a_build_that_writes_ten_thousand_object_files_costs_little_and_tells_nothing() {
    inside("child_watches_a_build");
}

/// Processor time of this process, in seconds.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[test]
#[ignore = "is run by another test in a mount namespace"]
fn child_watches_a_build() {
    let (root, watcher, seen) = watched_tmpfs(200);
    // An object file: the ELF magic, and ET_REL for its type. Half of them have no ending that tells.
    let script = "printf '\\177ELF\\2\\1\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\1\\0rest' > seed
        i=0; while [ $i -lt 5000 ]; do cat seed > $i.o; cat seed > object-$i; i=$((i+1)); done 2>/dev/null";
    let script =
        script.replace("cat seed >", "printf '\\177ELF\\2\\1\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\1\\0rest' >");
    let before = (cpu(), Instant::now());
    by_another(&script, root.path());
    by_another("printf '#!/bin/sh\\n' > last", root.path());
    seen.wait("the last", |c| c.path == named(root.path(), "last"));
    let (spent, lasted) = (cpu() - before.0, before.1.elapsed().as_secs_f64());
    println!("MEASURED: 10,000 object files in {lasted:.2} s; the watcher used {spent:.3} s of CPU");
    assert_eq!(seen.changes().len(), 1, "object files are no news: {:#?}", seen.changes().first());
    assert!(spent < 1.0, "{spent} s of CPU for 10,000 files");
    assert_eq!(watcher.drops(), vec![]);
}

#[test]
fn one_process_that_floods_is_throttled_and_counted() {
    inside("child_watches_a_flood");
}

#[test]
#[ignore = "is run by another test in a mount namespace"]
fn child_watches_a_flood() {
    let (root, watcher, seen) = watched_tmpfs(5);
    by_another(
        "i=0; while [ $i -lt 300 ]; do echo '#!' > s$i; i=$((i+1)); done; echo x > .bashrc; sleep 0.2",
        root.path(),
    );
    seen.wait("the profile in spite of the flood", |c| c.path == named(root.path(), ".bashrc"));
    by_another("echo '#!' > other", root.path());
    seen.wait("another process in spite of the flood", |c| c.path == named(root.path(), "other"));
    let throttled =
        watcher.drops().iter().find(|(kind, _)| kind.contains("throttled")).map_or(0, |(_, n)| *n);
    let told = seen.changes().len() as u64;
    assert!(throttled > 200 && told < 100, "{throttled} throttled, {told} told");
    // A later script of the same name is told anew, so everything adds up.
    assert!(throttled + told >= 302, "{throttled} throttled, {told} told");
}

#[test]
fn what_the_queue_cannot_hold_is_counted() {
    inside("child_overflows_the_queue");
}

#[test]
#[ignore = "is run by another test in a mount namespace"]
fn child_overflows_the_queue() {
    let root = tempfile::tempdir().unwrap();
    assert!(
        Command::new("mount").args(["-t", "tmpfs", "davy-test"]).arg(root.path()).status().unwrap().success()
    );
    let held = Arc::new(Mutex::new(()));
    let hold = held.lock().unwrap();
    let mut config = WatchConfig::new(1);
    config.file_systems = FileSystems::At(vec![root.path().to_owned()]);
    let wait = held.clone();
    let sink = Box::new(move |_| drop(wait.lock()));
    let watcher = Watcher::start(config, sink).unwrap();
    by_another("echo '#!' > first; i=0; while [ $i -lt 20000 ]; do : > f$i; i=$((i+1)); done", root.path());
    drop(hold);
    let end = Instant::now() + Duration::from_secs(10);
    while !watcher.drops().iter().any(|(kind, count)| kind.contains("overflow") && *count > 0) {
        assert!(Instant::now() < end, "no overflow counted: {:?}", watcher.drops());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_overlay_is_watched_also_from_inside_a_container() {
    inside("child_watches_an_overlay");
}

#[test]
#[ignore = "is run by another test in a mount namespace"]
fn child_watches_an_overlay() {
    let root = tempfile::tempdir().unwrap();
    assert!(
        Command::new("mount").args(["-t", "tmpfs", "davy-test"]).arg(root.path()).status().unwrap().success()
    );
    by_another("mkdir lower upper work merged; echo '#!' > lower/old; chmod 644 lower/old", root.path());
    let options = "lowerdir=lower,upperdir=upper,workdir=work";
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", options, "merged"]).current_dir(root.path());
    if !mount.status().unwrap().success() {
        println!("SKIPPED: overlayfs cannot be mounted");
        return;
    }
    let seen = Seen::default();
    let mut config = WatchConfig::new(1);
    config.file_systems = FileSystems::At(vec![root.path().join("merged"), root.path().to_owned()]);
    // The shell in the container may be gone before its event is read.
    config.resolve = Box::new(|pid| Some(davy_model::ProcessKey { pid, start_ticks: 0, boot: 1 }));
    let _watcher = Watcher::start(config, seen.sink()).unwrap();
    by_another("echo '#!' > merged/new; chmod 755 merged/old", root.path());
    seen.wait("a script in the overlay", |c| {
        c.path == named(root.path(), "merged/new") && c.act == FileAct::Written && c.code
    });
    // Modes are told by the layer below, or by the overlay itself where its handles can be opened.
    seen.wait("a mode in the overlay", |c| c.path.ends_with("/old") && c.executable);
    // A container has the overlay in a mount namespace of its own, under another path.
    by_another(
        "unshare -m sh -ec 'mount --move merged lower 2>/dev/null || mount --rbind merged lower; echo \"#!\" > lower/inner'",
        root.path(),
    );
    let inner = |c: &FileChange| c.path.ends_with("/inner") && c.act == FileAct::Written && c.code;
    let (pid, change) = seen.wait("a script in a container", inner);
    assert!(pid.is_some() && change.file.ino != 0);
}

#[test]
fn a_file_system_that_is_mounted_later_is_watched_too() {
    inside("child_mounts_later");
}

#[test]
#[ignore = "is run by another test in a mount namespace"]
fn child_mounts_later() {
    let (root, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mount = |at: &Path| {
        assert!(Command::new("mount").args(["-t", "tmpfs", "x"]).arg(at).status().unwrap().success())
    };
    mount(root.path());
    let seen = Seen::default();
    let mut config = WatchConfig::new(1);
    let points: Vec<PathBuf> = vec![root.path().into(), second.path().into()];
    config.file_systems = FileSystems::At(points);
    let _watcher = Watcher::start(config, seen.sink()).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    mount(second.path());
    let end = Instant::now() + Duration::from_secs(5);
    while !seen.changes().iter().any(|(_, c)| c.path.starts_with(second.path().to_str().unwrap())) {
        assert!(Instant::now() < end, "the later mount is not watched");
        by_another("echo '#!' > script", second.path());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn without_root_folders_are_watched_by_inotify() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Seen::default();
    let mut config = WatchConfig::new(1);
    config.file_systems = FileSystems::At(vec![folder.path().to_owned()]);
    config.way = Some(Way::Inotify);
    let watcher = Watcher::start(config, seen.sink()).unwrap();
    assert_eq!(watcher.way(), Way::Inotify);
    fs::File::create(folder.path().join("x.sh")).unwrap().write_all(b"#!/bin/sh\n").unwrap();
    let (pid, change) =
        seen.wait("a script", |c| c.path == named(folder.path(), "x.sh") && c.act == FileAct::Written);
    assert_eq!((pid, change.code), (None, true));
    fs::set_permissions(folder.path().join("x.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    seen.wait("its mode", |c| c.act == FileAct::AttributesChanged && c.executable);
    fs::rename(folder.path().join("x.sh"), folder.path().join(".profile")).unwrap();
    seen.wait("its new name", |c| c.place == Some(PersistencePlace::ShellProfile) && c.code);
    symlink("/tmp/x", folder.path().join(".bashrc")).unwrap();
    seen.wait("a link", |c| c.path.ends_with(".bashrc") && c.act == FileAct::Renamed { from: None });
    fs::remove_file(folder.path().join(".profile")).unwrap();
    seen.wait("its end", |c| c.act == FileAct::Deleted);
    fs::write(folder.path().join("data.txt"), "x").unwrap();
    drop(watcher);
    assert!(seen.changes().iter().all(|(_, c)| !c.path.ends_with("data.txt")));
}

#[test]
fn the_whole_host_can_be_watched() {
    let seen = Seen::default();
    let watcher = match Watcher::start(WatchConfig::new(1), seen.sink()) {
        Ok(watcher) if watcher.way() == Way::Fanotify => watcher,
        Ok(watcher) => {
            println!("SKIPPED: fanotify: {:?}", watcher.notes());
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let folder = tempfile::tempdir().unwrap();
    by_another("printf '#!/bin/sh\\n' > dropped", folder.path());
    seen.wait("a script", |c| c.path == named(folder.path(), "dropped"));
    println!("NOTES: {:?} DROPS: {:?}", watcher.notes(), watcher.drops());
}
