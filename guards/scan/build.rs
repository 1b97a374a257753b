//! Packs the rules of content/yara into one file. They are not built in as text, so that neither Davy's own rules nor another
//! scanner's find Davy.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../content/yara");
    println!("cargo:rerun-if-changed={}", rules.display());
    let mut files: Vec<PathBuf> =
        fs::read_dir(&rules)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "yar"));
    files.sort();
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    for file in files {
        packed.write_all(&fs::read(file)?)?;
        packed.write_all(b"\n")?;
    }
    fs::write(out.join("rules.deflate"), packed.finish()?)
}
