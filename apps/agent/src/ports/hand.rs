//! The kernel's side of closed ports.

use std::net::IpAddr;
use std::time::Duration;

use davy_firewall::{Error, Ports, Refused, Standing};
use davy_model::Door;

/// The kernel's side; a test has one of its own.
pub(super) trait Hand: Send {
    fn close(&mut self, doors: &[Door], spared: &[IpAddr], lease: Option<Duration>) -> Result<(), Error>;
    fn renew(&mut self, lease: Option<Duration>) -> Result<(), Error>;
    fn spare(&mut self, administrators: &[IpAddr]) -> Result<(), Error>;
    /// Says whether anything was there.
    fn remove(&mut self) -> Result<bool, Error>;
    fn generation(&mut self) -> Result<u32, Error>;
    fn standing(&mut self) -> Result<Standing, Error>;
    fn refused(&mut self) -> Result<Vec<Refused>, Error>;
}

/// nftables in the agent's own network namespace, spoken to from the first time on that there is something to say.
#[derive(Debug, Default)]
pub(super) struct Nftables(Option<Ports>);

impl Nftables {
    fn ports(&mut self) -> Result<&Ports, Error> {
        match &mut self.0 {
            Some(ports) => Ok(ports),
            none => Ok(none.insert(Ports::open()?)),
        }
    }
}

impl Hand for Nftables {
    fn close(&mut self, doors: &[Door], spared: &[IpAddr], lease: Option<Duration>) -> Result<(), Error> {
        self.ports()?.close_all_but(doors, spared, lease)
    }

    fn renew(&mut self, lease: Option<Duration>) -> Result<(), Error> {
        self.ports()?.renew(lease)
    }

    fn spare(&mut self, administrators: &[IpAddr]) -> Result<(), Error> {
        self.ports()?.spare(administrators)
    }

    fn remove(&mut self) -> Result<bool, Error> {
        self.ports()?.remove()
    }

    fn generation(&mut self) -> Result<u32, Error> {
        self.ports()?.generation()
    }

    fn standing(&mut self) -> Result<Standing, Error> {
        self.ports()?.standing()
    }

    fn refused(&mut self) -> Result<Vec<Refused>, Error> {
        self.ports()?.refused()
    }
}
