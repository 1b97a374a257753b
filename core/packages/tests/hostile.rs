//! Whatever a database holds, reading it ends without a panic and vouches for no path that leads elsewhere.
#![allow(missing_docs)]

use davy_packages::dpkg::{
    files_of, files_of_distroless, read_alternative, read_diversions, read_list, read_md5sums, read_status,
};
use davy_packages::rpm::{Item, QueryReader};
use davy_packages::{Aliases, Faults, PackagedFile, code_kind};
use proptest::collection::vec;
use proptest::prelude::*;

/// Pieces of the formats, so that what is generated gets past the first check.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        vec(any::<u8>(), 0..12),
        proptest::sample::select(vec![
            "Package: a",
            "\nStatus: install ok installed",
            "\nArchitecture: amd64",
            "\nConffiles:\n",
            " /etc/x ",
            "\n\n",
            "\n",
            " ",
            "\t",
            "/",
            "/usr/bin/x",
            "/..",
            "auto\n",
            ":",
            "newconffile",
            "obsolete",
            "5",
            "b80613ace788b72ab2b95926517ca448",
            "  usr/bin/x",
            "\\",
            "K7\tP\t",
            "K7\tF\t",
            "\tK7\n",
            "0\t33188\t0\t",
            "8",
            "(none)",
        ])
        .prop_map(|s| s.as_bytes().to_vec()),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn leads_nowhere_else(files: &[PackagedFile]) -> bool {
    files.iter().all(|file| {
        file.path.starts_with(b"/")
            && file.path[1..]
                .split(|b| *b == b'/')
                .all(|part| !part.is_empty() && part != b".." && part != b".")
    })
}

fn names_lines(faults: &Faults, text: &[u8]) -> bool {
    let lines = text.split(|b| *b == b'\n').count().max(1);
    faults.first().iter().all(|fault| (1..=lines + 1).contains(&fault.line) && !fault.message.contains('\n'))
}

proptest! {
    #[test]
    fn dpkg(status in text(), list in text(), sums in text(), diverted in text(), links in vec((text(), text()), 0..3)) {
        let installed = read_status("status", &status);
        prop_assert!(names_lines(&installed.faults, &status));
        let listed = read_list("list", &list);
        prop_assert!(names_lines(&listed.faults, &list));
        let md5sums = read_md5sums("md5sums", &sums);
        prop_assert!(names_lines(&md5sums.faults, &sums));
        let diversions = read_diversions("diversions", &diverted);
        prop_assert!(names_lines(&diversions.faults, &diverted));
        let aliases = Aliases::new(links);
        for package in &installed.entries {
            prop_assert!(package.info_names().iter().all(|name| !name.contains('/') && !name.starts_with('.')));
            let files = files_of(package, &listed.entries, &md5sums.entries, &diversions.entries, &aliases);
            prop_assert!(leads_nowhere_else(&files));
        }
        prop_assert!(leads_nowhere_else(&files_of_distroless(&md5sums.entries, &aliases)));
    }

    #[test]
    fn alternatives(text in text()) {
        let read = read_alternative("awk", &text);
        prop_assert_eq!(read.entries.is_none(), read.faults.count() == 1);
        prop_assert!(names_lines(&read.faults, &text));
    }

    #[test]
    fn rpm(text in text()) {
        let mut reader = QueryReader::new("K7");
        let mut files = Vec::new();
        for line in text.split(|b| *b == b'\n') {
            if let Ok(Item::File(file)) = reader.line(line) {
                files.extend(file.packaged());
            }
        }
        prop_assert!(leads_nowhere_else(&files));
    }

    #[test]
    fn names_of_files(path in text(), mode in any::<u32>(), head in vec(any::<u8>(), 0..4)) {
        let kind = code_kind(&path, mode, &head);
        prop_assert!(mode & 0o111 == 0 || kind.is_some());
    }
}
