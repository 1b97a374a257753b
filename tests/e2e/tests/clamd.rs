//! ClamAV's daemon as it is installed here is asked for its opinion; `apps/sweep` has the test with one that only speaks like it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A daemon that loads a database of one signature takes a moment, on a busy machine a longer one.
const LIMIT: Duration = Duration::from_secs(60);

/// A running daemon with a database of its own.
struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts it; says loudly when it is not installed.
    fn start() -> Option<Self> {
        let Some(program) = installed("clamd") else {
            println!("SKIPPED: a real clamd: clamav-daemon is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("db");
        fs::create_dir(&database).unwrap();
        // A signature of our own: the daemon's usual ones come over a network.
        let hex: String = b"a tell-tale of this test".iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(database.join("own.ndb"), format!("Davy.Test.Sample:0:*:{hex}\n")).unwrap();
        let config = folder.path().join("clamd.conf");
        let socket = folder.path().join("clamd.ctl");
        let text = format!(
            "Foreground yes\nLocalSocket {}\nDatabaseDirectory {}\nMaxThreads 1\n",
            socket.display(),
            database.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg("--config-file")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut daemon = Self { child, folder };
        let end = Instant::now() + LIMIT;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "clamd does not answer: {}", daemon.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("clamd.ctl")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.exists())
}

fn scan(socket: &Path, folder: &Path) -> (Option<i32>, Vec<Value>) {
    let base = tempfile::tempdir().unwrap();
    let output = Command::new(davy_test_e2e::davy())
        .arg("--base-dir")
        .arg(base.path())
        .args(["scan", "--json"])
        .arg(format!("--clamd={}", socket.display()))
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    (output.status.code(), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn a_real_clamd_gives_its_opinion() {
    let Some(daemon) = Daemon::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("clean"), "nothing to see").unwrap();
    let (code, lines) = scan(&daemon.socket(), folder.path());
    assert_eq!(code, Some(0), "{lines:?} {}", daemon.log());
    let bad = folder.path().join("bad");
    fs::write(&bad, "here is a tell-tale of this test, and no more").unwrap();
    let (code, lines) = scan(&daemon.socket(), folder.path());
    assert_eq!(code, Some(9), "{lines:?} {}", daemon.log());
    let found = lines.iter().find(|line| line["scan"] == "found").unwrap();
    assert_eq!(found["path"], bad.to_str().unwrap());
    assert_eq!(found["matches"][0]["origin"], "clamd");
    assert!(found["matches"][0]["rule"].as_str().unwrap().starts_with("Davy.Test.Sample"), "{found}");
}
