//! `davy quarantine export`: a copy of a file for those who analyse such things.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use davy_wire::{Quarantined, Query, Reply};
use serde_json::json;
use sha2::{Digest, Sha256};
use zip::ZipWriter;
use zip::unstable::write::FileOptionsExt;
use zip::write::SimpleFileOptions;

use crate::answer::Answering;
use crate::client::{Answers, Client, unexpected};
use crate::document;
use crate::failure::{Exit, Failure};
use crate::verbs::QuarantineExport;

/// The password that those who exchange malware agree on. It is no secret: it keeps mail filters and scanners from what is
/// inside, and people from running it by mistake.
const PASSWORD: &str = "infected";

/// Writes the copy.
pub(super) fn run(client: &Client, answering: &Answering, asked: &QuarantineExport) -> Result<(), Failure> {
    let number = asked.number;
    let ending = if asked.plain { "bin" } else { "zip" };
    let out = asked.out.clone().unwrap_or_else(|| PathBuf::from(format!("quarantine-{number}.{ending}")));
    let to_output = out.as_os_str() == "-";
    if to_output && (!asked.plain || io::stdout().is_terminal()) {
        let message = "standard output takes the plain bytes alone, and not on a terminal";
        return Err(Failure::new(Exit::Usage, message).hint("davy quarantine export N --plain --out - | xxd"));
    }
    client.may_change()?;
    let file = super::one(client, number)?;
    let content = Content::ask(client, &file)?;
    if to_output {
        return content.write_to(io::stdout().lock());
    }
    let target = new_file(&out)?;
    let written = if asked.plain { content.write_to(target) } else { lock_up(content, &file, target) };
    // Half a copy, or one of other bytes, is worse than none.
    written.inspect_err(|_| drop(fs::remove_file(&out)))?;
    let password = (!asked.plain).then_some(PASSWORD);
    if answering.json {
        let out = out.display().to_string();
        let document =
            json!({ "file": out, "sha256": file.sha256, "bytes": file.bytes, "password": password });
        return Ok(answering.document(&document)?);
    }
    answering.sentence(&format!("{} holds the content of file {number}.", out.display()))?;
    answering.next(match password {
        Some(_) => "the password is \"infected\", as analysts expect it",
        None => "these are the very bytes: any scanner will see them",
    });
    Ok(())
}

fn new_file(path: &Path) -> Result<File, Failure> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|e| cannot_write(path, &e))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot write {}: {error}", path.display()))
}

/// A zip that holds the content under its digest, and beside it what is known of the file.
fn lock_up(content: Content, file: &Quarantined, target: File) -> Result<(), Failure> {
    let fault = |e: zip::result::ZipError| Failure::new(Exit::Failed, format!("cannot write the zip: {e}"));
    let options = SimpleFileOptions::default().unix_permissions(0o600);
    let options = options.with_deprecated_encryption(PASSWORD.as_bytes()).map_err(fault)?;
    let mut zip = ZipWriter::new(target);
    zip.start_file(&file.sha256, options.large_file(file.bytes > u64::from(u32::MAX / 2))).map_err(fault)?;
    content.write_to(&mut zip)?;
    zip.start_file("file.json", options).map_err(fault)?;
    zip.write_all(document::pretty(&document::quarantined(file)).as_bytes())?;
    Ok(zip.finish().map_err(fault)?.sync_all()?)
}

/// The content as the agent sends it.
struct Content {
    answers: Answers,
    sha256: String,
}

impl Content {
    fn ask(client: &Client, file: &Quarantined) -> Result<Self, Failure> {
        let answers = client.ask_guarded(Query::QuarantineContent { number: file.number })?;
        Ok(Self { answers, sha256: file.sha256.clone() })
    }

    /// Writes it out, and makes sure that it is what was taken away.
    fn write_to(mut self, mut out: impl Write) -> Result<(), Failure> {
        let mut hash = Sha256::new();
        while let Some(reply) = self.answers.next_reply()? {
            let Reply::Content(piece) = reply else { return Err(unexpected(&reply)) };
            let bytes = BASE64_STANDARD.decode(piece);
            let bytes = bytes.map_err(|e| Failure::new(Exit::Failed, format!("the agent's answer: {e}")))?;
            hash.update(&bytes);
            out.write_all(&bytes)?;
        }
        out.flush()?;
        if hex::encode(hash.finalize()) == self.sha256 {
            Ok(())
        } else {
            Err(Failure::new(Exit::Failed, "what the agent sent is not what was taken away"))
        }
    }
}
