//! Paths as databases give them.

/// Whether this is an absolute path of a file, without a component that leads elsewhere and without NUL.
pub(crate) fn is_plain(path: &[u8]) -> bool {
    path.len() > 1
        && path[0] == b'/'
        && !path.contains(&0)
        && path[1..].split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}
