//! What the tests stand on: a file system of their own, programs in it, and a gate that asks about nothing else.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use davy_files::permission::{Answer, Ask, AskKind, GateConfig, Marked, PermissionGate, Steadiness};

/// A mounted folder, unmounted at the end.
pub(crate) struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    /// A fresh tmpfs.
    pub(crate) fn tmpfs() -> Self {
        Self::mounted(&["-t", "tmpfs", "-o", "size=64m", "davy-test"], |_| {})
    }

    /// A folder on the disk, by a mount of its own, so that a mark on the mount is on nothing else.
    pub(crate) fn disk() -> Self {
        let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        run(Command::new("mount").arg("--bind").arg(folder.path()).arg(folder.path()));
        Self { folder }
    }

    fn mounted(arguments: &[&str], prepare: impl Fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(arguments).arg(folder.path()));
        prepare(folder.path());
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The mark that touches this ground and nothing else.
    pub(crate) fn mark(&self) -> Marked {
        Marked::Mount(self.path().to_owned())
    }

    /// A program that ends at once; `salt` makes its bytes its own.
    pub(crate) fn program(&self, name: &str, salt: &str) -> PathBuf {
        let path = self.path().join(name);
        write_program(&path, salt);
        path
    }

    pub(crate) fn unmount(&self) -> bool {
        Command::new("umount").arg(self.path()).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Lazily: what a failed test left running must not keep the next from its own.
        let _ = Command::new("umount").arg("-l").arg(self.path()).stderr(Stdio::null()).status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Bytes behind an ELF file's end do not change what it does.
pub(crate) fn program_bytes(salt: &str) -> Vec<u8> {
    let mut bytes = fs::read("/bin/true").unwrap();
    bytes.extend(salt.as_bytes());
    bytes
}

pub(crate) fn write_program(path: &Path, salt: &str) {
    fs::write(path, program_bytes(salt)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// How a program's start went: its time, or the error number.
pub(crate) fn execute(path: &Path) -> Result<Duration, i32> {
    let begin = Instant::now();
    let status = Command::new(path).stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) => {
            assert!(status.success(), "{}: {status}", path.display());
            Ok(begin.elapsed())
        }
        Err(error) => Err(error.raw_os_error().unwrap()),
    }
}

pub(crate) fn keeper() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("keep");
    command
}

/// What was asked, as the judge saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) kind: AskKind,
    pub(crate) path: String,
    pub(crate) steadiness: Steadiness,
}

#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Vec<Asked>>>);

impl Record {
    pub(crate) fn all(&self) -> Vec<Asked> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn of(&self, path: &Path) -> Vec<AskKind> {
        let path = path.to_str().unwrap();
        self.all().into_iter().filter(|asked| asked.path == path).map(|asked| asked.kind).collect()
    }

    pub(crate) fn note(&self, ask: &Ask) {
        let asked = Asked { kind: ask.kind, path: ask.path.clone(), steadiness: ask.steadiness };
        self.0.lock().unwrap().push(asked);
    }
}

/// What the test judges wrong: its bytes say so at their end.
pub(crate) const WRONG: &str = "nobody vouches for this";

/// Denies what ends in [`WRONG`], by reading it whole, and what is being written; allows all else to anyone.
pub(crate) fn strictly(ask: &Ask) -> Answer {
    if ask.steadiness == Steadiness::Held { by_content(ask) } else { Answer::Deny }
}

/// Denies what ends in [`WRONG`], by reading it whole, and allows all else to anyone.
pub(crate) fn by_content(ask: &Ask) -> Answer {
    use std::os::unix::fs::FileExt;
    ask.digest().unwrap();
    let length = ask.content.metadata().unwrap().len();
    let mut end = vec![0; WRONG.len()];
    let read = ask.content.read_at(&mut end, length.saturating_sub(WRONG.len() as u64)).unwrap();
    if end[..read] == *WRONG.as_bytes() { Answer::Deny } else { Answer::AllowAnyone }
}

/// A gate on this ground that judges by content.
pub(crate) fn gate(ground: &Ground, opens: bool) -> (PermissionGate, Record) {
    gate_of(ground, opens, by_content)
}

pub(crate) fn gate_of(ground: &Ground, opens: bool, judge: fn(&Ask) -> Answer) -> (PermissionGate, Record) {
    let record = Record::default();
    let noted = record.clone();
    let judge = move |ask: &Ask| {
        noted.note(ask);
        judge(ask)
    };
    let mut config = GateConfig::new(keeper, judge);
    config.opens = opens;
    config.script_of = Box::new(|program, arguments| {
        let first = arguments.get(1).filter(|first| !first.starts_with('-'))?;
        (["sh", "dash", "bash"].contains(&program) || program.starts_with("python")).then(|| first.clone())
    });
    (PermissionGate::start(config, vec![ground.mark()]).unwrap(), record)
}

/// Waits until it holds.
pub(crate) fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn is(result: &io::Result<fs::File>, errno: i32) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(errno))
}
