use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::header::Template;
use super::{JOBS_KEPT, Session, Turn};
use crate::chance::Chance;
use crate::work::{Algorithm, Difficulty};

/// How many bytes of the coinbase a miner may choose.
const EXTRANONCE2: usize = 4;

/// The dialect of Bitcoin and Litecoin pools: `mining.subscribe`, `mining.authorize`, `mining.set_difficulty`,
/// `mining.notify`, `mining.submit`. Every share is computed again before it counts.
pub struct BitcoinSession {
    algorithm: Algorithm,
    difficulty: Difficulty,
    chance: Chance,
    extranonce1: [u8; 4],
    authorised: bool,
    height: u32,
    jobs: VecDeque<(String, Template)>,
}

impl BitcoinSession {
    /// A session before its first message.
    #[must_use]
    pub fn new(algorithm: Algorithm, difficulty: Difficulty) -> Self {
        let mut chance = Chance::new();
        let extranonce1 = (chance.next() as u32).to_be_bytes();
        let height = 840_000 + chance.below(50_000) as u32;
        Self { algorithm, difficulty, chance, extranonce1, authorised: false, height, jobs: VecDeque::new() }
    }

    fn notify(&mut self) -> String {
        let clean = self.jobs.is_empty() || self.chance.below(3) == 0;
        if clean {
            self.height += 1;
        }
        let id = format!("{:x}", self.chance.next() as u32);
        let template = self.template();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as u32);
        let line = json!({
            "id": null, "method": "mining.notify",
            "params": [
                id, hex::encode(template.previous), hex::encode(&template.coinbase_head),
                hex::encode(&template.coinbase_tail),
                template.branches.iter().map(hex::encode).collect::<Vec<_>>(),
                hex::encode(template.version), hex::encode(template.bits), format!("{time:08x}"), clean,
            ],
        });
        if self.jobs.len() == JOBS_KEPT {
            self.jobs.pop_front();
        }
        self.jobs.push_back((id, template));
        line.to_string()
    }

    /// A template with a version 1 coinbase of one input, which carries the height (BIP 34), and one output.
    fn template(&mut self) -> Template {
        let mut coinbase_head = vec![1, 0, 0, 0, 1];
        coinbase_head.extend_from_slice(&[0; 32]);
        coinbase_head.extend_from_slice(&[0xff; 4]);
        let script_length = 4 + self.extranonce1.len() + EXTRANONCE2;
        coinbase_head.push(script_length as u8);
        coinbase_head.push(3);
        coinbase_head.extend_from_slice(&self.height.to_le_bytes()[..3]);
        let mut coinbase_tail = vec![0xff; 4];
        coinbase_tail.push(1);
        coinbase_tail.extend_from_slice(&312_500_000_u64.to_le_bytes());
        coinbase_tail.extend_from_slice(&[25, 0x76, 0xa9, 0x14]);
        coinbase_tail.extend_from_slice(&self.chance.bytes32()[..20]);
        coinbase_tail.extend_from_slice(&[0x88, 0xac, 0, 0, 0, 0]);
        Template {
            version: [0x20, 0, 0, 0],
            previous: self.chance.bytes32(),
            coinbase_head,
            coinbase_tail,
            branches: (0..8).map(|_| self.chance.bytes32()).collect(),
            bits: [0x17, 0x03, 0x42, 0x19],
        }
    }

    fn judge(&self, params: &Value) -> Result<(), (u32, &'static str)> {
        if !self.authorised {
            return Err((24, "Unauthorized worker"));
        }
        let text = |index: usize| params[index].as_str().unwrap_or_default();
        let (_, template) = self.jobs.iter().find(|(id, _)| id == text(1)).ok_or((21, "Job not found"))?;
        let malformed = (20, "Malformed share");
        let extranonce2 = hex::decode(text(2)).map_err(|_| malformed)?;
        let time = word(text(3)).ok_or(malformed)?;
        let nonce = word(text(4)).ok_or(malformed)?;
        if extranonce2.len() != EXTRANONCE2 {
            return Err(malformed);
        }
        let header = template.header(&self.extranonce1, &extranonce2, time, nonce);
        let proof = self.algorithm.proof(&header).ok_or((20, "No proof for this algorithm"))?;
        if self.difficulty.met_by(&proof) { Ok(()) } else { Err((23, "Low difficulty share")) }
    }
}

impl Session for BitcoinSession {
    fn hear(&mut self, line: &str) -> Turn {
        let Ok(request) = serde_json::from_str::<Value>(line) else { return Turn::hang_up() };
        let (id, params) = (&request["id"], &request["params"]);
        match request["method"].as_str() {
            Some("mining.subscribe") => {
                let session = hex::encode(&self.chance.bytes32()[..8]);
                Turn::reply(answer(
                    id,
                    &json!([
                        [["mining.set_difficulty", session], ["mining.notify", session]],
                        hex::encode(self.extranonce1),
                        EXTRANONCE2,
                    ]),
                ))
            }
            Some("mining.authorize") if params[0].is_string() => {
                self.authorised = true;
                let difficulty = json!({
                    "id": null, "method": "mining.set_difficulty",
                    "params": [self.difficulty.announced(self.algorithm)],
                });
                let replies = vec![answer(id, &json!(true)), difficulty.to_string(), self.notify()];
                Turn { replies, login: true, job: true, ..Turn::default() }
            }
            Some("mining.submit") => match self.judge(params) {
                Ok(()) => Turn { share: Some(true), ..Turn::reply(answer(id, &json!(true))) },
                Err((code, reason)) => Turn {
                    share: Some(false),
                    ..Turn::reply(
                        json!({"id": id, "result": null, "error": [code, reason, null]}).to_string(),
                    )
                },
            },
            Some("mining.extranonce.subscribe" | "mining.suggest_difficulty") => {
                Turn::reply(answer(id, &json!(false)))
            }
            Some(_) => Turn::reply(
                json!({"id": id, "result": null, "error": [20, "Unknown method", null]}).to_string(),
            ),
            None => Turn::hang_up(),
        }
    }

    fn push_job(&mut self) -> Option<String> {
        self.authorised.then(|| self.notify())
    }
}

fn answer(id: &Value, result: &Value) -> String {
    json!({"id": id, "result": result, "error": null}).to_string()
}

fn word(text: &str) -> Option<[u8; 4]> {
    hex::decode(text).ok()?.try_into().ok()
}
