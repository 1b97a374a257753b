//! Loads whose cost is all in what Davy watches, and one that is like a day's work.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tempfile::TempDir;

/// One load.
pub(crate) struct Load {
    /// What it is called in the tables.
    pub(crate) name: &'static str,
    /// The ratio that it should stay below with Davy running.
    pub(crate) goal: f64,
    /// Runs it once and tells how long it took.
    pub(crate) run: fn(&Workshop) -> Result<Duration>,
}

/// All loads.
pub(crate) const LOADS: [Load; 5] = [
    Load { name: "fork+exec+exit", goal: 1.03, run: exec },
    Load { name: "TCP connect+close", goal: 1.05, run: tcp },
    Load { name: "UDP connect+send+close", goal: 1.2, run: udp },
    Load { name: "open+close", goal: 1.05, run: open },
    Load { name: "build (cc, 24 files)", goal: 1.01, run: build },
];

const EXECS: u32 = 800;
const CONNECTS: u32 = 8_000;
const DATAGRAMS: u32 = 40_000;
const OPENS: u32 = 300_000;
const SOURCES: u32 = 24;

/// Where loads keep what they work on.
pub(crate) struct Workshop {
    folder: TempDir,
    ends: Ends,
}

/// The far ends of connections. Whoever connects to them takes them in as well, so that nobody waits for a second process.
pub(crate) struct Ends {
    listener: TcpListener,
    receiver: UdpSocket,
}

impl Ends {
    /// Opens them at an address of the network namespace of the calling thread. They stay there when the thread leaves it.
    pub(crate) fn open(at: Ipv4Addr) -> Result<Self> {
        Ok(Self { listener: TcpListener::bind((at, 0))?, receiver: UdpSocket::bind((at, 0))? })
    }

    /// Connects over TCP and closes, so many times.
    pub(crate) fn connect(&self, times: u32) -> Result<Duration> {
        let address = self.listener.local_addr()?;
        let begin = Instant::now();
        for _ in 0..times {
            let client = TcpStream::connect(address)?;
            drop(self.listener.accept()?);
            drop(client);
        }
        Ok(begin.elapsed())
    }

    /// Sends one datagram from each of so many new sockets.
    pub(crate) fn send(&self, times: u32) -> Result<Duration> {
        let address = self.receiver.local_addr()?;
        let mut buffer = [0; 8];
        let begin = Instant::now();
        for _ in 0..times {
            let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            sender.connect(address)?;
            sender.send(b"datagram")?;
            self.receiver.recv(&mut buffer)?;
        }
        Ok(begin.elapsed())
    }
}

impl Workshop {
    /// Writes the sources that are compiled, and opens the near ends of connections.
    pub(crate) fn open() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for number in 0..SOURCES {
            fs::write(folder.path().join(format!("part{number}.c")), source(number))?;
        }
        fs::write(folder.path().join("plain"), "text")?;
        Ok(Self { folder, ends: Ends::open(Ipv4Addr::LOCALHOST)? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A file of C that keeps a compiler busy for a few hundredths of a second.
fn source(number: u32) -> String {
    let mut text = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    for function in 0..60 {
        text.push_str(&format!(
            "static int f{number}_{function}(int n, const char *s) {{\n    int sum = {function};\n    \
             for (int i = 0; i < n; i++) sum += s[i % (int)strlen(s)] * i ^ {number};\n    return sum;\n}}\n"
        ));
    }
    text.push_str(&format!("int part{number}(int n) {{\n    int sum = 0;\n"));
    for function in 0..60 {
        text.push_str(&format!("    sum += f{number}_{function}(n, \"part {function}\");\n"));
    }
    text.push_str("    return sum;\n}\n");
    text
}

fn exec(_: &Workshop) -> Result<Duration> {
    let begin = Instant::now();
    for _ in 0..EXECS {
        ensure!(Command::new("/bin/true").status()?.success(), "/bin/true failed");
    }
    Ok(begin.elapsed())
}

fn tcp(workshop: &Workshop) -> Result<Duration> {
    workshop.ends.connect(CONNECTS)
}

fn udp(workshop: &Workshop) -> Result<Duration> {
    workshop.ends.send(DATAGRAMS)
}

fn open(workshop: &Workshop) -> Result<Duration> {
    let path = workshop.path("plain");
    let begin = Instant::now();
    for _ in 0..OPENS {
        drop(File::open(&path)?);
    }
    Ok(begin.elapsed())
}

fn build(workshop: &Workshop) -> Result<Duration> {
    let begin = Instant::now();
    for number in 0..SOURCES {
        let status = Command::new("cc")
            .args(["-O1", "-c", "-o"])
            .arg(workshop.path(&format!("part{number}.o")))
            .arg(workshop.path(&format!("part{number}.c")))
            .stdin(Stdio::null())
            .status()?;
        ensure!(status.success(), "cc failed on part{number}.c");
    }
    Ok(begin.elapsed())
}
