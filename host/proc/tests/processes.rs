//! The room against the machine it runs on: own processes, their memory and time, and what hides them.
#![allow(clippy::unwrap_used, missing_docs, unsafe_code)]

mod own;

use std::io::{Read, Write};
use std::process::Command;
use std::time::Instant;

use davy_model::{EventKind, Timestamp};
use davy_proc::sockets::{self, DestroyError};
use davy_proc::{Concealed, PollOptions, Poller, ProcFs, Sampler};
use own::{Own, connection, inside, shell, until};

#[test]
fn this_process_is_described() {
    let info = davy_proc::read(std::process::id()).unwrap();
    assert_eq!(info.image.path, std::env::current_exe().unwrap().to_str().unwrap());
    assert_eq!(info.args, std::env::args().collect::<Vec<_>>());
    assert_eq!(info.cwd, std::env::current_dir().unwrap().to_str().unwrap());
    assert_eq!(info.creds.euid, rustix::process::geteuid().as_raw());
    assert_eq!(info.parent.unwrap().pid, rustix::process::getppid().unwrap().as_raw_pid() as u32);
    assert!(info.ns.net != 0 && info.ns.pid != 0 && info.image.file.ino != 0 && !info.kernel_thread);
    assert!(info.cgroup.starts_with('/') && info.cgroup_id != 0);
    let all = davy_proc::list();
    assert!(all.iter().any(|p| p.key == info.key));
    assert!(all.iter().find(|p| p.key.pid == 1).unwrap().parent.is_none());
}

#[test]
fn a_name_made_to_confuse_confuses_nobody() {
    let own = Own(Command::new("sleep")
        .arg("20")
        .env("LD_PRELOAD", "")
        .env_remove("LD_LIBRARY_PATH")
        .spawn()
        .unwrap());
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a) R 1 (b\nc");
    std::fs::copy("/bin/sleep", &odd).unwrap();
    let renamed = Own(Command::new(&odd).arg("20").spawn().unwrap());
    let info = davy_proc::read(renamed.0.id()).unwrap();
    assert_eq!(info.comm, "a) R 1 (b\nc");
    assert_eq!(info.parent.unwrap().pid, std::process::id());
    std::fs::remove_file(&odd).unwrap();
    let info = davy_proc::read(renamed.0.id()).unwrap();
    assert_eq!(info.image.kind, davy_model::ImageKind::Deleted);
    assert_eq!(info.image.path, odd.to_str().unwrap());
    let sleeping = davy_proc::read(own.0.id()).unwrap();
    assert_eq!(sleeping.env, vec![("LD_PRELOAD".to_owned(), String::new())]);
}

#[test]
fn a_thread_that_computes_is_sampled_and_one_that_sleeps_is_not() {
    let start = Instant::now();
    let busy = shell("ulimit -t 20; while :; do :; done");
    let idle = shell("read a");
    let mut sampler = Sampler::new();
    let mut sample =
        || until("a sample", || sampler.sample().threads.into_iter().find(|t| t.process.pid == busy.0.id()));
    let (before, after) = (sample(), sample());
    assert!(
        after.cpu_ns > before.cpu_ns && after.cpu_ns - before.cpu_ns <= start.elapsed().as_nanos() as u64
    );
    assert!(after.allowed_cpus >= 1 && after.mxcsr.is_none() && after.tid == busy.0.id());
    assert!(after.involuntary_switches >= before.involuntary_switches);
    assert_eq!(sampler.burst(&[after.process]).threads.len(), 1);
    assert!(sampler.cpu_ns(&after.process) > Some(0));
    let last = sampler.sample();
    assert!(last.cpus >= 1 && last.threads.iter().all(|t| t.process.pid != idle.0.id()));
}

#[test]
#[ignore = "measures; run by hand"]
fn costs() {
    let sleepers: Vec<Own> =
        (0..500).map(|_| Own(Command::new("sleep").arg("60").spawn().unwrap())).collect();
    let mut sampler = Sampler::new();
    let mut poller = Poller::new(PollOptions::default());
    let (mut processes, now) = (0, Timestamp::from_secs(1));
    let time = |what: &str, act: &mut dyn FnMut()| {
        act();
        let cpu = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
        };
        let (start, before) = (Instant::now(), cpu());
        (0..10).for_each(|_| act());
        let (took, used) = (start.elapsed().as_secs_f64() * 100.0, (cpu() - before) * 100.0);
        println!("MEASURED: {what}: {used:.2} ms of CPU, {took:.2} ms in all");
    };
    time("list", &mut || processes = davy_proc::list().len());
    time("sample", &mut || drop(sampler.sample()));
    time("poll", &mut || drop(poller.poll(now)));
    time("sockets with owners", &mut || drop(sockets::list()));
    time("sockets without owners", &mut || drop(sockets::list_unowned(ProcFs::host())));
    time("hidden, all pids", &mut || drop(davy_proc::hidden()));
    println!(
        "MEASURED: {processes} processes, {} sleepers, {} sockets",
        sleepers.len(),
        sockets::list().len()
    );
}

