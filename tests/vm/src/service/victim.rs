use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// How long the service waits between two tries to reach the pool.
const PAUSE: Duration = Duration::from_millis(20);

/// How one try to reach the pool ended; a line of the service's record each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Try {
    /// It got through.
    Reached,
    /// Not permitted, which is how Davy cuts off.
    Refused,
    /// It failed for another reason.
    Failed,
}

impl Try {
    fn word(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// What a record holds from a byte on, and where it ends now.
    pub(crate) fn read(record: &Path, from: usize) -> Result<(Vec<Self>, usize)> {
        let text = fs::read_to_string(record).with_context(|| format!("reading {}", record.display()))?;
        // The last line may be half written.
        let end = text.rfind('\n').map_or(0, |last| last + 1);
        let of =
            |line: &str| [Self::Reached, Self::Refused, Self::Failed].into_iter().find(|t| t.word() == line);
        let tries = text.get(from..end).unwrap_or_default().lines().filter_map(of).collect();
        Ok((tries, end.max(from)))
    }

    /// Tries now, from this process.
    pub(crate) fn now(pool: &str) -> Self {
        match TcpStream::connect(pool) {
            Ok(_) => Self::Reached,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Self::Refused,
            Err(_) => Self::Failed,
        }
    }
}

/// Tries to reach the pool again and again and records every try in `folder`/tries, for ever. When `folder`/miner is
/// there, runs it once, as whoever broke in would.
pub(crate) fn serve(pool: &str, folder: &Path) {
    let Ok(mut record) = File::create(folder.join("tries")) else { return };
    let (miner, mut mining) = (folder.join("miner"), None);
    loop {
        let _ = writeln!(record, "{}", Try::now(pool).word());
        if mining.is_none() && miner.exists() {
            mining = Command::new(&miner).args(["mine", pool]).spawn().ok();
        }
        std::thread::sleep(PAUSE);
    }
}

/// Speaks to the pool as a miner of Monero does, without computing anything, until the pool hangs up.
pub(crate) fn mine(pool: &str) {
    if let Err(error) = converse(pool) {
        eprintln!("the miner ends: {error:#}");
    }
}

fn converse(pool: &str) -> Result<()> {
    let mut to = TcpStream::connect(pool)?;
    let mut from = BufReader::new(to.try_clone()?);
    let mut ask = |request: Value| -> Result<Value> {
        writeln!(to, "{request}")?;
        let mut reply = String::new();
        while !reply.contains("\"result\"") {
            reply.clear();
            anyhow::ensure!(from.read_line(&mut reply)? > 0, "the pool hung up");
        }
        Ok(serde_json::from_str(&reply)?)
    };
    let params = json!({"login": "4AdUndXHHZ6cfufTMvppY6JwXNouMBzSkbLYfpAV5Usx3skxNgYeYTRj5UzqtReoS44qo9mtmXCqY45DJ852K5Jv2684Rge", "pass": "x", "agent": "miner/1.0"});
    let session = ask(json!({"id": 1, "jsonrpc": "2.0", "method": "login", "params": params}))?;
    let session = &session["result"];
    for id in 2..u32::MAX {
        std::thread::sleep(Duration::from_millis(500));
        let params = json!({
            "id": session["id"], "job_id": session["job"]["job_id"], "nonce": format!("{id:08x}"),
            "result": "00".repeat(32),
        });
        ask(json!({"id": id, "jsonrpc": "2.0", "method": "submit", "params": params}))?;
    }
    Ok(())
}
