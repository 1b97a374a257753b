//! `davy trust keygen` and `davy trust sign`: manifests that vouch for what no package does.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use davy_trust::Manifest;
use davy_trust::host::digest_of;
use davy_trust::manifest::signature_path;
use minisign::{KeyPair, SecretKey, SecretKeyBox};
use serde_json::json;

use crate::amount;
use crate::answer::Answering;
use crate::failure::{Exit, Failure};
use crate::verbs::TrustSign;

/// The environment variable that holds the password of a key that has one, for scripts.
const PASSWORD: &str = "DAVY_KEY_PASSWORD";

/// Makes a key pair.
pub(super) fn keygen(answering: &Answering, path: &Path) -> Result<(), Failure> {
    let made = KeyPair::generate_unencrypted_keypair().map_err(|error| cannot("make a key", path, error))?;
    let secret = made.sk.to_box(Some("secret key of davy trust")).map_err(|e| cannot("write", path, e))?;
    let public = made.pk.to_box().map_err(|e| cannot("write", path, e))?;
    let beside = with_suffix(path, ".pub");
    write_new(path, secret.to_string().as_bytes(), 0o600)?;
    write_new(&beside, public.to_string().as_bytes(), 0o644)?;
    let key = made.pk.to_base64();
    if answering.json {
        return Ok(answering.document(
            &json!({ "secret": path.display().to_string(), "public": beside.display().to_string(), "minisign": key }),
        )?);
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    answering.sentence(&format!(
        "{} keeps the secret: it has no password, so keep it where only you read.",
        path.display()
    ))?;
    answering.next(&format!("for the policy:\n[[trust.key]]\nname = \"{name}\"\nminisign = \"{key}\""));
    Ok(())
}

/// Lists files and signs the list.
pub(super) fn sign(answering: &Answering, asked: &TrustSign) -> Result<(), Failure> {
    let key = secret_key(&asked.key)?;
    if asked.out.extension().is_none_or(|extension| extension != "sha256") {
        let message = format!("{} must end with .sha256: only such lists are read", asked.out.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut manifest = Manifest::default();
    let mut files = Vec::new();
    asked.paths.iter().try_for_each(|path| walk(path, &mut files))?;
    files.sort();
    files.dedup();
    for path in files {
        let digest =
            File::open(&path).and_then(|file| digest_of(&file)).map_err(|e| cannot("read", &path, e))?;
        manifest.files.push((digest, path.display().to_string()));
    }
    let text = manifest.to_text();
    let signature = Manifest::sign(&text, &key, &asked.comment)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let beside = signature_path(&asked.out);
    write(&asked.out, text.as_bytes())?;
    write(&beside, signature.as_bytes())?;
    let count = manifest.files.len() as u64;
    if answering.json {
        return Ok(answering.document(&json!({
            "files": count, "manifest": asked.out.display().to_string(), "signature": beside.display().to_string(),
        }))?);
    }
    answering.sentence(&format!(
        "{} listed in {} and signed.",
        amount::of(count, "file", "files"),
        asked.out.display()
    ))?;
    answering.next("put both files into trust/ beside the policy on each host, and: davy policy reload");
    Ok(())
}

fn secret_key(path: &Path) -> Result<SecretKey, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| cannot("read", path, error))?;
    let boxed = || SecretKeyBox::from_string(&text).map_err(|error| cannot("use", path, error));
    if let Ok(key) = boxed()?.into_unencrypted_secret_key() {
        return Ok(key);
    }
    // Without the variable the crate asks on the terminal.
    boxed()?.into_secret_key(std::env::var(PASSWORD).ok()).map_err(|error| cannot("unlock", path, error))
}

/// All regular files below a path, symbolic links left out: their targets are listed where they lie.
fn walk(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let found = path.symlink_metadata().map_err(|error| cannot("read", path, error))?;
    if found.is_file() {
        files.push(std::fs::canonicalize(path).map_err(|error| cannot("read", path, error))?);
    } else if found.is_dir() {
        for entry in std::fs::read_dir(path).map_err(|error| cannot("read", path, error))? {
            walk(&entry.map_err(|error| cannot("read", path, error))?.path(), files)?;
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|error| cannot("write", path, error))
}

/// Writes a file that was not there: a key is never overwritten.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(|error| cannot("write", path, error))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn cannot(what: &str, path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("cannot {what} {}: {error}", path.display()))
}
