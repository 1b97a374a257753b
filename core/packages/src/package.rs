//! Packages, and the files they brought.

use std::fmt;

/// A package as it is installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Package {
    /// Its name, without the architecture.
    pub name: String,
    /// Its version as the package manager prints it: `[EPOCH:]VERSION[-REVISION]`.
    pub version: String,
    /// The architecture it is built for, such as `amd64`, `all`, `x86_64` or `noarch`.
    pub architecture: String,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.version, self.architecture)
    }
}

/// What a database says the content of a file is.
///
/// MD5 is what dpkg keeps. Two files of one MD5 can be made by whoever makes both, so it vouches only for content that
/// the package's author did not mean to be ambiguous; a file that fits the MD5 of another author's is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileDigest {
    /// MD5, of dpkg and of old packages of rpm.
    Md5([u8; 16]),
    /// SHA-256, of rpm.
    Sha256([u8; 32]),
    /// SHA-512, of packages for rpm that were built so.
    Sha512([u8; 64]),
    /// The file is the database's own, kept beside its digests, and nothing else tells what it should be: dpkg's maintainer
    /// scripts. Whoever can change it can change the digests.
    Own,
}

impl FileDigest {
    /// An MD5 in 32 hexadecimal digits.
    pub(crate) fn md5(digits: &[u8]) -> Option<[u8; 16]> {
        let mut digest = [0; 16];
        hex::decode_to_slice(digits, &mut digest).ok()?;
        Some(digest)
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md5(digest) => write!(f, "md5:{}", hex::encode(digest)),
            Self::Sha256(digest) => write!(f, "sha256:{}", hex::encode(digest)),
            Self::Sha512(digest) => write!(f, "sha512:{}", hex::encode(digest)),
            Self::Own => f.write_str("the database's own"),
        }
    }
}

/// A file that a package brought. For dpkg it may as well be a folder or a link: its database does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackagedFile {
    /// Where it lies in the file system: absolute, after diversions, and after the links that replaced top-level folders.
    pub path: Vec<u8>,
    /// What the database says its content is, if it does.
    pub digest: Option<FileDigest>,
    /// Whether it is configuration, which administrators change.
    pub conffile: bool,
}
