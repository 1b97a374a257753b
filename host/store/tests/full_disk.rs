//! A disk that is full: a small tmpfs in a mount namespace of the test's own.

#![allow(clippy::unwrap_used, missing_docs)]

mod samples;

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use davy_model::*;
use davy_store::{EventFilter, Limits, Store};
use samples::*;

const FOLDER: &str = "DAVY_STORE_TEST_FULL";
const SIZE: u64 = 24 << 20;

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(now.as_micros() as i64)
}

/// Runs `inside` again in a mount namespace, where a tmpfs lies on a folder.
#[test]
fn protection_goes_on_when_the_disk_is_full() {
    for (inner, how) in [("inside", "full while it runs"), ("inside_from_the_start", "full at the start")] {
        let folder = tempfile::tempdir().unwrap();
        let run = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!("mount -t tmpfs -o size={SIZE} davy-test \"$1\" || exit 77; shift; exec \"$@\""))
            .arg("sh")
            .arg(folder.path())
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", inner, "--nocapture"])
            .env(FOLDER, folder.path())
            .output();
        let Ok(run) = run else {
            println!("SKIPPED: unshare(1) is missing");
            return;
        };
        let text = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        if run.status.code() == Some(77) || text.contains("unshare failed") {
            println!("SKIPPED: root or the right to mount in an own namespace is missing");
            return;
        }
        println!("{text}");
        assert!(run.status.success(), "{how}: {text}");
        assert!(text.contains("1 passed"), "{how}: it ran");
    }
}

/// Fills the disk to its last block.
fn fill(folder: &Path) {
    let mut file = File::create(folder.join("filler")).unwrap();
    for size in [1 << 20, 4096] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    assert!(File::create(folder.join("one-more")).and_then(|mut f| f.write_all(&[1; 4096])).is_err());
    let _ = fs::remove_file(folder.join("one-more"));
}

fn limits() -> Limits {
    Limits { low_water: 2 << 20, queue_events: 5_000, ..Limits::default() }
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let store = Store::open(folder, limits()).await.unwrap();
    store.append((0..500).map(|n| exec(now(), n, "/usr/bin/gcc")).collect());
    store.flush().await.unwrap();
    store.put_finding(&finding(store.new_finding_id().0, now())).await.unwrap();
    store.maintain().await.unwrap();

    fill(folder);
    // The journal goes on in its reserve: 600 lines, each intended and done.
    let mut lines = Vec::new();
    for _ in 0..600 {
        let mut line = action(now(), None, ActionState::Intended);
        line.id = store.record(&line).await.expect("the journal has its reserve");
        line.state = ActionState::Done;
        line.undoable = true;
        store.change(&line).await.expect("the journal has its reserve");
        lines.push(line);
    }
    // Findings wait in memory, events in the queue; what does not fit there is counted.
    let held = finding(store.new_finding_id().0, now());
    assert!(store.put_finding(&held).await.is_err());
    for _ in 0..10 {
        store.append((0..1_000).map(|n| exec(now(), n, "/usr/bin/gcc")).collect());
    }
    assert!(store.flush().await.is_err());
    let status = store.status();
    assert!(status.failing.as_ref().is_some_and(|reason| reason.contains("full")), "{status:?}");
    assert_eq!(status.lost, 5_000, "the queue holds 5,000 of 10,000");
    assert_eq!(store.events(&EventFilter::default()).await.unwrap().len(), 500, "reading goes on");
    assert_eq!(store.actions(9_999).await.unwrap(), lines);

    fs::remove_file(folder.join("filler")).unwrap();
    until("the held finding to be written", async || store.finding(held.id).await.unwrap().is_some()).await;
    until("the queue to be written", async || store.status().events == 5_500).await;
    store.maintain().await.unwrap();
    assert_eq!(store.status().failing, None);
    assert!(folder.join("ballast").exists(), "the reserve is taken in again");
    store.close().await;

    let store = Store::open(folder, limits()).await.unwrap();
    assert!(store.notices().is_empty(), "nothing is corrupt");
    assert_eq!(store.actions(9_999).await.unwrap(), lines);
    assert_eq!(
        store.events(&EventFilter { limit: 99_999, ..EventFilter::default() }).await.unwrap().len(),
        5_500
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_from_the_start() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let store = Store::open(folder, limits()).await.unwrap();
    let first = store.record(&action(now(), None, ActionState::Done)).await.unwrap();
    store.maintain().await.unwrap();
    store.close().await;
    fill(folder);
    let store =
        Store::open(folder, limits()).await.expect("an agent that starts on a full disk has its store");
    let second = store.record(&action(now(), None, ActionState::Done)).await.unwrap();
    assert_eq!((first, second), (ActionId(1), ActionId(2)));
    store.append(vec![exit(now(), 1)]);
    assert!(store.flush().await.is_err());
    store.close().await;
}
