//! Each rule, broken in a small house, must be reported; the same house unbroken must not.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use super::{Report, inspect};
use crate::house::House;

const FACTS: &str = "version.workspace = true\nedition.workspace = true\nrust-version.workspace = true\n\
                     license.workspace = true\npublish.workspace = true\n";

/// A workspace on disk that keeps every rule until a test breaks one.
struct Site(tempfile::TempDir);

impl Site {
    fn new(rooms: &[(&str, &str, &str)]) -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        let members: Vec<String> = rooms.iter().map(|(path, ..)| format!("{path:?}")).collect();
        site.write("Cargo.toml", &format!("[workspace]\nmembers = [{}]\n", members.join(",")));
        for (path, name, rest) in rooms {
            site.write(
                &format!("{path}/Cargo.toml"),
                &format!("[package]\nname = {name:?}\n{FACTS}\n[lints]\nworkspace = true\n{rest}"),
            );
            site.write(&format!("{path}/src/lib.rs"), "//! A room.\nfn a() {}\nfn b() {}\nfn c() {}\n");
        }
        site
    }

    fn sound() -> Self {
        Self::new(&[
            ("core/model", "davy-model", ""),
            ("core/waf", "davy-waf", "[dependencies]\ndavy-model = { workspace = true }\n"),
            ("host/proc", "davy-proc", "[dependencies]\ndavy-model = { workspace = true }\nlibc = \"0.2\"\n"),
            ("host/store", "davy-store", "[dev-dependencies]\ndavy-test-pool = { workspace = true }\n"),
            ("guards/net", "davy-net", "[dependencies]\ndavy-proc = { workspace = true }\n"),
            ("apps/agent", "davy-agent", "[dependencies]\ndavy-net = { workspace = true }\n"),
            ("tests/pool", "davy-test-pool", ""),
        ])
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn append(&self, path: &str, text: &str) {
        let full = self.0.path().join(path);
        let before = fs::read_to_string(&full).unwrap_or_default();
        self.write(path, &format!("{before}{text}"));
    }

    fn report(&self) -> Report {
        inspect(&House::read(self.0.path()).unwrap())
    }

    /// Asserts that exactly one fault is reported, that it is at `place` and says `words`.
    fn expect(&self, place: &str, words: &str) {
        let faults: Vec<String> = self.report().faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 1, "{faults:#?}");
        assert!(faults[0].starts_with(place) && faults[0].contains(words), "{faults:#?}");
    }
}

#[test]
fn a_sound_house_has_no_fault() {
    let report = Site::sound().report();
    assert!(report.faults.is_empty(), "{:#?}", report.faults);
    assert!(report.advice.is_empty());
}

#[test]
fn the_real_house_can_be_read() {
    let house = House::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    assert!(house.rooms.iter().any(|room| room.path == "core/model" && room.package() == "davy-model"));
}

#[test]
fn core_may_not_depend_on_host() {
    let site = Site::sound();
    site.append("core/waf/Cargo.toml", "davy-proc = { workspace = true }\n");
    site.expect("core/waf/Cargo.toml", "one way");
}

#[test]
fn host_rooms_do_not_know_each_other_even_under_a_target() {
    let site = Site::sound();
    site.append(
        "host/proc/Cargo.toml",
        "[target.'cfg(unix)'.dependencies]\ndavy-store = { workspace = true }\n",
    );
    site.expect("host/proc/Cargo.toml", "host rooms do not know each other");
}

#[test]
fn a_renamed_dependency_is_still_a_dependency() {
    let site = Site::sound();
    site.append(
        "guards/net/Cargo.toml",
        "agent = { package = \"davy-agent\", path = \"../../apps/agent\" }\n",
    );
    site.expect("guards/net/Cargo.toml", "apps/agent");
}

#[test]
fn what_ships_does_not_depend_on_tests() {
    let site = Site::sound();
    site.append("apps/agent/Cargo.toml", "davy-test-pool = { workspace = true }\n");
    site.expect("apps/agent/Cargo.toml", "dev-dependency");
}

#[test]
fn core_uses_no_io_crate() {
    let site = Site::sound();
    site.append("core/waf/Cargo.toml", "tokio = \"1\"\n");
    site.expect("core/waf/Cargo.toml", "tokio");
}

#[test]
fn core_reads_no_clock_but_its_tests_may() {
    let site = Site::sound();
    site.append("core/model/src/lib.rs", "#[cfg(test)]\nfn d() { std::time::Instant::now(); }\n");
    assert!(site.report().faults.is_empty());
    site.append("core/waf/src/lib.rs", "fn d() { std::time::Instant::now(); }\n");
    site.expect("core/waf/src/lib.rs:5", "Instant::now");
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let site = Site::sound();
    site.append("host/proc/src/lib.rs", "#![allow(unsafe_code)]\n");
    assert!(site.report().faults.is_empty());
    site.append("apps/agent/src/lib.rs", "#![allow(unsafe_code)]\n");
    site.expect("apps/agent/src/lib.rs:5", "unsafe");
}

