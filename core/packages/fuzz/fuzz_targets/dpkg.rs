//! The files of a dpkg database, one after the other with NUL between them.
#![no_main]

use davy_packages::Aliases;
use davy_packages::dpkg::{
    apply_updates, files_of, read_alternative, read_diversions, read_list, read_md5sums, read_status,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut files = data.split(|b| *b == 0);
    let mut next = || files.next().unwrap_or_default();
    let mut status = read_status("status", next()).entries;
    apply_updates(&mut status, read_status("updates", next()).entries);
    let (list, md5sums, diversions) = (next(), next(), next());
    let list = read_list("list", list);
    let md5sums = read_md5sums("md5sums", md5sums);
    let diversions = read_diversions("diversions", diversions);
    drop(read_alternative("alternative", next()));
    let aliases = Aliases::new([(next().to_vec(), next().to_vec())]);
    for installed in &status {
        for file in files_of(installed, &list.entries, &md5sums.entries, &diversions.entries, &aliases) {
            assert!(file.path.starts_with(b"/") && !file.path.windows(4).any(|w| w == b"/../"));
        }
    }
});
