//! Top-level folders that are links, such as `/bin` since the merge into `/usr`.

use std::borrow::Cow;

use crate::path::is_plain;

/// Top-level folders that are links to others. A package may list `/bin/ls` or `/usr/bin/ls`; both are one file, and
/// dpkg does not know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    links: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Aliases {
    /// From the names of links in the root folder and what each points to. A target that leads anywhere but to a plain
    /// path below the root is left out: a path through it stays as it is.
    pub fn new(links: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let mut kept = Vec::new();
        for (name, target) in links {
            let mut absolute = target;
            if absolute.first() != Some(&b'/') {
                absolute.insert(0, b'/');
            }
            while absolute.len() > 1 && absolute.last() == Some(&b'/') {
                absolute.pop();
            }
            if !name.contains(&b'/') && is_plain(&absolute) {
                kept.push((name, absolute));
            }
        }
        kept.sort();
        Self { links: kept }
    }

    /// The path with its top-level folder replaced by what it is a link to.
    pub fn resolve<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(below) = path.strip_prefix(b"/") else { return Cow::Borrowed(path) };
        // A link itself is not replaced: it is what the package brought.
        let Some(end) = below.iter().position(|b| *b == b'/') else { return Cow::Borrowed(path) };
        match self.links.binary_search_by(|(name, _)| name.as_slice().cmp(&below[..end])) {
            Ok(found) => Cow::Owned([self.links[found].1.as_slice(), &below[end..]].concat()),
            Err(_) => Cow::Borrowed(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged() -> Aliases {
        let links: [(&str, &str); 5] =
            [("bin", "usr/bin"), ("lib", "/usr/lib/"), ("evil", "../../etc"), ("self", "."), ("a/b", "usr")];
        Aliases::new(links.map(|(name, target)| (name.into(), target.into())))
    }

    #[test]
    fn both_names_of_a_merged_folder_are_one_path() {
        for (listed, lies) in [
            ("/bin/ls", "/usr/bin/ls"),
            ("/usr/bin/ls", "/usr/bin/ls"),
            ("/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libc.so.6"),
            ("/bin", "/bin"),
            ("/binary/x", "/binary/x"),
            ("/evil/shadow", "/evil/shadow"),
            ("/self/x", "/self/x"),
            ("/a/b/c", "/a/b/c"),
            ("", ""),
            ("/", "/"),
        ] {
            assert_eq!(merged().resolve(listed.as_bytes()), lies.as_bytes(), "{listed}");
        }
    }
}
