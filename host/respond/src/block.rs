use std::net::IpAddr;

use davy_model::{Destination, Prefix};

/// How flows are cut on this host. The agent implements it over whatever tier it has.
pub trait Block: Send + Sync {
    /// Lets nothing through to the destination for `seconds`, or until [`Block::unblock`] when `None`: nothing of a cgroup v2 subtree
    /// below the mount, or of all that this block reaches.
    /// Blocking what is blocked already renews the time.
    ///
    /// # Errors
    /// Why the host cannot block, in plain words.
    fn block(
        &self,
        destination: Destination,
        cgroup: Option<&str>,
        seconds: Option<u32>,
    ) -> Result<(), String>;

    /// Lets traffic through again for whom it was blocked, and for everybody without a cgroup. Unblocking what is not blocked succeeds.
    ///
    /// # Errors
    /// Why it is still blocked, in plain words.
    fn unblock(&self, destination: Destination, cgroup: Option<&str>) -> Result<(), String>;

    /// Ends the living sockets of a cgroup's subtree, or of all that this block reaches, to the destination and says how many they were.
    ///
    /// # Errors
    /// Why the host cannot end sockets, in plain words.
    fn destroy(&self, destination: Destination, cgroup: Option<&str>) -> Result<u32, String>;

    /// Lets nothing out of a scope and nobody in for a time, but for what stays. Isolating what is isolated already renews
    /// the time.
    ///
    /// # Errors
    /// Why the host cannot isolate, in plain words; nothing is isolated then.
    fn isolate(&self, _isolation: &Isolation) -> Result<(), String> {
        Err("nothing on this host can isolate".to_owned())
    }

    /// Ends the isolation of a cgroup v2 subtree, or of the whole host. Ending one that does not hold succeeds.
    ///
    /// # Errors
    /// Why it still holds, in plain words.
    fn rejoin(&self, _cgroup: Option<&str>) -> Result<(), String> {
        Ok(())
    }
}

/// An isolation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// The cgroup v2 subtree that is cut off, below the mount; `None` for the whole host.
    pub cgroup: Option<String>,
    /// TCP sessions that stay, and new ones like them: the other end's address, and this host's port.
    pub sessions: Vec<(IpAddr, u16)>,
    /// Networks that stay.
    pub networks: Vec<Prefix>,
    /// For how many seconds.
    pub seconds: u32,
    /// Whether a cgroup that is not there is isolated when it appears, as one is whose service starts later than the agent.
    pub later: bool,
}
