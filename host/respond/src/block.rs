use davy_model::Destination;

/// How flows are cut on this host. The agent implements it over whatever tier it has.
pub trait Block: Send + Sync {
    /// Lets nothing through to the destination for `seconds`, or until [`Block::unblock`] when `None`.
    /// Blocking what is blocked already renews the time.
    ///
    /// # Errors
    /// Why the host cannot block, in plain words.
    fn block(&self, destination: Destination, seconds: Option<u32>) -> Result<(), String>;

    /// Lets traffic through again. Unblocking what is not blocked succeeds.
    ///
    /// # Errors
    /// Why it is still blocked, in plain words.
    fn unblock(&self, destination: Destination) -> Result<(), String>;

    /// Ends the living sockets to the destination and says how many they were.
    ///
    /// # Errors
    /// Why the host cannot end sockets, in plain words.
    fn destroy(&self, destination: Destination) -> Result<u32, String>;
}
