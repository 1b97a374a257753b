//! Every rule that comes with Davy finds its samples, and the samples beside them that look alike are found by none.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use davy_scan::{Bounds, Engine, HashList, RuleSource, Rules};
use serde::Deserialize;

/// The samples of one rule.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Samples {
    matches: Vec<String>,
    passes: Vec<String>,
    matches_hex: Vec<String>,
    passes_hex: Vec<String>,
    matches_memory: Vec<String>,
    passes_memory: Vec<String>,
}

/// One sample.
struct Sample {
    bytes: Vec<u8>,
    memory: bool,
    matches: bool,
}

impl Samples {
    fn all(self) -> Vec<Sample> {
        let text = |texts: Vec<String>, memory, matches| {
            texts.into_iter().map(move |text| Sample { bytes: text.into_bytes(), memory, matches })
        };
        let hex = |texts: Vec<String>, matches| {
            texts.into_iter().map(move |text| Sample { bytes: unhex(&text), memory: false, matches })
        };
        text(self.matches, false, true)
            .chain(text(self.passes, false, false))
            .chain(hex(self.matches_hex, true))
            .chain(hex(self.passes_hex, false))
            .chain(text(self.matches_memory, true, true))
            .chain(text(self.passes_memory, true, false))
            .collect()
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn found(engine: &mut Engine<'_>, sample: &Sample) -> Vec<String> {
    let report = if sample.memory {
        engine.begin_memory();
        engine.memory(0x7f00_0000_0000, &sample.bytes);
        engine.end_memory()
    } else {
        engine.scan(&sample.bytes.as_slice()).unwrap()
    };
    report.matches.into_iter().map(|found| found.rule).collect()
}

#[test]
fn every_rule_finds_its_samples_and_nothing_beside_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../content/yara");
    let mut faults = Vec::new();
    let mut seen = 0;
    let whole = Rules::compile(&[davy_scan::built_in()]);
    let mut engine = Engine::new(&whole, HashList::default(), Bounds::default());
    for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|ending| ending != "yar") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let beside = fs::read_to_string(file.with_extension("toml")).unwrap();
        let mut samples: BTreeMap<String, Samples> = toml::from_str(&beside).unwrap();
        let source = RuleSource { origin: "davy".to_owned(), text };
        for rule in Rules::compile(&[source]).names() {
            let all = samples.remove(&rule).unwrap_or_default().all();
            seen += 1;
            if !all.iter().any(|s| s.matches) || !all.iter().any(|s| !s.matches) {
                faults.push(format!("{rule} wants samples that match and samples that pass"));
            }
            for sample in all {
                let rules = found(&mut engine, &sample);
                let right = if sample.matches { rules.contains(&rule) } else { rules.is_empty() };
                if !right {
                    let shown = String::from_utf8_lossy(&sample.bytes);
                    faults.push(format!("{rule}: matches = {}, found {rules:?}: {shown}", sample.matches));
                }
            }
        }
        faults.extend(samples.keys().map(|rule| format!("{}: there is no rule {rule}", file.display())));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(seen, whole.len());
}
