//! A file of any kind: its archives are opened, its structure is read, its wallets are looked for. The mark of a kind is put
//! before it by the first byte, so that the fuzzer need not guess it.
#![no_main]

use davy_scan::{Bounds, Engine, HashList, RuleSource, Rules, facts, wallets};
use libfuzzer_sys::fuzz_target;

const MARKS: [&[u8]; 8] = [
    b"",
    b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
    b"PK\x03\x04",
    b"7z\xbc\xaf\x27\x1c\0\x04",
    b"\x1f\x8b\x08\0\0\0\0\0\0\0",
    b"\xfd7zXZ\0\0\x01",
    b"\x28\xb5\x2f\xfd",
    b"BZh91AY&SY",
];

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let bytes = [MARKS[usize::from(*kind) % MARKS.len()], data].concat();
    let _ = (facts(&bytes), wallets(&bytes));
    let bounds = Bounds { bytes: 1 << 20, members: 64, held: 1 << 20, dictionary: 1 << 20, ..Bounds::default() };
    thread_local! {
        static RULES: &'static Rules = {
            let text = "rule any { strings: $a = \"needle\" condition: $a }".to_owned();
            Box::leak(Box::new(Rules::compile(&[RuleSource { origin: "fuzz".to_owned(), text }])))
        };
    }
    let mut engine = Engine::new(RULES.with(|rules| *rules), HashList::default(), bounds);
    let _ = engine.scan(&bytes.as_slice());
});
