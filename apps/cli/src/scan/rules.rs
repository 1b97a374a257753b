use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use davy_scan::RuleSource;

use crate::failure::{Exit, Failure};

/// The longest file of rules or digests, in bytes: a frame to the worker holds no more.
const LONGEST: u64 = 15 << 20;

/// The rules that come with Davy, and those in files and folders that the user names.
pub(super) fn gather(named: &[PathBuf]) -> Result<Vec<RuleSource>, Failure> {
    let mut sources = vec![davy_scan::built_in()];
    for place in named {
        let mut files = Vec::new();
        find(place, &mut files).map_err(|e| unreadable(place, &e))?;
        if files.is_empty() {
            return Err(Failure::new(Exit::NotFound, format!("there are no rules in {}", place.display()))
                .hint("rules are files whose names end in .yar or .yara"));
        }
        for file in files {
            sources.push(RuleSource { origin: file.display().to_string(), text: text(&file)? });
        }
    }
    Ok(sources)
}

/// Hash lists as text.
pub(super) fn hashes(named: &[PathBuf]) -> Result<Vec<String>, Failure> {
    named.iter().map(|file| text(file)).collect()
}

/// A file that is named is taken whatever its name ends in; in a folder the ending tells.
fn find(place: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::metadata(place)?.is_dir() {
        files.push(place.to_owned());
        return Ok(());
    }
    let mut entries: Vec<_> = fs::read_dir(place)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "yar" || ending == "yara") {
            files.push(path);
        }
    }
    Ok(())
}

fn text(file: &Path) -> Result<String, Failure> {
    let length = fs::metadata(file).map_err(|e| unreadable(file, &e))?.len();
    if length > LONGEST {
        let message = format!("{} is longer than {LONGEST} bytes: split it", file.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    fs::read_to_string(file).map_err(|e| unreadable(file, &e))
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
    Failure::new(exit, format!("cannot read {}: {error}", file.display()))
}
