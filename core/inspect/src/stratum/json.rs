//! A tolerant reading of JSON text: the keys and strings in the order they come, from whole or cut input.
//!
//! Only the beginning of a stream is kept, so its last message is usually cut; and miners and pools take liberties with JSON.
//! So nothing is validated: what looks like a key or a string is given out, and everything else is skipped.

/// A word of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// A string that a colon follows.
    Key(&'a [u8]),
    /// Any other string.
    Text(&'a [u8]),
    /// `true`.
    True,
}

/// The words of a text. Escapes are left as they are, a string without its closing quote is not given.
pub fn words(input: &[u8]) -> impl Iterator<Item = Word<'_>> {
    let mut rest = input;
    std::iter::from_fn(move || {
        loop {
            let (first, tail) = rest.split_first()?;
            match first {
                b'"' => {
                    let end = string_end(tail)?;
                    let text = &tail[..end];
                    rest = &tail[end + 1..];
                    let after = rest.iter().find(|b| !b.is_ascii_whitespace());
                    return Some(if after == Some(&b':') { Word::Key(text) } else { Word::Text(text) });
                }
                b't' if rest.starts_with(b"true") => {
                    rest = &rest[4..];
                    return Some(Word::True);
                }
                _ => rest = tail,
            }
        }
    })
}

/// Where a string ends whose opening quote is past; escapes are stepped over.
fn string_end(bytes: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(i),
            _ => {}
        }
    }
    None
}
