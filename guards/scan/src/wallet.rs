//! Wallet addresses, recognised by their form and believed for their checksum.

use davy_model::Wallet;
use sha2::{Digest, Sha256};
use sha3::Keccak256;

/// The shortest and the longest word that can be an address.
const SHORTEST: usize = 26;
const LONGEST: usize = 120;

/// The most that are told of one piece of data.
const MOST: usize = 16;

/// Version bytes of Base58Check addresses with their currency.
const BASE58CHECK: [(&[u8], &str); 9] = [
    (&[0x00], "Bitcoin"),
    (&[0x05], "Bitcoin"),
    (&[0x30], "Litecoin"),
    (&[0x32], "Litecoin"),
    (&[0x1e], "Dogecoin"),
    (&[0x3c], "Ravencoin"),
    (&[0x4c], "Dash"),
    (&[0x1c, 0xb8], "Zcash"),
    (&[0x1c, 0xbd], "Zcash"),
];

/// Prefixes of Bech32 and Bech32m addresses with their currency.
const BECH32: [(&str, &str); 3] = [("bc", "Bitcoin"), ("ltc", "Litecoin"), ("zs", "Zcash")];

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Addresses in `bytes` whose checksums hold, each once, in the order they stand; the first few.
#[must_use]
pub fn wallets(bytes: &[u8]) -> Vec<Wallet> {
    let mut found = Vec::new();
    for word in bytes.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b':') {
        if !(SHORTEST..=LONGEST).contains(&word.len()) {
            continue;
        }
        // The colon belongs to some addresses and separates others, as in `wallet:password`.
        let parts = std::iter::once(word).chain(word.split(|byte| *byte == b':'));
        let Some(wallet) = parts.filter_map(|part| std::str::from_utf8(part).ok()).find_map(address) else {
            continue;
        };
        if !found.contains(&wallet) {
            found.push(wallet);
            if found.len() == MOST {
                break;
            }
        }
    }
    found
}

fn address(word: &str) -> Option<Wallet> {
    let currency = match word.as_bytes() {
        [b'4' | b'8', ..] if matches!(word.len(), 95 | 106) => monero(word)?,
        [b'0', b'x', hex @ ..] if hex.len() == 40 => ethereum(&word[2..])?,
        [b'k', b'a', b's', b'p', b'a', b':', rest @ ..] => kaspa(rest)?,
        [b'a'..=b'z', ..] if word.contains('1') => segwit(word)?,
        _ if word.len() <= 36 => base58check(word)?,
        _ => return None,
    };
    Some(Wallet { currency: currency.to_owned(), address: word.to_owned() })
}

fn base58check(word: &str) -> Option<&'static str> {
    let decoded = bs58::decode(word).into_vec().ok()?;
    let (payload, checksum) = decoded.split_last_chunk::<4>()?;
    let twice = Sha256::digest(Sha256::digest(payload));
    (twice[..4] == checksum[..]).then_some(())?;
    BASE58CHECK
        .iter()
        .find(|(version, _)| payload.starts_with(version) && payload.len() == version.len() + 20)
        .map(|(_, currency)| *currency)
}

/// Monero writes Base58 in blocks: eight bytes are eleven letters, and the last block is shorter.
fn monero(word: &str) -> Option<&'static str> {
    let mut decoded = Vec::with_capacity(80);
    for block in word.as_bytes().chunks(11) {
        let size = match block.len() {
            11 => 8,
            7 => 5,
            _ => return None,
        };
        let mut number = 0_u128;
        for letter in block {
            let digit = BASE58.iter().position(|other| other == letter)?;
            number = number * 58 + digit as u128;
        }
        let bytes = number.to_be_bytes();
        bytes[..16 - size].iter().all(|byte| *byte == 0).then_some(())?;
        decoded.extend_from_slice(&bytes[16 - size..]);
    }
    let (payload, checksum) = decoded.split_last_chunk::<4>()?;
    // The main network's tags: standard, integrated, and subaddress.
    matches!(payload.first()?, 18 | 19 | 42).then_some(())?;
    (Keccak256::digest(payload)[..4] == checksum[..]).then_some("Monero")
}

