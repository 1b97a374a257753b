//! The structure of real programs: this test's own, and what is made of it.
#![allow(clippy::unwrap_used, missing_docs)]

use davy_model::ProgramFacts;
use davy_scan::facts;
use proptest::prelude::*;

fn own() -> Vec<u8> {
    std::fs::read(std::env::current_exe().unwrap()).unwrap()
}

/// A small program as UPX packs one: two segments, no sections, the loader's record behind the program headers, and code
/// without any order. `name` is what stands where UPX writes its name.
fn packed(name: &[u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0; 0x1_0000];
    let mut state = 1_u32;
    for byte in &mut bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let put = |bytes: &mut Vec<u8>, at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
    put(&mut bytes, 0, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    put(&mut bytes, 24, &0x40_1000_u64.to_le_bytes());
    put(&mut bytes, 32, &64_u64.to_le_bytes());
    put(&mut bytes, 40, &0_u64.to_le_bytes());
    put(&mut bytes, 48, &0_u32.to_le_bytes());
    for (at, number) in [(52, 64_u16), (54, 56), (56, 2), (58, 0), (60, 0), (62, 0)] {
        put(&mut bytes, at, &number.to_le_bytes());
    }
    for (header, flags, offset, size, memory) in
        [(64, 5_u32, 0_u64, 0x1_0000_u64, 0x1_0000_u64), (120, 6, 0, 0, 0x8_0000)]
    {
        put(&mut bytes, header, &1_u32.to_le_bytes());
        put(&mut bytes, header + 4, &flags.to_le_bytes());
        let address = if flags == 5 { 0x40_0000_u64 } else { 0x60_0000 };
        for (place, number) in [offset, address, address, size, memory, 0x1000].into_iter().enumerate() {
            put(&mut bytes, header + 8 + 8 * place, &number.to_le_bytes());
        }
    }
    put(&mut bytes, 176 + 4, name);
    put(&mut bytes, 176 + 8, &[0x00, 0x07, 14, 22]);
    for (at, number) in [(188, 0_u32), (192, 0x4_0000), (196, 0x4_0000)] {
        put(&mut bytes, at, &number.to_le_bytes());
    }
    bytes
}

#[test]
fn this_program_is_known_for_what_it_is() {
    let own = facts(&own()).unwrap();
    let expected = ProgramFacts {
        machine: own.machine.clone(),
        kind: "shared object".to_owned(),
        static_linked: true,
        language: Some("Rust".to_owned()),
        entropy: own.entropy,
        embedded: own.embedded.clone(),
        imports: own.imports,
        ..ProgramFacts::default()
    };
    assert_eq!(own, expected);
    assert!((4.0..7.0).contains(&own.entropy), "{}", own.entropy);
}

#[test]
fn upx_is_known_by_its_name_and_without_it_by_its_structure() {
    assert_eq!(facts(&packed(b"UPX!")).unwrap().packer.as_deref(), Some("UPX"));
    let altered = facts(&packed(b"YTS\x99")).unwrap();
    assert_eq!(altered.packer.as_deref(), Some("UPX, altered"));
    assert!(altered.stripped && altered.static_linked && altered.entropy > 7.9, "{altered:?}");
}

#[test]
fn a_program_within_a_program_is_seen() {
    let mut both = own();
    let at = both.len() as u64;
    both.extend_from_slice(&packed(b"UPX!"));
    let seen = facts(&both).unwrap();
    assert!(seen.embedded.contains(&at), "{:?}", seen.embedded);
    assert!(!facts(&own()).unwrap().embedded.contains(&at));
}

#[test]
fn what_no_linker_does_is_told() {
    let mut odd = packed(b"UPX!");
    odd[24..32].copy_from_slice(&0x90_0000_u64.to_le_bytes());
    odd[64 + 4] = 7;
    let oddities = facts(&odd).unwrap().oddities;
    assert!(oddities.iter().any(|o| o.contains("writable and executable")), "{oddities:?}");
    assert!(oddities.iter().any(|o| o.contains("outside its segments")), "{oddities:?}");
}

proptest! {
    #[test]
    fn no_program_is_fatal(class in 1u8..3, order in 1u8..3, rest in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = facts(&[b"\x7fELF", &[class, order, 1][..], &rest].concat());
    }

    #[test]
    fn no_damage_is_fatal(changes in proptest::collection::vec((0usize..256, any::<u8>()), 1..8)) {
        let mut bytes = packed(b"UPX!");
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        let _ = facts(&bytes);
    }
}
