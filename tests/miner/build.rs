//! Lets RandomX's C++ find the static standard library.
//!
//! `randomx-rs` asks for `stdc++` as a shared library, and the linker takes that literally although the binary is
//! static: the result mixes both and dies before `main`. A folder that holds the archive alone, searched before the
//! compiler's own, leaves it no choice.

use std::env;
use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CXX");
    if !env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default().split(',').any(|f| f == "crt-static") {
        return Ok(());
    }
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let answer = Command::new(&compiler).arg("-print-file-name=libstdc++.a").output()?;
    let archive = PathBuf::from(String::from_utf8(answer.stdout)?.trim());
    if !archive.is_absolute() {
        return Err(format!("{compiler} has no static libstdc++ (Debian: libstdc++-12-dev)").into());
    }
    let folder = PathBuf::from(env::var("OUT_DIR")?).join("static");
    fs::create_dir_all(&folder)?;
    let link = folder.join("libstdc++.a");
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    symlink(archive.canonicalize()?, link)?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    Ok(())
}
