use std::io;

/// Why the firewall could not be read or changed. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no nftables.
    #[error(
        "this kernel has no nftables (CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET, module nf_tables), so nothing can be closed"
    )]
    Absent,
    /// Not allowed.
    #[error("the firewall can be read and changed with CAP_NET_ADMIN alone")]
    Forbidden,
    /// The kernel refused one part of a change, and with it all of it.
    #[error("nftables refused to {act}: {source}{hint}")]
    Refused {
        /// What was refused, as it follows on "to".
        act: String,
        /// What the kernel said.
        source: io::Error,
        /// What the kernel needs for it, as a part of a sentence; may be empty.
        hint: &'static str,
    },
    /// Talking to the kernel failed.
    #[error("{act}: {source}")]
    Netlink {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was asked for cannot be expressed; a fault of the caller's.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Whether what is missing is a feature of the kernel's, so that trying again makes no sense.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Absent | Self::Forbidden => true,
            Self::Refused { source, .. } => {
                matches!(source.raw_os_error(), Some(code) if code == rustix::io::Errno::OPNOTSUPP.raw_os_error()
                    || code == rustix::io::Errno::NOENT.raw_os_error())
            }
            Self::Netlink { .. } | Self::Invalid(_) => false,
        }
    }
}
