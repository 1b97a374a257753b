//! What `davy quarantine` orders, and the copies it makes, against an agent of canned answers.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod canned;
mod fake_agent;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use base64::{Engine, prelude::BASE64_STANDARD};
use davy_wire::{Command, ErrorCode, Quarantined, Query, Reply, RequestBody};
use fake_agent::FakeAgent;
use sha2::{Digest, Sha256};

/// An agent that holds this content as file 3, and sends it in pieces.
fn holding(content: &'static [u8], sent: &'static [u8]) -> FakeAgent {
    FakeAgent::answering(move |request| match request {
        RequestBody::Query(Query::Quarantine) => vec![Reply::Quarantined(Quarantined {
            sha256: hex::encode(Sha256::digest(content)),
            bytes: content.len() as u64,
            ..canned::quarantined().remove(0)
        })],
        RequestBody::Query(Query::QuarantineContent { number: 3 }) => {
            sent.chunks(7).map(|piece| Reply::Content(BASE64_STANDARD.encode(piece))).collect()
        }
        RequestBody::Command(command) => vec![Reply::Done(format!("Did it: {command:?}."))],
        _ => vec![Reply::Error { code: ErrorCode::NotFound, message: "there is no such thing".to_owned() }],
    })
}

#[test]
fn a_copy_is_a_zip_locked_as_analysts_expect_it() {
    let miner = b"\x7fELF stratum+tcp://pool.example";
    let agent = holding(miner, miner);
    let out = agent.base().join("sample.zip");
    let asked = ["quarantine", "export", "3", "--out", out.to_str().unwrap()];
    let ended = agent.davy(&asked);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("the password is \"infected\""), "{}", ended.err);
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&out).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"stratum"), "nothing of it shows");

    let mut zip = zip::ZipArchive::new(File::open(&out).unwrap()).unwrap();
    let names: Vec<String> = zip.file_names().map(str::to_owned).collect();
    let digest = hex::encode(Sha256::digest(miner));
    assert_eq!(names, [digest.clone(), "file.json".to_owned()]);
    assert!(zip.by_name(&digest).is_err(), "locked");
    let mut content = Vec::new();
    let mut member = zip.by_name_decrypt(&digest, b"infected").unwrap();
    assert_eq!(member.unix_mode().map(|mode| mode & 0o777), Some(0o600));
    member.read_to_end(&mut content).unwrap();
    drop(member);
    assert_eq!(content, miner);
    let about: serde_json::Value =
        serde_json::from_reader(zip.by_name_decrypt("file.json", b"infected").unwrap()).unwrap();
    assert_eq!(about["path"], "/var/www/shop/img/a.php");

    match std::process::Command::new("unzip").args(["-P", "infected", "-p"]).arg(&out).arg(&digest).output() {
        Ok(output) => assert_eq!(output.stdout, miner, "{output:?}"),
        Err(error) => println!("SKIPPED: unzip is missing: {error}"),
    }
    // No file is written over.
    let again = agent.davy(&asked);
    assert_eq!(again.code, 1, "{}", again.err);
    assert_eq!(fs::read(&out).unwrap(), bytes);
}

#[test]
fn plain_bytes_go_to_a_file_that_nobody_may_run_or_to_a_pipe() {
    let agent = holding(b"#!/bin/sh\necho no", b"#!/bin/sh\necho no");
    let out = agent.base().join("sample");
    let ended =
        agent.davy(&["quarantine", "export", "3", "--plain", "--json", "--out", out.to_str().unwrap()]);
    let told: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((told["bytes"].as_u64(), told["password"].is_null()), (Some(17), true));
    assert_eq!(fs::read(&out).unwrap(), b"#!/bin/sh\necho no");
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(agent.davy(&["quarantine", "export", "3", "--plain", "--out", "-"]).out, "#!/bin/sh\necho no");
    assert_eq!(agent.davy(&["quarantine", "export", "3", "--out", "-"]).code, 2);
}

#[test]
fn a_copy_that_is_not_what_was_taken_away_is_not_left_behind() {
    for sent in [&b"the min"[..], b"the miner and more", b""] {
        for plain in [&[] as &[&str], &["--plain"]] {
            let agent = holding(b"the miner", sent);
            let out = agent.base().join("sample");
            let asked = ["quarantine", "export", "3", "--out", out.to_str().unwrap()];
            let ended = agent.davy(&[&asked, plain].concat());
            assert_eq!(ended.code, 1);
            assert!(ended.err.contains("is not what was taken away"), "{}", ended.err);
            assert!(!out.exists());
        }
    }
}

#[test]
fn orders_go_to_the_change_socket_by_number() {
    let agent = holding(b"", b"");
    assert_eq!(agent.davy(&["quarantine", "restore", "3"]).code, 0);
    assert_eq!(agent.davy(&["quarantine", "delete", "3"]).code, 0);
    assert_eq!(
        agent.heard(),
        [
            RequestBody::Command(Command::QuarantineRestore { number: 3 }),
            RequestBody::Command(Command::QuarantineDelete { number: 3 })
        ]
    );
    assert_eq!(agent.davy(&["quarantine", "export", "4"]).code, 4);
}

#[test]
fn records_that_do_not_read_are_told() {
    let agent = FakeAgent::answering(|request| match request {
        RequestBody::Query(Query::Quarantine) => vec![
            Reply::Quarantined(canned::quarantined().remove(0)),
            Reply::QuarantineFault("000004.json: its record does not read".to_owned()),
        ],
        _ => vec![],
    });
    let ended = agent.davy(&["quarantine", "list"]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("/var/www/shop/img/a.php"), "{}", ended.out);
    assert!(ended.err.contains("000004.json"), "{}", ended.err);
}
