//! Mining protocols in the clear: JSON-RPC in its dialects, by whatever carries it.
//!
//! Sources: the miners' and pools' own messages (stratum.mining.* of Bitcoin pools, the login/job/submit dialect of Monero pools,
//! EIP-1571 for EthereumStratum 2.0, the eth_* calls of Ethereum nodes, getwork and getblocktemplate of BIP 22).

mod json;

pub use json::{Word, words};

use davy_model::{Dialect, Speech};

/// The longest algorithm or agent name kept, in bytes.
const MAX_NAME: usize = 48;

/// Listens to one side's text.
#[must_use]
pub fn listen(text: &[u8]) -> Speech {
    let mut speech = Speech::default();
    let mut seen = Seen::default();
    let mut key: &[u8] = b"";
    for word in words(text) {
        match word {
            Word::Key(name) => {
                seen.key(name);
                key = name;
            }
            Word::Text(value) => {
                method(value, key, &mut speech, &mut seen);
                match key {
                    b"algo" => speech.algorithm = speech.algorithm.or_else(|| name_of(value)),
                    b"agent" => speech.agent = speech.agent.or_else(|| name_of(value)),
                    _ => {}
                }
                if key == b"status" && value.eq_ignore_ascii_case(b"OK") {
                    seen.ok = true;
                }
                // A list's further texts are no method's name, save in the list of subscriptions.
                if key != b"result" {
                    key = b"";
                }
            }
            Word::True => seen.ok |= key == b"result",
        }
    }
    seen.conclude(&mut speech);
    speech
}

#[derive(Default)]
struct Seen {
    login_method: bool,
    submit_method: bool,
    credentials: u32,
    job_method: bool,
    job: u32,
    nonce: bool,
    ok: bool,
}

impl Seen {
    fn key(&mut self, name: &[u8]) {
        match name {
            b"login" | b"pass" | b"agent" | b"rigid" | b"algo" => self.credentials += 1,
            b"blob" | b"job_id" | b"target" | b"seed_hash" | b"height" => self.job += 1,
            b"nonce" => self.nonce = true,
            _ => {}
        }
    }

    fn conclude(&self, speech: &mut Speech) {
        // "login", "submit" and "job" are words of many protocols; the fields beside them are not.
        if self.login_method && self.credentials >= 2 {
            speech.enters = true;
            speech.dialect = speech.dialect.or(Some(Dialect::Login));
        }
        if self.submit_method && self.nonce && self.job >= 1 {
            speech.submits = true;
            speech.dialect = speech.dialect.or(Some(Dialect::Login));
        } else if self.job >= 3 || (self.job_method && self.job >= 2) {
            speech.jobs = true;
            speech.dialect = speech.dialect.or(Some(Dialect::Login));
        }
        speech.accepts = self.ok || speech.jobs;
    }
}

/// Notes a method's name, which also stands as the first text of a list in some old dialects.
fn method(value: &[u8], key: &[u8], speech: &mut Speech, seen: &mut Seen) {
    if key != b"method" && key != b"result" {
        return;
    }
    let mut set =
        |dialect: Dialect| speech.dialect = Some(speech.dialect.map_or(dialect, |d| d.max(dialect)));
    match value {
        b"mining.subscribe"
        | b"mining.authorize"
        | b"mining.configure"
        | b"mining.extranonce.subscribe"
        | b"mining.suggest_difficulty"
        | b"mining.multi_version" => {
            set(Dialect::Subscribe);
            speech.enters = true;
        }
        b"mining.hello" => {
            set(Dialect::Hello);
            speech.enters = true;
        }
        b"mining.submit" | b"mining.submitblock" => {
            set(Dialect::Subscribe);
            speech.submits = true;
        }
        b"mining.notify"
        | b"mining.set_difficulty"
        | b"mining.set_target"
        | b"mining.set_extranonce"
        | b"mining.set" => {
            set(Dialect::Subscribe);
            speech.jobs = true;
        }
        b"eth_submitLogin" | b"eth_login" => {
            set(Dialect::Ethereum);
            speech.enters = true;
        }
        b"eth_submitWork" | b"eth_submitHashrate" => {
            set(Dialect::Ethereum);
            speech.submits = true;
        }
        b"eth_getWork" => {
            set(Dialect::Ethereum);
            speech.asks = true;
        }
        b"getwork" | b"getblocktemplate" | b"get_block_template" | b"getminingcandidate"
            if key == b"method" =>
        {
            set(Dialect::GetWork);
            speech.asks = true;
        }
        b"submitblock" | b"submit_block" if key == b"method" => {
            set(Dialect::GetWork);
            speech.submits = true;
        }
        b"login" if key == b"method" => seen.login_method = true,
        b"submit" if key == b"method" => seen.submit_method = true,
        b"job" if key == b"method" => seen.job_method = true,
        _ => {}
    }
}

/// The first word of a name, when it can be shown.
fn name_of(value: &[u8]) -> Option<String> {
    let value = value.split(|b| *b == b' ').next().unwrap_or(value);
    let value = &value[..value.len().min(MAX_NAME)];
    (!value.is_empty() && value.iter().all(u8::is_ascii_graphic))
        .then(|| String::from_utf8_lossy(value).into_owned())
}