#[test]
fn scratchpads_and_generated_code_show_in_the_memory_shape() {
    const MIB: usize = 1 << 20;
    let key = davy_proc::key(std::process::id()).unwrap();
    let before = davy_proc::memory_shape(&key).unwrap();
    let map = |length: usize, rights: i32| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of this program.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        at.cast::<u8>()
    };
    for _ in 0..3 {
        // Between guards, so that the kernel does not join neighbours.
        map(2 * MIB, libc::PROT_NONE);
        let pad = map(2 * MIB, libc::PROT_READ | libc::PROT_WRITE);
        for page in 0..512 {
            // SAFETY: the mapping was made above, is writable and holds 512 pages.
            unsafe { pad.add(page * 4096).write_volatile(1) };
        }
        map(2 * MIB, libc::PROT_NONE);
    }
    // One of the same size that nothing was written to, as threads' stacks are.
    map(2 * MIB, libc::PROT_READ | libc::PROT_WRITE);
    map(2 * MIB, libc::PROT_NONE);
    map(64 * 1024, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
    map(256 * MIB, libc::PROT_READ | libc::PROT_WRITE);
    let shape = davy_proc::memory_shape(&key).unwrap();
    assert_eq!(shape.scratchpads, before.scratchpads + 3);
    assert_eq!(shape.writable_executable, before.writable_executable + 64 * 1024);
    assert_eq!(shape.anonymous_executable, before.anonymous_executable + 64 * 1024);
    assert!(shape.largest_anonymous >= 256 * MIB as u64 && shape.resident > 0);
    let reused = davy_model::ProcessKey { start_ticks: key.start_ticks + 1, ..key };
    assert_eq!(davy_proc::memory_shape(&reused), None);
}

#[test]
fn polls_tell_of_exec_rename_and_exit() {
    let mut poller = Poller::new(PollOptions { flows: false, sizes: false });
    let now = Timestamp::from_secs(1);
    let first = poller.poll(now);
    assert!(first.iter().all(|e| matches!(e.kind, EventKind::Found(_)) && e.time == now));
    let mut own = shell("echo; read a; printf renamed > /proc/$$/comm; echo; read b; exec sleep 20");
    let key = davy_proc::key(own.0.id()).unwrap();
    let kinds = |events: Vec<davy_model::Event>| -> Vec<EventKind> {
        events.into_iter().filter(|e| e.process == Some(key)).map(|e| e.kind).collect()
    };
    // It has executed the shell once it says so.
    own.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    assert!(matches!(kinds(poller.poll(now)).as_slice(), [EventKind::Exec(p)] if p.comm == "sh"));
    assert!(kinds(poller.poll(now)).is_empty());
    own.0.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
    own.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    assert_eq!(kinds(poller.poll(now)), vec![EventKind::Renamed { comm: "renamed".into() }]);
    own.0.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
    let executed = until("the exec", || Some(kinds(poller.poll(now))).filter(|kinds| !kinds.is_empty()));
    assert!(matches!(executed.as_slice(), [EventKind::Exec(p)] if p.args == ["sleep", "20"]));
    drop(own);
    assert!(matches!(kinds(poller.poll(now)).as_slice(), [EventKind::Exit(_)]));
}

#[test]
fn without_root_what_can_be_read_is_read() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: becoming another user needs root");
        return;
    }
    // A copy, since the folder of the build may be closed to others.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("processes");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
    command.args(["--exact", "child_looks_without_root", "--ignored", "--nocapture"]).current_dir("/");
    let output = command.output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "is run by another test as another user"]
fn child_looks_without_root() {
    let parent = davy_proc::read(rustix::process::getppid().unwrap().as_raw_pid() as u32).unwrap();
    assert!(
        !parent.comm.is_empty()
            && !parent.args.is_empty()
            && parent.creds.uid == 0
            && parent.key.start_ticks > 0
    );
    assert!(parent.image.path.is_empty() && parent.ns.net == 0 && parent.env.is_empty());
    let shape = davy_proc::memory_shape(&parent.key).unwrap();
    assert!(shape.resident > 0 && shape.largest_anonymous == 0);
    let (_listener, client, _server, _) = connection();
    let all = sockets::list();
    let own = all.iter().find(|s| s.local == client.local_addr().unwrap()).unwrap();
    assert_eq!(own.owners, vec![davy_proc::key(std::process::id()).unwrap()]);
    assert!(matches!(sockets::destroy(own), Err(DestroyError::Refused(_) | DestroyError::Unnamed)));
    let mut sampler = Sampler::new();
    sampler.sample();
    assert!(sampler.sample().cpus >= 1);
    assert!(!Poller::new(PollOptions::default()).poll(Timestamp::from_secs(1)).is_empty());
    let unlisted: Vec<_> = davy_proc::Sweep::new(ProcFs::host()).whole();
    assert!(unlisted.iter().all(|h| h.how != Concealed::Unlisted), "{unlisted:?}");
}

#[test]
fn a_mount_over_a_process_hides_it_from_nobody() {
    let Some(own) = inside(&["-m"], "child_hides_a_process_by_a_mount") else { return };
    let mut own = own;
    let mut said = String::new();
    own.0.stdout.as_mut().unwrap().read_to_string(&mut said).unwrap();
    own.0.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
    assert!(own.0.wait().unwrap().success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "is run by another test in a mount namespace"]
fn child_hides_a_process_by_a_mount() {
    let sleeper = Own(Command::new("sleep").arg("20").spawn().unwrap());
    let pid = sleeper.0.id();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "hide", &format!("/proc/{pid}")]).status().unwrap();
    assert!(mounted.success());
    assert!(std::fs::read(format!("/proc/{pid}/stat")).is_err(), "the mount does not cover");
    let found = davy_proc::hidden();
    assert!(
        found
            .iter()
            .any(|h| h.pid == pid && matches!(&h.how, Concealed::Covered { by } if by.starts_with("tmpfs")))
    );
    // As root the view is an instance of its own, which the mount does not cover.
    assert_eq!(davy_proc::read(pid).expect("it is not seen through").comm, "sleep");
}
