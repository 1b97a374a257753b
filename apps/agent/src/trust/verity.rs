//! Files that a manifest lists by their fs-verity digest.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use davy_files::VerityDigest;
use davy_model::{Sha256, Timestamp};
use davy_trust::host::digest_of;
use rustix::fs::OFlags;

use super::TrustDesk;

impl TrustDesk {
    /// Has a manifest vouch for this content, when the file at the path has it, is under fs-verity, and is listed. Says whether.
    ///
    /// The digest of fs-verity is measured and the content read through one opening, and such a file never changes: whatever
    /// else lay at the path when the code was seen, both are of the same bytes.
    pub(crate) fn look_for_verity(&self, path: &str, digest: Sha256, now: Timestamp) -> bool {
        if !self.lists_verity() {
            return false;
        }
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return false };
        let Ok(Some(measured)) = VerityDigest::of(&file) else { return false };
        self.vouch_by_verity(&measured.to_string(), || digest_of(&file).ok(), digest, now)
    }

    /// What a manifest says of an fs-verity digest holds for the content that the file has.
    pub(super) fn vouch_by_verity(
        &self,
        measured: &str,
        content: impl FnOnce() -> Option<Sha256>,
        digest: Sha256,
        now: Timestamp,
    ) -> bool {
        let Some(voucher) = self.listed_by_verity(measured) else { return false };
        content() == Some(digest) && self.vouch(digest, voucher, now)
    }
}
