use sha2::{Digest, Sha256};

/// SHA-256 digests of files that are known to be bad.
#[derive(Clone, Debug, Default)]
pub struct HashList {
    digests: Vec<[u8; 32]>,
}

impl HashList {
    /// Adds a list: a digest in hexadecimal at the beginning of each line, as `sha256sum` writes it. Empty lines and those that
    /// begin with `#` are passed over. Gives the numbers of the lines that are none of these, the first few.
    pub fn add(&mut self, text: &str) -> Vec<usize> {
        const TOLD: usize = 10;
        let mut odd = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let word = line.split_ascii_whitespace().next().unwrap_or("");
            if word.is_empty() || word.starts_with('#') {
                continue;
            }
            match digest(word) {
                Some(digest) => self.digests.push(digest),
                None if odd.len() < TOLD => odd.push(number + 1),
                None => {}
            }
        }
        self.digests.sort_unstable();
        self.digests.dedup();
        odd
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    pub(crate) fn has(&self, digest: &[u8; 32]) -> bool {
        self.digests.binary_search(digest).is_ok()
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(crate) fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(word: &str) -> Option<[u8; 32]> {
    if word.len() != 64 || !word.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (place, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&word[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_as_sha256sum_writes_it_is_read() {
        let text = format!("# known\n\n{}  bad file\nnot a digest\n", hex(&sha256(b"bad")).to_uppercase());
        let mut list = HashList::default();
        assert_eq!(list.add(&text), [4]);
        assert!(list.has(&sha256(b"bad")) && !list.has(&sha256(b"good")) && list.len() == 1);
    }
}
