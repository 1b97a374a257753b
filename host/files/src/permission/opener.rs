//! What a process that waits in an open does with the file, from what the kernel tells of it.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::ask::AskKind;
use super::config::ScriptOf;
use crate::content::{Content, FIRST};

/// Threads looked at for the one that waits in an open.
const THREADS: usize = 64;

/// Bytes read of a command line and of a table of mappings.
const COMMAND_LINE: u64 = 64 * 1024;
const MAPPINGS: u64 = 1024 * 1024;

/// What an open is for; `None` for reading and writing.
pub(super) fn purpose(pid: u32, file: &File, script_of: &ScriptOf) -> Option<AskKind> {
    let mut first = [0; FIRST];
    let read = file.read_at(&mut first, 0).unwrap_or(0);
    match Content::of(&first[..read]) {
        Content::Program => is_loading(pid).then_some(AskKind::Library),
        Content::Part => None,
        Content::Script | Content::Web | Content::Other => {
            is_its_script(pid, file, script_of).unwrap_or(false).then_some(AskKind::Script)
        }
    }
}

/// Whether a thread of the process waits in an open that the dynamic loader made: by the place it will return to.
/// Readers of programs (copies, scanners, debuggers) open them elsewhere. What cannot be told counts as loading.
fn is_loading(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let mut elsewhere = false;
    let mut loaders = None;
    for (looked, thread) in threads.flatten().enumerate() {
        if looked >= THREADS {
            return true;
        }
        let Ok(text) = fs::read_to_string(thread.path().join("syscall")) else { return true };
        let Some((call, place)) = waiting_in(&text) else { continue };
        if OPENS.contains(&call) {
            let loaders = loaders.get_or_insert_with(|| loaders_of(pid));
            if loaders.iter().any(|(from, to)| (*from..*to).contains(&place)) {
                return true;
            }
        }
        elsewhere |= OPENS.contains(&call) || EXECS.contains(&call);
    }
    // What is opened for execve was asked for as such. io_uring opens in no call that can be seen.
    !elsewhere
}

/// Numbers of open, openat and openat2 (x86-64 has all three, others the last two).
#[cfg(target_arch = "x86_64")]
const OPENS: [i64; 3] = [libc::SYS_open, libc::SYS_openat, libc::SYS_openat2];
#[cfg(not(target_arch = "x86_64"))]
const OPENS: [i64; 2] = [libc::SYS_openat, libc::SYS_openat2];

const EXECS: [i64; 2] = [libc::SYS_execve, libc::SYS_execveat];

/// The number of the call and where it returns to, of `/proc/PID/syscall`; `None` for a thread that runs.
fn waiting_in(text: &str) -> Option<(i64, u64)> {
    let mut words = text.split_whitespace();
    let call = words.next()?.parse().ok()?;
    let place = words.next_back()?.strip_prefix("0x")?;
    Some((call, u64::from_str_radix(place, 16).ok()?))
}

/// Where a process has its dynamic loader mapped executable. In musl the loader is the C library itself.
fn loaders_of(pid: u32) -> Vec<(u64, u64)> {
    let Some(text) = bounded(&format!("/proc/{pid}/maps"), MAPPINGS) else { return Vec::new() };
    String::from_utf8_lossy(&text).lines().filter_map(loader).collect()
}

fn loader(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let name = words.nth(3)?.rsplit('/').next()?;
    let is_loader = name.starts_with("ld-") || name.starts_with("ld.so") || name.starts_with("libc.musl");
    let (from, to) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    (is_loader && rights.contains('x')).then_some((number(from)?, number(to)?))
}

/// Whether the process is an interpreter whose command line names this file.
fn is_its_script(pid: u32, file: &File, script_of: &ScriptOf) -> Option<bool> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let program = program.file_name()?.to_string_lossy().into_owned();
    let program = program.strip_suffix(" (deleted)").unwrap_or(&program);
    let line = bounded(&format!("/proc/{pid}/cmdline"), COMMAND_LINE)?;
    let arguments: Vec<String> =
        line.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let script = script_of(program, &arguments)?;
    let (there, here) = (fs::metadata(seen_by(pid, &script)).ok()?, file.metadata().ok()?);
    Some((there.dev(), there.ino()) == (here.dev(), here.ino()))
}

/// A path as another process would follow it.
fn seen_by(pid: u32, path: &str) -> PathBuf {
    if path.starts_with('/') {
        let mut whole = format!("/proc/{pid}/root").into_bytes();
        whole.extend(path.as_bytes());
        return PathBuf::from(std::ffi::OsStr::from_bytes(&whole));
    }
    Path::new(&format!("/proc/{pid}/cwd")).join(path)
}

fn bounded(path: &str, most: u64) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn calls_and_loaders_are_read() {
        assert_eq!(
            waiting_in("257 0xffffff9c 0x7ffd 0x80000 0x0 0x7 0x0 0x7ffd0010 0x7f00aa10\n"),
            Some((257, 0x7f00_aa10))
        );
        assert_eq!(waiting_in("running\n"), None);
        assert_eq!(waiting_in("-1 0x7ffd0010 0x7f00aa10\n"), Some((-1, 0x7f00_aa10)));
        let line = "7f00a000-7f00b000 r-xp 00001000 fe:00 12 /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
        assert_eq!(loader(line), Some((0x7f00_a000, 0x7f00_b000)));
        assert_eq!(loader(&line.replace("r-xp", "r--p")), None);
        assert_eq!(loader(&line.replace("ld-linux-x86-64.so.2", "libc.so.6")), None);
        assert_eq!(loader("7f00a000-7f00b000 r-xp 00000000 00:00 0"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,120}") {
            let _ = (waiting_in(&text), loader(&text));
        }
    }
}
