//! The program a process executes, from its `exe` link.

use davy_model::{ExecImage, FileId, ImageKind};

use crate::procfs::{ProcessFolder, file_id};

/// What the kernel writes behind the path of a file whose name is gone.
const GONE: &str = " (deleted)";

/// The program; an empty path where the link may not be read and for kernel threads.
pub(crate) fn read(process: &ProcessFolder) -> ExecImage {
    let Some(link) = process.link("exe") else { return ExecImage::default() };
    let stat = process.target("exe");
    let file = stat.as_ref().map_or_else(FileId::default, file_id);
    let nameless = stat.as_ref().map(|s| s.st_nlink == 0);
    // A file may really be called "x (deleted)"; then it is found under that name in the process's own root.
    let literal = || process.target(&format!("root{link}")).is_some_and(|s| file_id(&s) == file);
    image(&link, file, nameless, literal)
}

fn image(link: &str, file: FileId, nameless: Option<bool>, literal: impl Fn() -> bool) -> ExecImage {
    let Some(bare) = link.strip_suffix(GONE) else {
        let kind = if nameless == Some(true) { ImageKind::Deleted } else { ImageKind::File };
        return ExecImage { path: link.to_owned(), file, kind };
    };
    if bare.starts_with("/memfd:") && nameless.unwrap_or(true) {
        return ExecImage { path: bare.to_owned(), file, kind: ImageKind::Memfd };
    }
    if nameless != Some(true) && literal() {
        return ExecImage { path: link.to_owned(), file, kind: ImageKind::File };
    }
    ExecImage { path: bare.to_owned(), file, kind: ImageKind::Deleted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_tell_what_they_are() {
        let file = FileId { dev: 1, ino: 2 };
        let kind = |link: &str, nameless, literal| {
            let found = image(link, file, nameless, || literal);
            (found.path, found.kind)
        };
        let path = |p: &str| p.to_owned();
        assert_eq!(kind("/usr/bin/cat", Some(false), false), (path("/usr/bin/cat"), ImageKind::File));
        assert_eq!(kind("/memfd:x (deleted)", Some(true), false), (path("/memfd:x"), ImageKind::Memfd));
        assert_eq!(kind("/memfd: (deleted)", None, false), (path("/memfd:"), ImageKind::Memfd));
        assert_eq!(kind("/tmp/x (deleted)", Some(true), false), (path("/tmp/x"), ImageKind::Deleted));
        assert_eq!(kind("/tmp/x (deleted)", Some(false), true), (path("/tmp/x (deleted)"), ImageKind::File));
        assert_eq!(kind("/tmp/x (deleted)", Some(false), false), (path("/tmp/x"), ImageKind::Deleted));
        assert_eq!(
            kind("/memfd:x (deleted)", Some(false), true),
            (path("/memfd:x (deleted)"), ImageKind::File)
        );
    }
}
