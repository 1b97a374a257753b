//! What a file itself and the kernel say of its integrity, read with the rights of whoever asks.

use std::fs::File;
use std::path::Path;

use davy_files::{VerityDigest, ima_attribute};
use davy_trust::ImaAttribute;
use serde_json::{Value, json};

use crate::page::{Line, Role};

/// What is told beside a ruling.
#[derive(Debug)]
pub(super) struct Integrity {
    /// The fs-verity digest, as fsverity(1) writes it.
    pub(super) verity: Option<String>,
    /// The attribute of IMA; `None` within when it does not read.
    ima: Option<Option<ImaAttribute>>,
}

impl Integrity {
    /// Of a file; what cannot be read is not there, since it only adds to what is told.
    pub(super) fn of(path: &Path) -> Self {
        let file = File::open(path).ok();
        let verity = file.as_ref().and_then(|file| VerityDigest::of(file).ok().flatten());
        let ima = file.as_ref().and_then(|file| ima_attribute(file).ok().flatten());
        Self {
            verity: verity.map(|digest| digest.to_string()),
            ima: ima.map(|bytes| ImaAttribute::parse(&bytes)),
        }
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<Line> {
        let verity = self.verity.iter().map(|digest| format!("  fs-verity {digest}"));
        let ima = self.ima.iter().map(|ima| match ima {
            Some(ima) => format!("  IMA: {ima}; Davy does not verify it, and it does not vouch"),
            None => "  IMA: an attribute that does not read".to_owned(),
        });
        verity.chain(ima).map(|line| Line::in_role(Role::Quiet, line)).collect()
    }

    /// For programs.
    pub(super) fn ima_document(&self) -> Value {
        match &self.ima {
            None => Value::Null,
            Some(None) => json!({ "kind": "unreadable" }),
            Some(Some(ima)) => match ima {
                ImaAttribute::Digest { algorithm, .. } => {
                    json!({ "kind": ima.name(), "algorithm": algorithm })
                }
                ImaAttribute::Signature { over_verity, algorithm, key, bits } => json!({
                    "kind": ima.name(), "algorithm": algorithm, "over_verity": over_verity,
                    "key": key.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), "bits": bits,
                }),
                ImaAttribute::Other(_) => json!({ "kind": ima.name() }),
            },
        }
    }
}
