//! What trust keeps on disk, and reads from there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use davy_model::{Sha256, Source, Timestamp, Voucher};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::manifest::{self, MAX_BYTES};
use crate::{Config, Manifest, Pendings};

/// What the administrator approved, what was learned and written, and what waits: what must survive a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Words of sources that nothing else on the host remembers.
    pub vouchers: Vec<(Sha256, Voucher)>,
    /// What waits for the administrator.
    pub pendings: Pendings,
}

impl Memory {
    /// Reads it; what is not there yet is empty.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else: it is then kept under another name, and what was approved must be
    /// approved again.
    pub fn load(file: &Path) -> io::Result<Self> {
        load(file)
    }

    /// Writes it whole, or leaves the old one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        save(self, file)
    }
}

/// Reads what was written by [`save`]; what is not there yet is empty.
///
/// # Errors
/// When the file cannot be read, or holds something else: it is then kept under another name.
pub fn load<T: serde::de::DeserializeOwned + Default>(file: &Path) -> io::Result<T> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&text).map_err(|error| {
        let aside = file.with_extension("unreadable");
        let kept = std::fs::rename(file, &aside).map(|()| format!("; kept as {}", aside.display()));
        let kept = kept.unwrap_or_default();
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}{kept}", file.display()))
    })
}

/// Writes it whole, or leaves the old one.
///
/// # Errors
/// When it cannot be written.
pub fn save<T: Serialize>(what: &T, file: &Path) -> io::Result<()> {
    write_whole(&serde_json::to_vec(what)?, file)
}

/// Puts these bytes in the place of a file's, all of them, or leaves the old ones: whoever reads meanwhile, and whatever ends
/// meanwhile, sees one or the other. Mode and owner stay. They are on the disk when this returns.
///
/// # Errors
/// When it cannot be written.
pub fn write_whole(bytes: &[u8], file: &Path) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut out = File::create(&beside)?;
    if let Ok(before) = std::fs::metadata(file) {
        out.set_permissions(before.permissions())?;
        // Whoever may write here and does not own it makes it their own, as an editor would.
        let _ = std::os::unix::fs::fchown(&out, Some(before.uid()), Some(before.gid()));
    }
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&beside, file)?;
    if let Some(folder) = file.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// What a folder of manifests says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Contents that it vouches for.
    pub contents: Vec<(Sha256, Voucher)>,
    /// What it vouches for by fs-verity digest.
    pub verity: HashMap<String, Voucher>,
    /// What is wrong with those manifests that do not count.
    pub faults: Vec<String>,
}

/// What a folder of manifests vouches for.
///
/// A manifest `NAME.sha256` counts when `NAME.sha256.minisig` beside it is by one of the policy's keys.
#[must_use]
pub fn manifests(folder: &Path, config: &Config) -> Listed {
    let mut listed = Listed::default();
    for path in files_of(folder, "sha256") {
        let name = path.display().to_string();
        let read = read_bounded(&path).and_then(|text| {
            let signature = read_bounded(&manifest::signature_path(&path)).map_err(|error| {
                io::Error::new(error.kind(), format!("it has no signature beside it ({error})"))
            })?;
            Ok((text, signature))
        });
        let verified = match read {
            Ok((text, signature)) => {
                Manifest::verified(&name, &text, &signature, config.keys()).map_err(|error| error.to_string())
            }
            Err(error) => Err(format!("{name}: {error}")),
        };
        match verified {
            Ok((manifest, by)) => {
                let name = file_name(&path);
                let word =
                    || Voucher::lasting(Source::Manifest { signer: by.name.clone(), manifest: name.clone() });
                listed.contents.extend(manifest.files.into_iter().map(|(digest, _)| (digest, word())));
                listed.verity.extend(manifest.verity.into_iter().map(|(digest, _)| (digest, word())));
            }
            Err(fault) => listed.faults.push(fault),
        }
    }
    listed
}

fn files_of(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    if read > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// SHA-256 of an open file, from its beginning.
///
/// # Errors
/// When it cannot be read.
pub fn digest_of(file: &File) -> io::Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    let mut at = 0;
    loop {
        match std::os::unix::fs::FileExt::read_at(file, &mut buffer, at) {
            Ok(0) => return Ok(Sha256(hash.finalize().into())),
            Ok(read) => {
                hash.update(&buffer[..read]);
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// An approval given now.
#[must_use]
pub fn approval(time: Timestamp, path: &str, until: Option<Timestamp>) -> Voucher {
    Voucher { source: Source::Approval { time, path: path.to_owned() }, until }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use minisign::KeyPair;

    use super::*;

    #[test]
    fn what_is_remembered_is_written_whole_and_what_is_broken_is_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trust.json");
        assert!(Memory::load(&file).unwrap().vouchers.is_empty());
        let mut memory = Memory::default();
        let word = approval(Timestamp::from_secs(1), "/opt/a", Some(Timestamp::from_secs(9)));
        memory.vouchers.push((Sha256([7; 32]), word.clone()));
        memory.save(&file).unwrap();
        assert_eq!(Memory::load(&file).unwrap().vouchers, [(Sha256([7; 32]), word)]);
        std::fs::write(&file, "{\"vouchers\": [").unwrap();
        let error = Memory::load(&file).unwrap_err().to_string();
        assert!(error.contains("trust.unreadable"), "{error}");
        assert!(folder.path().join("trust.unreadable").exists() && !file.exists());
    }

    #[test]
    fn only_manifests_of_named_keys_count() {
        let folder = tempfile::tempdir().unwrap();
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let text = format!("[[trust.key]]\nname = \"ops\"\nminisign = \"{}\"\n", pair.pk.to_base64());
        let config = Config::new(&davy_policy::Policy::parse("p", &text).unwrap()).unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let list = Manifest { files: vec![(Sha256([1; 32]), "/opt/a".to_owned())], verity: vec![] }.to_text();
        put("good.sha256", &list);
        put("good.sha256.minisig", &Manifest::sign(&list, &pair.sk, "x").unwrap());
        put("unsigned.sha256", &list);
        put("forged.sha256", &list.replace("/opt/a", "/opt/b"));
        put("forged.sha256.minisig", &Manifest::sign(&list, &pair.sk, "x").unwrap());
        let Listed { contents, faults, .. } = manifests(folder.path(), &config);
        assert_eq!(contents.len(), 1);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("forged.sha256") && faults[1].contains("no signature beside it"));
    }

    #[test]
    fn a_files_digest_is_sha256() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_of(&file).unwrap().to_string(), known);
    }
}
