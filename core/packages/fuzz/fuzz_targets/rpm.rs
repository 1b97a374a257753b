//! What rpm may print: after the first line, so that a package is begun, whatever comes.
#![no_main]

use davy_packages::code_kind;
use davy_packages::rpm::{Item, QueryReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reader = QueryReader::new("K");
    reader.line(b"K\tP\ttool\t1-2\tx86_64\t8\tK").expect("a package");
    for line in data.split(|b| *b == b'\n') {
        match reader.line(line) {
            Ok(Item::File(file)) => {
                let kind = code_kind(&file.path, file.mode, line);
                assert!(file.mode & 0o111 == 0 || kind.is_some());
                drop(file.packaged());
            }
            Ok(Item::Package(package)) => assert!(!package.to_string().contains('\n')),
            Err(fault) => assert!(!fault.to_string().contains('\n')),
        }
    }
});
