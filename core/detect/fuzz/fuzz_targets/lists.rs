//! Lists and names that users load.
#![no_main]

use davy_detect::{KnownNames, ListKind, Lists};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lists = Lists::empty();
    for kind in [ListKind::Domains, ListKind::Hosts, ListKind::Networks] {
        let _ = lists.add(kind, "fuzz", text);
    }
    let _ = lists.name(text);
    let _ = KnownNames::parse(text);
});
