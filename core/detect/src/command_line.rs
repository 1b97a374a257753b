//! Words of a command line that only miners use.

use davy_model::{ProcessInfo, Signal, Timestamp};

use crate::flow_watch::Noted;
use crate::known_names::KnownNames;
use crate::ledger::{Particulars, Topic, evidence};
use crate::process_table::base_name;
use crate::weights::{WORDS_NAME, WORDS_OPTION, WORDS_SCHEME, WORDS_WALLET};

/// Programs whose arguments are others' words.
const READERS: [&str; 26] = [
    "grep", "egrep", "rg", "sed", "awk", "gawk", "mawk", "vi", "vim", "nano", "emacs", "less", "cat", "echo",
    "printf", "man", "git", "ps", "pgrep", "pkill", "killall", "tail", "head", "find", "sh", "bash",
];
const SCHEMES: [&str; 14] = [
    "stratum+tcp://",
    "stratum+ssl://",
    "stratum+tls://",
    "stratum+tcps://",
    "stratum+udp://",
    "stratum1+",
    "stratum2+",
    "stratum://",
    "stratums://",
    "stratumss://",
    "ethproxy+",
    "ethstratum",
    "daemon+http://",
    "zstratum",
];
const OPTIONS: [&str; 16] = [
    "--donate-level",
    "--donate-over-proxy",
    "--randomx-1gb-pages",
    "--randomx-mode",
    "--randomx-no-rdmsr",
    "--randomx-wrmsr",
    "--randomx-init",
    "--cpu-max-threads-hint",
    "--cpu-no-yield",
    "--nicehash",
    "--rig-id",
    "--astrobwt-avx2",
    "--randomx-cache-qos",
    "--argon2-impl",
    "--coin=monero",
    "--asm=ryzen",
];
const ALGORITHMS: [&str; 18] = [
    "rx/0",
    "rx/wow",
    "rx/arq",
    "rx/graft",
    "rx/sfx",
    "randomx",
    "cn/r",
    "cn/0",
    "cn/half",
    "cn-heavy/xhv",
    "cn-pico",
    "argon2/chukwa",
    "kawpow",
    "ethash",
    "etchash",
    "autolykos2",
    "verushash",
    "ghostrider",
];
/// Arguments longer than this, and more than so many, are not read.
const MAX_ARGUMENT: usize = 1024;
const MAX_ARGUMENTS: usize = 96;

/// What a command line says.
pub(crate) fn look(time: Timestamp, info: &ProcessInfo, names: &KnownNames, noted: &mut Vec<Noted>) {
    let file = base_name(&info.image.path);
    if READERS.contains(&file) {
        return;
    }
    let mut add = |topic: Topic, weight: f32, text: String| {
        noted.push((
            topic,
            evidence(time, Signal::CommandLine, weight, text).of(info.key).technique("T1496.001"),
        ));
    };
    let first = info.args.first().map_or("", |a| base_name(a));
    if let Some(miner) = names.miner(file).or_else(|| names.miner(first)) {
        add("words/name", WORDS_NAME, format!("bears the name of the miner {miner}"));
    }
    let mut endpoint = false;
    let mut user = false;
    let mut previous = "";
    for argument in info.args.iter().skip(1).take(MAX_ARGUMENTS).filter(|a| a.len() <= MAX_ARGUMENT) {
        let low = argument.to_ascii_lowercase();
        if let Some(scheme) = SCHEMES.iter().find(|scheme| low.contains(*scheme)) {
            add("words/scheme", WORDS_SCHEME, format!("its arguments name a pool by {scheme}"));
        }
        let option = OPTIONS.iter().find(|option| {
            low.strip_prefix(*option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        });
        if let Some(option) = option {
            add("words/option", WORDS_OPTION, format!("its arguments hold {option}, which only miners have"));
        }
        let value =
            low.split_once('=').filter(|(name, _)| name.starts_with("--algo")).map(|(_, value)| value);
        let value = value.or_else(|| matches!(previous, "-a" | "--algo").then_some(low.as_str()));
        if let Some(algorithm) = value.and_then(|value| ALGORITHMS.iter().find(|a| value == **a)) {
            add("words/algorithm", WORDS_OPTION, format!("its arguments choose the algorithm {algorithm}"));
        }
        if let Some(coin) = wallet(argument.rsplit_once('=').map_or(argument.as_str(), |(_, value)| value)) {
            let weight = if coin == "Monero" { WORDS_WALLET } else { WORDS_WALLET / 2.0 };
            add("words/wallet", weight, format!("its arguments hold a {coin} address"));
        }
        endpoint |= matches!(previous, "-o" | "--url" | "--pool") && has_port(&low);
        user |= matches!(previous, "-u" | "--user" | "--userpass");
        previous = argument;
    }
    if endpoint && user {
        add(
            "words/pool",
            WORDS_OPTION - 1.0,
            "its arguments name a server and port and a user as miners do (-o, -u)".to_owned(),
        );
    }
}

fn has_port(value: &str) -> bool {
    value.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// The coin whose address a word is by length and alphabet, a worker's name after a dot or plus taken off.
fn wallet(word: &str) -> Option<&'static str> {
    let word = word.split(['.', '+', '/']).next().unwrap_or(word);
    let base58 =
        |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() && !matches!(b, b'0' | b'O' | b'I' | b'l'));
    match word.len() {
        95 | 106 if word.starts_with(['4', '8']) && base58(word) => Some("Monero"),
        42 if word.starts_with("0x") && word[2..].bytes().all(|b| b.is_ascii_hexdigit()) => Some("Ethereum"),
        42 | 62
            if word.starts_with("bc1")
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) =>
        {
            Some("Bitcoin")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::wallet;

    #[test]
    fn wallets() {
        let monero = format!("4{}", "A".repeat(94));
        assert_eq!(wallet(&monero), Some("Monero"));
        assert_eq!(wallet(&format!("{monero}.worker1")), Some("Monero"));
        assert_eq!(wallet(&"a".repeat(40)), None);
        assert_eq!(wallet("0x52908400098527886E0F7030069857D2E4169EE7"), Some("Ethereum"));
        assert_eq!(wallet("0é"), None);
        // 42 bytes with a sign of two bytes at the cut.
        assert_eq!(wallet(&format!("0x{}é", "a".repeat(38))), None);
    }
}
