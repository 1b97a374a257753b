//! What the kernel and the file itself say of a file's integrity: its fs-verity digest, and IMA's attribute.

#![allow(unsafe_code)]

use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::{fs::fgetxattr, io::Errno};

/// `FS_IOC_MEASURE_VERITY` of linux/fsverity.h.
const FS_IOC_MEASURE_VERITY: libc::Ioctl = 0xc004_6686_u32 as libc::Ioctl;

/// The longest digest that the kernel knows, in bytes.
const LONGEST: usize = 64;

/// The longest attribute that is read, in bytes: a signature by an RSA key of 8192 bits has 1033.
const LONGEST_ATTRIBUTE: usize = 4096;

/// `struct fsverity_digest` with room for any digest.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; LONGEST],
}

/// The digest of a file that is under fs-verity: the kernel checks every byte against it that anybody reads, and nobody can
/// change the file any more. It is no digest of the content alone, but of a tree of digests and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerityDigest {
    /// `sha256`, `sha512`, or the number of linux/fsverity.h.
    pub algorithm: String,
    /// The digest.
    pub digest: Vec<u8>,
}

impl VerityDigest {
    /// Of an open file; `None` for one that is not under fs-verity, or where the file system or the kernel does not know it.
    ///
    /// # Errors
    /// When the kernel cannot tell.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        let mut measured = Measured { algorithm: 0, size: LONGEST as u16, digest: [0; LONGEST] };
        // SAFETY: the kernel writes at most `size` bytes behind the two numbers, and there are as many.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_MEASURE_VERITY, &raw mut measured) };
        if done < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENODATA | libc::ENOTTY | libc::EOPNOTSUPP) => Ok(None),
                _ => Err(error),
            };
        }
        let algorithm = match measured.algorithm {
            1 => "sha256".to_owned(),
            2 => "sha512".to_owned(),
            other => other.to_string(),
        };
        let digest = measured.digest[..usize::from(measured.size).min(LONGEST)].to_vec();
        Ok(Some(Self { algorithm, digest }))
    }
}

impl fmt::Display for VerityDigest {
    /// As fsverity(1) writes it: `sha256:…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm)?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes of `security.ima`, as whoever signed the file wrote them; `None` where there are none.
///
/// # Errors
/// When it cannot be read, or is longer than any signature.
pub fn ima_attribute(file: impl AsFd) -> io::Result<Option<Vec<u8>>> {
    let mut attribute = vec![0; LONGEST_ATTRIBUTE];
    match fgetxattr(file, "security.ima", &mut attribute[..]) {
        Ok(length) => {
            attribute.truncate(length);
            Ok(Some(attribute))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_without_either_has_neither() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(VerityDigest::of(&file).unwrap(), None);
        assert_eq!(ima_attribute(&file).unwrap(), None);
    }

    #[test]
    fn it_is_written_as_fsverity_writes_it() {
        let digest = VerityDigest { algorithm: "sha256".to_owned(), digest: vec![0, 0xab] };
        assert_eq!(digest.to_string(), "sha256:00ab");
    }
}
