//! Archives of every kind are opened, in each other too, and none of them chokes whoever opens it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;

use davy_model::ScanReport;
use davy_scan::{Bounds, Engine, HashList, OVERLAP, RuleSource, Rules, WINDOW};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

const MARKED: &[u8] = b"a tell-tale file\n";

/// `MARKED` as 7z and xz store it.
const SEVEN: &str = "377abcaf271c00048343c9f515000000000000004a000000000000009d08eb9e010010612074656c6c2d74616c652066696c650a00010406\
    0001091500070b010001212101000c1100080a01a3d5c65e00000501190c00000000000000000000000011050066000000140a01008983d2b8467fdd01\
    150601002080a4810000";
const XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a3010010612074656c6c2d74616c652066696c650a00000000be4d89f54994635e\
    00012911320a700e1fb6f37d010000000004595a";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn rules() -> Rules {
    let text = "rule marked { strings: $a = \"tell-tale\" condition: $a }";
    Rules::compile(&[RuleSource { origin: "test".to_owned(), text: text.to_owned() }])
}

fn scan(bytes: &[u8], bounds: Bounds) -> ScanReport {
    Engine::new(&rules(), HashList::default(), bounds).scan(&bytes).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn tar(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    let mut out = tar::Builder::new(Vec::new());
    out.append_data(&mut header, name, bytes).unwrap();
    out.into_inner().unwrap()
}

fn zip(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    out.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    out.write_all(bytes).unwrap();
    out.finish().unwrap().into_inner()
}

fn found(report: &ScanReport) -> Vec<(&str, String)> {
    report.matches.iter().map(|m| (m.rule.as_str(), m.inside.join("/"))).collect()
}

#[test]
fn every_kind_is_opened() {
    let kinds = [
        (zip("z", MARKED), "z"),
        (tar("t", MARKED), "t"),
        (gzip(MARKED), "gzip"),
        (bzip2(MARKED), "bzip2"),
        (zstd::encode_all(MARKED, 1).unwrap(), "zstd"),
        (unhex(XZ), "xz"),
        (unhex(SEVEN), "f"),
        (gzip(&tar("t", MARKED)), "t"),
        (zip("outer", &bzip2(&tar("inner", &unhex(SEVEN)))), "outer/inner/f"),
    ];
    for (bytes, way) in kinds {
        let report = scan(&bytes, Bounds::default());
        // Those that store what they hold as it is are found from outside too.
        assert!(found(&report).contains(&("marked", way.to_owned())), "{way}: {report:?}");
        assert_eq!(report.gaps, [""; 0], "{way}");
        assert!(scan(&bytes, Bounds { archives: false, ..Bounds::default() }).members == 0);
    }
}

#[test]
fn a_bomb_is_a_finding() {
    let bounds = Bounds { ratio_from: 1 << 20, ..Bounds::default() };
    let bomb = gzip(&vec![0; 8 << 20]);
    for bytes in [bomb.clone(), zip("a", &bomb), tar("a", &bomb)] {
        let report = scan(&bytes, bounds);
        assert_eq!(report.matches.iter().filter(|m| m.rule == "archive_bomb").count(), 1, "{report:?}");
        assert!(report.bytes < 8 << 20, "it was unpacked to its end: {}", report.bytes);
    }
    let mut deep = MARKED.to_vec();
    for _ in 0..10 {
        deep = gzip(&deep);
    }
    let report = scan(&deep, Bounds::default());
    assert!(found(&report).iter().any(|(rule, _)| *rule == "archive_bomb"), "{report:?}");
}

#[test]
fn bounds_are_told_and_hold() {
    let mut many = tar::Builder::new(Vec::new());
    for number in 0..10 {
        let mut header = tar::Header::new_ustar();
        header.set_size(4);
        many.append_data(&mut header, number.to_string(), &b"text"[..]).unwrap();
    }
    let many = many.into_inner().unwrap();
    let report = scan(&many, Bounds { members: 3, ..Bounds::default() });
    assert!(report.members <= 3 && report.gaps.len() == 1, "{report:?}");
    let long = gzip(&MARKED.repeat(10_000));
    let report = scan(&long, Bounds { bytes: 1000, ..Bounds::default() });
    assert_eq!(report.gaps.len(), 1, "{report:?}");
}

#[test]
fn what_is_cut_off_or_locked_is_told() {
    let whole = gzip(&MARKED.repeat(1000));
    let report = scan(&whole[..whole.len() / 2], Bounds::default());
    assert!(!report.gaps.is_empty(), "{report:?}");
    let mut locked = zip("secret", MARKED);
    // The flag of encryption, in the member's own header and in the directory.
    let directory = locked.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    locked[6] |= 1;
    locked[directory + 8] |= 1;
    let report = scan(&locked, Bounds::default());
    assert!(report.gaps.iter().any(|gap| gap.contains("password")), "{report:?}");
}

#[test]
fn a_pattern_on_the_border_of_two_windows_is_found() {
    for at in [WINDOW - 4, WINDOW - OVERLAP - 4, WINDOW + 10] {
        let mut long = vec![b'.'; WINDOW + 4 * OVERLAP];
        long[at..at + MARKED.len()].copy_from_slice(MARKED);
        let report = scan(&long, Bounds::default());
        assert_eq!(found(&report), [("marked", String::new())], "at {at}");
        assert_eq!((report.bytes, report.matches[0].patterns[0].1), (long.len() as u64, at as u64 + 2));
        let packed = gzip(&long);
        let report = scan(&packed, Bounds::default());
        assert_eq!(found(&report), [("marked", "gzip".to_owned())], "packed, at {at}");
    }
}

#[test]
fn a_listed_digest_is_found_at_any_depth() {
    let rules = rules();
    let mut hashes = HashList::default();
    // SHA-256 of `bad`, as sha256sum(1) says.
    assert_eq!(
        hashes.add("2f05d4b689d270cafb02285f35f44866f7dc8a2d368a3f9d1124373eeab31fb1  bad"),
        [0_usize; 0]
    );
    let mut engine = Engine::new(&rules, hashes, Bounds::default());
    assert_eq!(engine.scan(&zip("x", b"good").as_slice()).unwrap().matches, []);
    let report = engine.scan(&zip("x", b"bad").as_slice()).unwrap();
    assert_eq!(found(&report), [("hash_list", "x".to_owned())]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_file_is_fatal(kind in 0usize..7, bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let marks: [&[u8]; 7] =
            [b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY", b"\x7fELF\x02\x01\x01"];
        let _ = scan(&[marks[kind], &bytes].concat(), Bounds::default());
    }

    #[test]
    fn no_damage_is_fatal(place in any::<proptest::sample::Index>(), byte in any::<u8>(), kind in 0usize..3) {
        let mut bytes = [zip("a", MARKED), gzip(&tar("b", MARKED)), unhex(SEVEN)][kind].clone();
        let at = place.index(bytes.len());
        bytes[at] = byte;
        let _ = scan(&bytes, Bounds::default());
    }
}