/// Only an address with capitals has a checksum (EIP-55): the case of its letters.
fn ethereum(hex: &str) -> Option<&'static str> {
    hex.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
    let mixed = hex.bytes().any(|b| b.is_ascii_uppercase()) && hex.bytes().any(|b| b.is_ascii_lowercase());
    mixed.then_some(())?;
    let digest = Keccak256::digest(hex.to_ascii_lowercase());
    let right = hex.bytes().enumerate().all(|(place, byte)| {
        let nibble = digest[place / 2] >> (4 * (1 - place % 2)) & 0xf;
        byte.is_ascii_digit() || byte.is_ascii_uppercase() == (nibble >= 8)
    });
    right.then_some("Ethereum")
}

fn segwit(word: &str) -> Option<&'static str> {
    let (prefix, _) = word.split_once('1')?;
    let currency = BECH32.iter().find(|(known, _)| *known == prefix)?.1;
    match prefix {
        "zs" => bech32::primitives::decode::CheckedHrpstring::new::<bech32::Bech32>(word).ok().map(drop)?,
        _ => bech32::segwit::decode(word).ok().map(drop)?,
    }
    Some(currency)
}

/// Kaspa's addresses are those of Bitcoin Cash with another prefix: a checksum of forty bits over prefix and payload.
fn kaspa(payload: &[u8]) -> Option<&'static str> {
    const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const GENERATOR: [u64; 5] =
        [0x98_f2bc_8e61, 0x79_b76d_99e2, 0xf3_3e5f_b3c4, 0xae_2eab_e2a8, 0x1e_4f43_e470];
    matches!(payload.len(), 61..=63).then_some(())?;
    let digits = payload.iter().map(|letter| LETTERS.iter().position(|l| l == letter).map(|p| p as u64));
    let prefix = b"kaspa".iter().map(|byte| Some(u64::from(byte & 0x1f))).chain(std::iter::once(Some(0)));
    let mut check = 1_u64;
    for digit in prefix.chain(digits) {
        let top = check >> 35;
        check = (check & 0x07_ffff_ffff) << 5 ^ digit?;
        for (bit, generator) in GENERATOR.iter().enumerate() {
            if top >> bit & 1 == 1 {
                check ^= generator;
            }
        }
    }
    (check == 1).then_some("Kaspa")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published addresses: donation addresses of the projects, and examples of the standards.
    const RIGHT: [(&str, &str); 9] = [
        ("Bitcoin", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
        ("Bitcoin", "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"),
        ("Bitcoin", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
        ("Bitcoin", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"),
        (
            "Monero",
            "44AFFq5kSiGBoZ4NMDwYtN18obc8AemS33DBLWs3H7otXft3XjrpDtQGv7SqSsaBYBb98uNbr2VBBEt7f2wfn3RVGQBEP3A",
        ),
        (
            "Monero",
            "888tNkZrPN6JsEgekjMnABU4TBzc2Dt29EPAvkRxbANsAnjyPbb3iQ1YBRk1UXcdRsiKc9dhwMVgN5S9cQUiyoogDavup3H",
        ),
        ("Ethereum", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
        ("Ethereum", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"),
        ("Kaspa", "kaspa:qpauqsvk7yf9unexwmxsnmg547mhyga37csh0kj53q6xxgl24ydxjsgzthw5j"),
    ];

    #[test]
    fn right_ones_are_found_in_text() {
        for (currency, address) in RIGHT {
            let text = format!("\"user\": \"{address}\", -u {address}:x");
            let found = wallets(text.as_bytes());
            assert_eq!(
                found,
                [Wallet { currency: currency.to_owned(), address: address.to_owned() }],
                "{address}"
            );
        }
    }

    #[test]
    fn one_wrong_letter_and_they_are_none() {
        for (_, address) in RIGHT {
            let at = address.len() - 9;
            let letter = address.as_bytes()[at];
            let other = if letter == b'9' { '8' } else { '9' };
            let wrong = format!("{}{other}{}", &address[..at], &address[at + 1..]);
            assert_eq!(wallets(wrong.as_bytes()), [], "{wrong}");
        }
    }

    #[test]
    fn an_address_without_a_checksum_is_not_believed() {
        assert_eq!(wallets(b"0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"), []);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_fatal(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = wallets(&bytes);
        }

        #[test]
        fn no_word_is_fatal(word in "(4|8|bc1|kaspa:|0x|zs1)?[1-9A-Za-z]{20,110}") {
            let _ = wallets(word.as_bytes());
        }
    }
}
