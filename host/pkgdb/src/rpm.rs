//! rpm's database below a root, through rpm's own tool.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use davy_packages::rpm::{Item, QueryReader, query_format};
use davy_packages::{Aliases, Faults, Package, PackagedFile};
use sha2::{Digest, Sha256};

use crate::db::{Each, Known, PackageFiles, Reading, fingerprint};
use crate::error::Error;
use crate::root::{Root, Stamp};

/// Where distributions keep it.
const FOLDERS: [&str; 3] = ["usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"];

/// What it is kept in: SQLite with its log, rpm's own "ndb", Berkeley DB.
const FILES: [&str; 4] = ["rpmdb.sqlite", "rpmdb.sqlite-wal", "Packages.db", "Packages"];

/// Where the tool can be. It is not looked for in the caller's PATH.
const TOOLS: [&str; 2] = ["/usr/bin/rpm", "/bin/rpm"];

/// How long the tool may take, and how much it may print: several times what the largest systems need.
const PATIENCE: Duration = Duration::from_secs(180);
const MOST_BYTES: u64 = 1 << 30;

/// The longest line that is read; the longest path is 4 KiB.
const LONGEST_LINE: u64 = 64 << 10;

#[derive(Debug)]
pub(crate) struct Rpm {
    /// Below the root.
    folder: &'static str,
    /// On the host.
    path: PathBuf,
}

impl Rpm {
    pub(crate) fn find(root: &Root) -> Option<Self> {
        let has_files =
            |folder: &str| FILES.iter().any(|file| root.stamp(&format!("{folder}/{file}")).is_some());
        let folder = FOLDERS.into_iter().find(|folder| has_files(folder))?;
        Some(Self { folder, path: root.host_path(folder)? })
    }

    pub(crate) fn stamp(&self, root: &Root) -> Vec<Option<Stamp>> {
        // Every query of root sets the owner of SQLite's log anew, which changes nothing.
        FILES.map(|file| root.stamp(&format!("{}/{file}", self.folder)).map(Stamp::of_content)).to_vec()
    }

    /// Yields the packages. All is printed before the first one is yielded, so that the database is not kept open while
    /// files are hashed at leisure.
    pub(crate) fn read(
        &self,
        aliases: &Aliases,
        known: Option<&Known<'_>>,
        each: &mut Each<'_>,
    ) -> Result<Faults, Error> {
        let mark = self.mark()?;
        let mut printed = BufReader::new(self.query(&mark)?);
        let mut reader = QueryReader::new(&mark);
        let mut faults = Faults::default();
        let mut begun: Option<Begun> = None;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut printed)
                .take(LONGEST_LINE)
                .read_until(b'\n', &mut line)
                .map_err(|e| Error::io("reading", "what rpm printed", e))?;
            if read == 0 {
                break;
            }
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            match reader.line(line) {
                Ok(Item::Package(package)) => {
                    if begun.replace(Begun::new(package)).is_some_and(|b| each(b.end(known)).is_break()) {
                        return Ok(faults);
                    }
                }
                Ok(Item::File(file)) => {
                    if let Some(begun) = &mut begun {
                        begun.files.extend(file.packaged().map(|file| PackagedFile {
                            path: aliases.resolve(&file.path).into_owned(),
                            ..file
                        }));
                    }
                }
                Err(fault) => faults.push(fault),
            }
        }
        if let Some(begun) = begun {
            let _ = each(begun.end(known));
        }
        Ok(faults)
    }

    /// A mark that no package can hold: random digits, for this one query.
    fn mark(&self) -> Result<String, Error> {
        let mut bytes = [0; 8];
        File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bytes))
            .map_err(|e| Error::io("reading", "/dev/urandom", e))?;
        Ok(hex::encode(bytes))
    }

    /// What the tool prints, in a file without a name.
    fn query(&self, mark: &str) -> Result<File, Error> {
        let Some(tool) = TOOLS.iter().find(|tool| Path::new(tool).exists()) else {
            return Err(self.failed("there is no rpm at /usr/bin/rpm; install it to read this database"));
        };
        let file = || tempfile::tempfile().map_err(|e| Error::io("making", "a temporary file", e));
        let (printed, complaints) = (file()?, file()?);
        let copy = |file: &File| file.try_clone().map_err(|e| Error::io("sharing", "a temporary file", e));
        let mut child = Command::new(tool)
            .arg("--dbpath")
            .arg(&self.path)
            .args(["-qa", "--queryformat", &query_format(mark)])
            // Nothing of whoever started Davy: neither their macros nor their language.
            .env_clear()
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(copy(&printed)?)
            .stderr(copy(&complaints)?)
            .spawn()
            .map_err(|e| Error::io("starting", *tool, e))?;
        if let Err(why) = wait(&mut child, &printed) {
            let said = first_line(complaints).unwrap_or_default();
            return Err(self.failed(format!("{why}{said}")));
        }
        let mut printed = printed;
        printed.rewind().map_err(|e| Error::io("rewinding", "a temporary file", e))?;
        Ok(printed)
    }

    fn failed(&self, message: impl Into<String>) -> Error {
        Error::Tool {
            database: String::from_utf8_lossy(self.path.as_os_str().as_bytes()).into_owned(),
            message: message.into(),
        }
    }
}

/// A package whose files are still being read.
struct Begun {
    package: Package,
    files: Vec<PackagedFile>,
}

impl Begun {
    fn new(package: Package) -> Self {
        Self { package, files: Vec::new() }
    }

    fn end(self, known: Option<&Known<'_>>) -> Reading {
        // Of what the lines say, not of the lines: they carry this query's mark.
        let mut hash = Sha256::new();
        for file in &self.files {
            hash.update(&file.path);
            hash.update([0, u8::from(file.conffile)]);
            hash.update(file.digest.map(|digest| digest.to_string()).unwrap_or_default());
        }
        let fingerprint = fingerprint(hash);
        if known.is_some_and(|k| k.packages.get(&self.package) == Some(&fingerprint)) {
            return Reading::Unchanged(self.package);
        }
        Reading::Files(PackageFiles { package: self.package, files: self.files, fingerprint })
    }
}

/// Waits for the end of the tool, within its bounds.
fn wait(child: &mut Child, printed: &File) -> Result<(), String> {
    let began = Instant::now();
    let why = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("rpm ended with {status}")),
            Ok(None) if began.elapsed() > PATIENCE => {
                break format!("rpm did not end within {} s", PATIENCE.as_secs());
            }
            Ok(None) if printed.metadata().is_ok_and(|m| m.len() > MOST_BYTES) => {
                break format!("rpm printed more than {MOST_BYTES} bytes");
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => break format!("waiting for rpm: {error}"),
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    Err(why)
}

fn first_line(mut complaints: File) -> io::Result<String> {
    complaints.rewind()?;
    let mut line = String::new();
    BufReader::new(complaints.take(512)).read_line(&mut line)?;
    Ok(if line.trim().is_empty() { String::new() } else { format!(": {}", line.trim()) })
}
