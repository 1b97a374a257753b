use anyhow::{Context, Result, bail};
use davy_test_pool::stratum::header::{self, Template};
use davy_test_pool::{Algorithm, Difficulty};
use serde_json::{Value, json};

use super::{Dialect, Heard};
use crate::job::{Job, Share};

const SUBSCRIBE: u64 = 1;
const AUTHORIZE: u64 = 2;
const WORKER: &str = "davy.1";

/// `mining.subscribe`, `mining.authorize`, `mining.notify`, `mining.submit`.
pub(super) struct Bitcoin {
    algorithm: Algorithm,
    difficulty: Difficulty,
    extranonce1: Vec<u8>,
    extranonce2: Vec<u8>,
    requests: u64,
}

impl Bitcoin {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        let difficulty = Difficulty::from_announced(1.0, algorithm);
        Self { algorithm, difficulty, extranonce1: Vec::new(), extranonce2: Vec::new(), requests: AUTHORIZE }
    }

    fn job(&self, params: &Value) -> Result<Job> {
        let text = |index: usize| params[index].as_str().context("a job that lacks a part");
        let branches = params[4].as_array().context("a job without branches")?;
        let template = Template {
            version: fixed(text(5)?)?,
            previous: fixed(text(1)?)?,
            coinbase_head: hex::decode(text(2)?)?,
            coinbase_tail: hex::decode(text(3)?)?,
            branches: branches
                .iter()
                .map(|b| fixed(b.as_str().unwrap_or_default()))
                .collect::<Result<_>>()?,
            bits: fixed(text(6)?)?,
        };
        let header = template.header(&self.extranonce1, &self.extranonce2, fixed(text(7)?)?, [0; 4]);
        Ok(Job {
            id: text(0)?.to_owned(),
            blob: header.to_vec(),
            nonce_at: header::NONCE_OFFSET,
            extranonce2: hex::encode(&self.extranonce2),
            time: text(7)?.to_owned(),
            difficulty: self.difficulty,
            seed: Vec::new(),
        })
    }
}

impl Dialect for Bitcoin {
    fn open(&self) -> String {
        json!({"id": SUBSCRIBE, "method": "mining.subscribe", "params": ["davy-test-miner/0.1"]}).to_string()
    }

    fn hear(&mut self, line: &Value) -> Result<Heard> {
        let params = &line["params"];
        match line["method"].as_str() {
            Some("mining.notify") => return Ok(Heard::Job(Box::new(self.job(params)?))),
            Some("mining.set_difficulty") => {
                let number = params[0].as_f64().context("a difficulty that is no number")?;
                // Rounded up, so that what counts here counts with the pool.
                self.difficulty =
                    Difficulty(Difficulty::from_announced(number, self.algorithm).0.saturating_add(1));
                return Ok(Heard::Nothing);
            }
            Some(_) => return Ok(Heard::Nothing),
            None => {}
        }
        if line["id"] == SUBSCRIBE {
            let result = &line["result"];
            self.extranonce1 = hex::decode(result[1].as_str().context("a subscription without extranonce")?)?;
            let length =
                result[2].as_u64().filter(|n| *n <= 16).context("an extranonce2 of unusual length")?;
            self.extranonce2 = vec![1; length as usize];
            let request = json!({"id": AUTHORIZE, "method": "mining.authorize", "params": [WORKER, "x"]});
            return Ok(Heard::Reply(request.to_string()));
        }
        let yes = line["result"] == true;
        if line["id"] == AUTHORIZE {
            return Ok(if yes { Heard::Nothing } else { Heard::Refused(line["error"].to_string()) });
        }
        Ok(Heard::Verdict(yes))
    }

    fn submit(&mut self, share: &Share) -> String {
        self.requests += 1;
        let mut nonce = share.nonce;
        nonce.reverse();
        json!({
            "id": self.requests, "method": "mining.submit",
            "params": [WORKER, share.job.id, share.job.extranonce2, share.job.time, hex::encode(nonce)],
        })
        .to_string()
    }
}

fn fixed<const N: usize>(text: &str) -> Result<[u8; N]> {
    match hex::decode(text)?.try_into() {
        Ok(bytes) => Ok(bytes),
        Err(other) => bail!("{} bytes where {N} belong", other.len()),
    }
}
