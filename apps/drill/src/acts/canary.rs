//! A process that does nothing but answer, for the agent to freeze, cut off and end.

use std::io::BufRead;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;

use super::{address, stratum};

/// The number of the error for what is not permitted.
const EPERM: i32 = 1;

/// Enters the cgroup (`-` for none) and leaves a process behind that is nobody's child: the agent spares its own children.
pub(super) fn leave(cgroup: &str) -> anyhow::Result<()> {
    if cgroup != "-" {
        std::fs::write(Path::new(cgroup).join("cgroup.procs"), "0")
            .with_context(|| format!("enter the cgroup {cgroup}"))?;
    }
    // A session of its own: the failsafes must not take it for a part of an administrator's.
    let _ = rustix::process::setsid();
    let program = std::env::current_exe().context("find its own program")?;
    let mut command = Command::new(program);
    command.args(["drill-act", "canary-sits"]).env_clear();
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::null());
    command.spawn().context("leave a process behind")?;
    Ok(())
}

/// Answers what it is asked, a line each, until nobody is there to ask. A question is a number and what to do; the answer
/// has the same number.
pub(super) fn sit() -> anyhow::Result<()> {
    println!("ready {}", std::process::id());
    for line in std::io::stdin().lock().lines() {
        let line = line.context("listen to the agent")?;
        let (number, question) = line.split_once(' ').unwrap_or((&line, ""));
        if let Some(to) = question.strip_prefix("point ") {
            println!("{number} {}", pointed(&address(to)?));
            continue;
        }
        match question.strip_prefix("connect ") {
            Some(pool) => match TcpStream::connect_timeout(&address(pool)?, stratum::PATIENCE) {
                Ok(_) => println!("{number} connected"),
                Err(why) => println!("{number} refused {why}"),
            },
            None => println!("{number} here"),
        }
    }
    Ok(())
}

/// What comes of sending nothing, in a datagram that no router passes on. A socket that is only given a destination is not refused.
fn pointed(to: &SocketAddr) -> String {
    let outcome = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.set_ttl(1)?;
        socket.send_to(&[], to).map(drop)
    });
    match outcome {
        Err(why) if why.raw_os_error() == Some(EPERM) => "refused".to_owned(),
        Err(why) => format!("not refused, but {why}"),
        Ok(()) => "not refused".to_owned(),
    }
}
