use anyhow::{Context, Result, ensure};
use davy_test_pool::{Difficulty, stratum};
use serde_json::{Value, json};

use super::{Dialect, Heard};
use crate::job::{Job, Share};

/// The wallet and the name of a miner that exists nowhere.
const LOGIN: &str =
    "4Davy1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111";
const LOGIN_ID: u64 = 1;

/// `login`, `job`, `submit`.
#[derive(Default)]
pub(super) struct Monero {
    session: String,
    requests: u64,
}

impl Dialect for Monero {
    fn open(&self) -> String {
        json!({
            "id": LOGIN_ID, "jsonrpc": "2.0", "method": "login",
            "params": {"login": LOGIN, "pass": "x", "agent": "davy-test-miner/0.1 (Linux x86_64)", "algo": ["rx/0"]},
        })
        .to_string()
    }

    fn hear(&mut self, line: &Value) -> Result<Heard> {
        if line["method"] == "job" {
            return Ok(Heard::Job(Box::new(job(&line["params"])?)));
        }
        if line["id"] != LOGIN_ID {
            return Ok(Heard::Verdict(line["result"]["status"] == "OK"));
        }
        if !line["error"].is_null() {
            return Ok(Heard::Refused(line["error"]["message"].to_string()));
        }
        self.requests = LOGIN_ID;
        line["result"]["id"].as_str().context("a login without a session")?.clone_into(&mut self.session);
        Ok(Heard::Job(Box::new(job(&line["result"]["job"])?)))
    }

    fn submit(&mut self, share: &Share) -> String {
        self.requests += 1;
        json!({
            "id": self.requests, "jsonrpc": "2.0", "method": "submit",
            "params": {
                "id": self.session, "job_id": share.job.id,
                "nonce": hex::encode(share.nonce), "result": hex::encode(share.hash),
            },
        })
        .to_string()
    }
}

fn job(params: &Value) -> Result<Job> {
    let text = |name: &str| params[name].as_str().with_context(|| format!("a job without {name}"));
    let blob = hex::decode(text("blob")?)?;
    ensure!((76..=408).contains(&blob.len()), "a blob of {} bytes", blob.len());
    let target =
        <[u8; 4]>::try_from(hex::decode(text("target")?)?).ok().context("a target that is not 4 bytes")?;
    let target = u32::from_le_bytes(target).max(1);
    Ok(Job {
        id: text("job_id")?.to_owned(),
        blob,
        nonce_at: stratum::NONCE_OFFSET,
        extranonce2: String::new(),
        time: String::new(),
        // Rounded up, so that what counts here counts with the pool.
        difficulty: Difficulty((u64::from(u32::MAX) / u64::from(target)).max(1) + 1),
        seed: hex::decode(text("seed_hash")?)?,
    })
}
