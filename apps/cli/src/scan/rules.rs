use std::io;
use std::path::{Path, PathBuf};

use davy_scan::RuleSource;
use davy_sweep::{hashes_in, rules_in};

use crate::failure::{Exit, Failure};

/// The rules that come with Davy, and those in files and folders that the user names.
pub(super) fn gather(named: &[PathBuf]) -> Result<Vec<RuleSource>, Failure> {
    let mut sources = vec![davy_scan::built_in()];
    for place in named {
        sources.extend(rules_in(place).map_err(|error| unreadable(place, &error))?);
    }
    Ok(sources)
}

/// Hash lists as text.
pub(super) fn hashes(named: &[PathBuf]) -> Result<Vec<String>, Failure> {
    named.iter().map(|file| hashes_in(file).map_err(|error| unreadable(file, &error))).collect()
}

fn unreadable(place: &Path, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        io::ErrorKind::FileTooLarge => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("cannot read rules or digests from {}: {error}", place.display()))
}
