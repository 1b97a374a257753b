//! How many people are logged in: for miners that wait until nobody is.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

/// One record of utmp(5) on 64-bit glibc.
const RECORD: usize = 384;

/// `ut_type` of a person's session (utmp(5)).
const USER_PROCESS: i16 = 7;

/// At most so many records are looked at.
const MAX_RECORDS: usize = 4096;

/// At most so many of logind's sessions are looked at.
const MAX_SESSIONS: usize = 4096;

/// How many people are logged in now: the larger of what utmp and systemd-logind say, since either may be missing.
#[must_use]
pub fn sessions() -> u32 {
    sessions_under(Path::new("/run"), |pid| rustix::process::Pid::from_raw(pid).is_some_and(alive))
}

fn alive(pid: rustix::process::Pid) -> bool {
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

fn sessions_under(run: &Path, alive: impl Fn(i32) -> bool) -> u32 {
    in_utmp(&bounded(&run.join("utmp"), (RECORD * MAX_RECORDS) as u64), alive)
        .max(in_logind(&run.join("systemd/sessions")))
}

/// Terminals with a person on them. Records outlive a crash of the program that wrote them, so its process must live.
fn in_utmp(bytes: &[u8], alive: impl Fn(i32) -> bool) -> u32 {
    let lines: HashSet<&[u8]> = bytes
        .chunks_exact(RECORD)
        .take(MAX_RECORDS)
        .filter(|record| i16::from_ne_bytes([record[0], record[1]]) == USER_PROCESS)
        .filter(|record| alive(i32::from_ne_bytes([record[4], record[5], record[6], record[7]])))
        .map(|record| &record[8..40])
        .collect();
    lines.len() as u32
}

/// Sessions of class `user` that are not closing (sd-login(3)).
fn in_logind(folder: &Path) -> u32 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let texts =
        entries.map_while(Result::ok).take(MAX_SESSIONS).map(|entry| bounded(&entry.path(), 16 * 1024));
    texts.filter(|text| is_persons(&String::from_utf8_lossy(text))).count() as u32
}

fn is_persons(session: &str) -> bool {
    let value = |name: &str| session.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value("CLASS").is_some_and(|class| class == "user" || class.starts_with("user-"))
        && value("STATE").is_some_and(|state| state != "closing")
}

fn bounded(path: &Path, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let is_file = std::fs::metadata(path).is_ok_and(|m| m.is_file());
    if is_file && let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(most).read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn record(kind: i16, pid: i32, line: &str) -> Vec<u8> {
        let mut bytes = vec![0; RECORD];
        bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&pid.to_ne_bytes());
        bytes[8..8 + line.len()].copy_from_slice(line.as_bytes());
        bytes
    }

    #[test]
    fn living_terminals_are_counted_once() {
        let utmp = [
            record(2, 0, "~"),
            record(7, 10, "pts/0"),
            record(7, 11, "pts/0"),
            record(7, 12, "tty1"),
            record(7, 99, "pts/9"),
            record(8, 13, "pts/3"),
            vec![1, 2, 3],
        ]
        .concat();
        assert_eq!(in_utmp(&utmp, |pid| pid != 99), 2);
    }

    #[test]
    fn logind_is_asked_too() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("systemd/sessions");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("1"), "UID=0\nCLASS=user\nSTATE=active\n").unwrap();
        std::fs::write(folder.join("2"), "CLASS=greeter\nSTATE=active\n").unwrap();
        std::fs::write(folder.join("3"), "CLASS=user\nSTATE=closing\n").unwrap();
        std::fs::write(folder.join("4"), "CLASS=user-early\nSTATE=online\n").unwrap();
        std::fs::create_dir(folder.join("5.ref")).unwrap();
        assert_eq!(sessions_under(run.path(), |_| true), 2);
        std::fs::write(
            run.path().join("utmp"),
            [record(7, 1, "a"), record(7, 1, "b"), record(7, 1, "c")].concat(),
        )
        .unwrap();
        assert_eq!(sessions_under(run.path(), |_| true), 3);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = in_utmp(&bytes, |_| true);
            let _ = is_persons(&String::from_utf8_lossy(&bytes));
        }
    }
}
