use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{JOBS_KEPT, Session, Turn};
use crate::chance::Chance;
use crate::work::{Algorithm, Difficulty};

/// Where the four bytes of the nonce lie in a Monero hashing blob.
pub const NONCE_OFFSET: usize = 39;

/// The dialect of Monero pools: `login`, `job`, `submit`, `keepalived` as JSON-RPC 2.0 lines.
pub struct MoneroSession {
    algorithm: Algorithm,
    difficulty: Difficulty,
    chance: Chance,
    /// The miner's id once it has logged in.
    session: Option<String>,
    seed_hash: [u8; 32],
    height: u64,
    jobs: VecDeque<String>,
}

impl MoneroSession {
    /// A session before its login.
    #[must_use]
    pub fn new(algorithm: Algorithm, difficulty: Difficulty) -> Self {
        let mut chance = Chance::new();
        // One seed for all sessions: it changes every 2048 blocks, and a new one costs a miner its dataset.
        let seed_hash = [0x5a; 32];
        let height = 3_200_000 + chance.below(100_000);
        Self { algorithm, difficulty, chance, session: None, seed_hash, height, jobs: VecDeque::new() }
    }

    fn job(&mut self) -> Value {
        // A pool sends new templates within a block too; here every third job begins a new block.
        if self.chance.below(3) == 0 {
            self.height += 1;
        }
        let id = hex::encode(&self.chance.bytes32()[..8]);
        if self.jobs.len() == JOBS_KEPT {
            self.jobs.pop_front();
        }
        self.jobs.push_back(id.clone());
        let target = u32::try_from(self.difficulty.bound() >> 32).unwrap_or(u32::MAX);
        json!({
            "blob": hex::encode(self.blob()),
            "job_id": id,
            "target": hex::encode(target.to_le_bytes()),
            "algo": self.algorithm.name(),
            "height": self.height,
            "seed_hash": hex::encode(self.seed_hash),
        })
    }

    /// A hashing blob: version 16.16, time, previous block, nonce, tree root, number of transactions.
    fn blob(&mut self) -> Vec<u8> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut blob = vec![0x10, 0x10];
        push_varint(&mut blob, time);
        blob.extend_from_slice(&self.chance.bytes32());
        blob.extend_from_slice(&[0; 4]);
        blob.extend_from_slice(&self.chance.bytes32());
        push_varint(&mut blob, 1 + self.chance.below(120));
        blob
    }

    fn login(&mut self, id: &Value, params: &Value) -> Turn {
        if !params["login"].is_string() {
            return Turn::reply(refusal(id, "missing login"));
        }
        let session = hex::encode(&self.chance.bytes32()[..16]);
        self.session = Some(session.clone());
        let reply = json!({
            "jsonrpc": "2.0", "id": id, "error": null,
            "result": {
                "id": session, "job": self.job(),
                "extensions": ["algo", "keepalive"], "status": "OK",
            },
        });
        Turn { replies: vec![reply.to_string()], login: true, job: true, ..Turn::default() }
    }

    fn submit(&self, id: &Value, params: &Value) -> Turn {
        let (reply, counts) = match self.judge(params) {
            Ok(()) => (accepted(id), true),
            Err(reason) => (refusal(id, reason), false),
        };
        Turn { share: Some(counts), ..Turn::reply(reply) }
    }

    fn judge(&self, params: &Value) -> Result<(), &'static str> {
        if self.session.is_none() || params["id"].as_str() != self.session.as_deref() {
            return Err("Unauthenticated");
        }
        let job = params["job_id"].as_str().unwrap_or_default();
        if !self.jobs.iter().any(|known| known == job) {
            return Err("Block expired");
        }
        let nonce = params["nonce"].as_str().unwrap_or_default();
        if nonce.len() != 8 || hex::decode(nonce).is_err() {
            return Err("Malformed nonce");
        }
        let result = params["result"].as_str().and_then(|text| hex::decode(text).ok()).unwrap_or_default();
        let result = <[u8; 32]>::try_from(result).map_err(|_| "Malformed result")?;
        if self.difficulty.met_by(&result) { Ok(()) } else { Err("Low difficulty share") }
    }
}

impl Session for MoneroSession {
    fn hear(&mut self, line: &str) -> Turn {
        let Ok(request) = serde_json::from_str::<Value>(line) else { return Turn::hang_up() };
        let (id, params) = (&request["id"], &request["params"]);
        match request["method"].as_str() {
            Some("login") => self.login(id, params),
            Some("submit") => self.submit(id, params),
            Some("getjob") if self.session.is_some() => {
                let job = self.job();
                let reply = json!({"jsonrpc": "2.0", "id": id, "error": null, "result": job}).to_string();
                Turn { job: true, ..Turn::reply(reply) }
            }
            Some("keepalived") => Turn::reply(
                json!({"jsonrpc": "2.0", "id": id, "error": null, "result": {"status": "KEEPALIVED"}})
                    .to_string(),
            ),
            Some(_) => Turn::reply(refusal(id, "Invalid method")),
            None => Turn::hang_up(),
        }
    }

    fn push_job(&mut self) -> Option<String> {
        self.session.as_ref()?;
        let job = self.job();
        Some(json!({"jsonrpc": "2.0", "method": "job", "params": job}).to_string())
    }
}

fn accepted(id: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": null, "result": {"status": "OK"}}).to_string()
}

fn refusal(id: &Value, reason: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": -1, "message": reason}}).to_string()
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
