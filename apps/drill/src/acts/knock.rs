//! Somebody outside: a host at the end of a cable, and who looks from there for open ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::{link, namespace};

/// Ports that are tried, above those that the kernel gives to connections: hardly anybody listens there.
const PORTS: std::ops::Range<u16> = 61_000..61_060;

/// How long each is tried, and the pause before the next. A new interface is watched within a second, and the scan goes on longer.
const PATIENCE: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(100);

/// How long a connection may take that is to be made.
const ANSWER: Duration = Duration::from_secs(2);

/// Is that host until the moment given: leaves this network, and lays a cable to that of a process.
pub(super) fn outsider(process: u32, name: &str, address: Ipv4Addr, until: Instant) -> anyhow::Result<()> {
    namespace::leave_network()?;
    link::raise_loopback()?;
    link::lay_cable(name, process)?;
    link::address(name, address)?;
    super::steady();
    while Instant::now() < until {
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Connects once, says what came of it, and stays for a while.
pub(super) fn call(to: SocketAddr, until: Instant) -> anyhow::Result<()> {
    match TcpStream::connect_timeout(&to, ANSWER) {
        Ok(_) => println!("steady connected"),
        Err(why) => println!("steady refused ({why})"),
    }
    while Instant::now() < until {
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Tries one port after the other, and sends nothing to those that are open.
pub(super) fn knock(host: IpAddr, until: Instant) -> anyhow::Result<()> {
    super::steady();
    for port in PORTS {
        if Instant::now() >= until {
            break;
        }
        drop(TcpStream::connect_timeout(&SocketAddr::new(host, port), PATIENCE));
        std::thread::sleep(PAUSE);
    }
    while Instant::now() < until {
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
