//! Compiles every `bpf/*.bpf.c` to an object that the crate embeds.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

/// Programs of which each becomes one object; the order has no meaning.
const OBJECTS: [&str; 12] = [
    "abi", "process", "network", "devices", "sample", "syscalls", "block", "protect", "trust", "nameless",
    "scans", "outbound",
];

fn main() {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let source = manifest.join("../../bpf");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-env-changed=CLANG");
    // For trying on a machine with clang what one without it builds.
    println!("cargo::rerun-if-env-changed=DAVY_WITHOUT_PROGRAMS");

    let wanted = env::var_os("DAVY_WITHOUT_PROGRAMS").is_none();
    let Some(clang) = clang().filter(|_| wanted) else {
        leave_out(&out);
        return;
    };
    let arguments = [
        format!("-I{}", source.join("include").display()),
        format!("-I/usr/include/{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it")),
        // Linux 5.1 and later have these instructions; the verifier follows them better.
        "-mcpu=v3".to_owned(),
        "-Wall".to_owned(),
        "-Werror".to_owned(),
    ];
    for name in OBJECTS {
        compile(
            &clang,
            &arguments,
            &source.join(format!("{name}.bpf.c")),
            &out.join(format!("{name}.bpf.o")),
        );
    }
}

/// Davy is worth having in the poll tier too, so a machine that cannot compile the programs builds one without them.
/// The empty objects that stand in for them say so when they are opened.
fn leave_out(out: &Path) {
    println!(
        "cargo::warning=no clang of version 16 or newer was found (clang, clang-16 to clang-22, or the CLANG variable)"
    );
    println!(
        "cargo::warning=this davy has no kernel programs and runs in the poll tier only; for more: apt install clang-16"
    );
    // A file that is never there: cargo asks again at the next build, when there may be a clang.
    println!("cargo::rerun-if-changed={}", out.join("clang").display());
    for name in OBJECTS {
        let object = out.join(format!("{name}.bpf.o"));
        if let Err(error) = std::fs::write(&object, []) {
            fail(&format!("{} cannot be written: {error}", object.display()));
        }
    }
}

fn compile(clang: &Path, arguments: &[String], source: &Path, object: &Path) {
    let built = SkeletonBuilder::new().source(source).obj(object).clang(clang).clang_args(arguments).build();
    if let Err(error) = built {
        fail(&format!("{} did not compile: {error:#}", source.display()));
    }
}

/// The first clang that is new enough for the relocations used.
fn clang() -> Option<PathBuf> {
    let named = env::var_os("CLANG").map(PathBuf::from);
    let numbered = (16..=22).rev().map(|version| PathBuf::from(format!("clang-{version}")));
    named.into_iter().chain([PathBuf::from("clang")]).chain(numbered).find(|clang| major(clang) >= Some(16))
}

fn major(clang: &Path) -> Option<u32> {
    let output = Command::new(clang).arg("-dumpversion").output().ok()?;
    String::from_utf8(output.stdout).ok()?.split('.').next()?.trim().parse().ok()
}

fn fail(why: &str) -> ! {
    println!("cargo::error=Davy's kernel programs cannot be built: {why}");
    println!(
        "cargo::error=on Debian and Ubuntu: apt install clang-16 libelf-dev zlib1g-dev linux-libc-dev pkg-config"
    );
    std::process::exit(1)
}