#[test]
fn lints_are_inherited() {
    let site = Site::sound();
    site.write("tests/pool/Cargo.toml", &format!("[package]\nname = \"davy-test-pool\"\n{FACTS}"));
    site.expect("tests/pool/Cargo.toml", "lints");
}

#[test]
fn facts_are_inherited() {
    let site = Site::sound();
    let facts = FACTS.replace("license.workspace = true", "license = \"MIT\"");
    let text = format!("[package]\nname = \"davy-test-pool\"\n{facts}\n[lints]\nworkspace = true\n");
    site.write("tests/pool/Cargo.toml", &text);
    site.expect("tests/pool/Cargo.toml", "`license`");
}

#[test]
fn a_package_is_named_after_its_folder() {
    Site::new(&[("core/model", "davy-models", "")]).expect("core/model/Cargo.toml", "not davy-model");
}

#[test]
fn a_room_lies_in_a_layer() {
    Site::new(&[("extra", "davy-extra", "")]).expect("extra", "no layer");
}

#[test]
fn a_room_is_not_empty() {
    let site = Site::sound();
    site.write("tests/pool/src/lib.rs", "//! Soon.\n\n// Really.\nfn main() {}\n");
    site.expect("tests/pool", "empty");
}

#[test]
fn a_room_says_what_it_is_for() {
    let site = Site::sound();
    site.write("core/waf/src/lib.rs", "fn a() {}\nfn b() {}\nfn c() {}\n");
    site.expect("core/waf/src/lib.rs:1", "//!");
}

#[test]
fn a_package_outside_the_workspace_is_found() {
    let site = Site::sound();
    site.write("guards/scan/Cargo.toml", "[package]\nname = \"davy-scan\"\n");
    site.expect("guards/scan", "member");
}

#[test]
fn the_map_names_every_room() {
    let site = Site::sound();
    let map = "core/  pure\n  model/  words\n  waf/  rules\nhost/proc host/store\nguards/net apps/agent\n";
    site.write("ARCHITECTURE.md", &format!("{map}tests/  pool and others\n"));
    assert!(site.report().faults.is_empty());
    site.write("ARCHITECTURE.md", map);
    site.expect("ARCHITECTURE.md", "tests/pool");
}

#[test]
fn long_files_are_advised_and_then_refused() {
    let site = Site::sound();
    site.append("core/waf/src/lib.rs", &"// line\n".repeat(420));
    let report = site.report();
    assert_eq!((report.faults.len(), report.advice.len()), (0, 1));
    site.append("core/waf/src/lib.rs", &"// line\n".repeat(400));
    site.expect("core/waf/src/lib.rs", "split");
}

#[test]
fn a_promise_names_a_test_that_exists() {
    let site = Site::sound();
    site.append("core/waf/src/lib.rs", "#[test]\nfn stops_it() {}\nfn not_a_test() {}\n");
    site.write("README.md", "**Promise:** it stops.\n<!-- proven-by: core/waf/src/lib.rs::stops_it -->\n");
    let report = site.report();
    assert_eq!((report.faults.len(), report.promises), (0, 1), "{:#?}", report.faults);
    site.write("README.md", "It stops. <!-- proven-by: core/waf/src/lib.rs::not_a_test -->\n");
    site.expect("README.md:1", "no such test");
    site.write("README.md", "It stops. <!-- proven-by: core/waf/src/gone.rs::stops_it -->\n");
    site.expect("README.md:1", "does not exist");
}

#[test]
fn a_case_of_a_harness_is_a_test_by_its_written_name() {
    let site = Site::sound();
    site.append("tests/pool/src/lib.rs", "const CASES: [&str; 1] = [\"denies_kill\"];\n");
    site.write("docs/a.md", "\n<!-- proven-by: tests/pool/src/lib.rs::denies_kill -->\n");
    assert_eq!(site.report().promises, 1);
}

#[test]
fn a_promise_without_proof_is_a_fault_except_in_code() {
    let site = Site::sound();
    site.write(
        "docs/a.md",
        "Text.\n\n```\n**Promise:** an example\n```\n\n**Promise:** it stops\nat once.\n",
    );
    site.expect("docs/a.md:7", "without proof");
}

#[test]
fn what_the_readme_lists_has_a_proof_each() {
    let site = Site::sound();
    site.append("core/waf/src/lib.rs", "#[test]\nfn stops_it() {}\n");
    let proof = "<!-- proven-by: core/waf/src/lib.rs::stops_it -->";
    let list = format!("Words.\n- stops it\n  at once\n{proof}\n- stops\n  that\n");
    site.write("docs/a.md", &list);
    assert_eq!(site.report().faults.len(), 0, "elsewhere a list is a list");
    site.write("README.md", &list);
    site.expect("README.md:5", "without proof");
    site.write("README.md", &format!("{list}{proof}\n"));
    assert_eq!(site.report().faults.len(), 0);
}
