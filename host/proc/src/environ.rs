//! Argument vectors and the few environment variables that tell of an attack. Both are arbitrary bytes that the
//! process itself can overwrite.

/// At most so many bytes of an argument vector are kept.
pub(crate) const MAX_ARGS_BYTES: usize = 8192;

/// At most so many arguments are kept.
const MAX_ARGS: usize = 256;

/// At most so many bytes of an environment are searched.
pub(crate) const MAX_ENVIRON: usize = 256 * 1024;

/// At most so many bytes of a variable's value are kept.
const MAX_VALUE: usize = 512;

/// Variables that make a program run code it would not run by itself.
const OF_INTEREST: &[&str] =
    &["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "PYTHONSTARTUP", "NODE_OPTIONS"];

/// The arguments in `/proc/PID/cmdline`, and whether some were cut. `bytes` is read up to one byte more than
/// [`MAX_ARGS_BYTES`], so that a cut shows.
pub(crate) fn args(bytes: &[u8]) -> (Vec<String>, bool) {
    let cut_bytes = bytes.len() > MAX_ARGS_BYTES;
    let bytes = &bytes[..bytes.len().min(MAX_ARGS_BYTES)];
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return (Vec::new(), cut_bytes);
    }
    let mut words = bytes.split(|b| *b == 0);
    let args = words.by_ref().take(MAX_ARGS).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    (args, cut_bytes || words.next().is_some())
}

/// The variables of interest in `/proc/PID/environ`, each once, in the order of the list.
pub(crate) fn of_interest(bytes: &[u8]) -> Vec<(String, String)> {
    let mut found: [Option<&[u8]>; OF_INTEREST.len()] = [None; OF_INTEREST.len()];
    for variable in bytes.split(|b| *b == 0) {
        for (name, place) in OF_INTEREST.iter().zip(&mut found) {
            if place.is_none() {
                *place = variable.strip_prefix(name.as_bytes()).and_then(|v| v.strip_prefix(b"="));
            }
        }
    }
    let kept = |value: &[u8]| String::from_utf8_lossy(&value[..value.len().min(MAX_VALUE)]).into_owned();
    let pairs = OF_INTEREST.iter().zip(found);
    pairs.filter_map(|(name, value)| Some(((*name).to_owned(), kept(value?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arguments_are_split_at_zeros() {
        let strings = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert_eq!(args(b"sh\0-c\0\0x y\0"), (strings(&["sh", "-c", "", "x y"]), false));
        assert_eq!(args(b""), (vec![], false));
        assert_eq!(args(b"nginx: worker"), (strings(&["nginx: worker"]), false));
        assert!(args(&vec![b'a'; MAX_ARGS_BYTES + 1]).1);
        assert!(args(&b"a\0".repeat(MAX_ARGS + 1)).1);
        assert_eq!(args(&b"a\0".repeat(MAX_ARGS)).0.len(), MAX_ARGS);
    }

    #[test]
    fn only_variables_of_interest_are_kept() {
        let environ =
            b"HOME=/root\0LD_PRELOAD=/tmp/x.so\0XLD_AUDIT=no\0LD_AUDITX=no\0BASH_ENV=\0LD_PRELOAD=second\0";
        let found = of_interest(environ);
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(found, vec![pair("LD_PRELOAD", "/tmp/x.so"), pair("BASH_ENV", "")]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let (words, _) = args(&bytes);
            prop_assert!(words.len() <= MAX_ARGS);
            let _ = of_interest(&bytes);
        }
    }
}
