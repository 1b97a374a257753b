use std::path::{Path, PathBuf};
use std::{fs, io};

use davy_scan::RuleSource;

/// The longest file of rules or digests, in bytes: a frame to the worker holds no more.
const LONGEST: u64 = 15 << 20;

/// What files of compiled rules begin with, those of YARA-X and those of YARA. No text of rules does.
const COMPILED: &[u8] = b"YARA";

/// The rules in a file, whatever its name ends in, or in all files of a folder whose names end in `.yar` or `.yara`.
///
/// # Errors
/// When something cannot be read, is too long or no text, or a folder holds no rules. Compiled rules are not taken: whoever made
/// the file would have the worker that reads it.
pub fn rules_in(place: &Path) -> io::Result<Vec<RuleSource>> {
    let mut files = Vec::new();
    find(place, &mut files)?;
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no file in it ends in .yar or .yara"));
    }
    let source = |file: PathBuf| Ok(RuleSource { text: text(&file)?, origin: file.display().to_string() });
    files.into_iter().map(source).collect()
}

/// A hash list as text.
///
/// # Errors
/// When it cannot be read, is too long, or is no text.
pub fn hashes_in(file: &Path) -> io::Result<String> {
    text(file)
}

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

fn text(file: &Path) -> io::Result<String> {
    if fs::metadata(file)?.len() > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {LONGEST} bytes: split it"),
        ));
    }
    let bytes = fs::read(file)?;
    if bytes.starts_with(COMPILED) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it holds compiled rules, which are not taken: give the text that they were compiled from",
        ));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn of_a_folder_the_endings_tell_and_what_is_named_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        for (name, text) in [("b.yar", "rule b"), ("deep/a.yara", "rule a"), ("notes.txt", "no rule")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let texts = |place: &Path| -> Vec<String> {
            rules_in(place).unwrap().into_iter().map(|source| source.text).collect()
        };
        assert_eq!(texts(folder.path()), ["rule b", "rule a"]);
        assert_eq!(texts(&folder.path().join("notes.txt")), ["no rule"]);
        fs::create_dir(folder.path().join("empty")).unwrap();
        assert!(
            rules_in(&folder.path().join("empty")).is_err() && rules_in(&folder.path().join("none")).is_err()
        );
    }

    #[test]
    fn compiled_rules_are_named_as_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in
            [("x.yar", &b"YARA-X\0\0\x31\0\0\0\xff\xfe"[..]), ("y.yar", &b"YARA\x03\xfe"[..])]
        {
            let file = folder.path().join(name);
            fs::write(&file, bytes).unwrap();
            let error = rules_in(&file).unwrap_err();
            assert!(error.to_string().contains("compiled rules"), "{error}");
        }
        let other = folder.path().join("z.yar");
        fs::write(&other, b"rule \xff").unwrap();
        assert_eq!(rules_in(&other).unwrap_err().to_string(), "it is no text");
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("long.yar");
        fs::File::create(&long).unwrap().set_len(LONGEST + 1).unwrap();
        assert_eq!(hashes_in(&long).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
