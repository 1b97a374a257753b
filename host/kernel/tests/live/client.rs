//! Processes of a test's own, in a cgroup and a network namespace of its own, that connect and send when told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How long a client waits for the other end.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A process of this test program. The program has a test of the name `client` that calls [`serve`] or [`answer`].
pub struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    pub fn start(cgroup: Option<&Path>) -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()), cgroup)
    }

    /// Starts one in a network namespace that ip-netns(8) knows.
    pub fn start_in(namespace: &str, cgroup: Option<&Path>) -> Self {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg(std::env::current_exe().unwrap());
        Self::start_by(command, cgroup)
    }

    /// Starts one in a network namespace of its own, which this line of a shell prepares.
    pub fn start_alone(prepare: &str, cgroup: Option<&Path>) -> Self {
        let mut command = Command::new("unshare");
        let line = format!("{prepare} && exec \"$0\" \"$@\"");
        command.args(["--net", "--", "/bin/sh", "-c"]).arg(line).arg(std::env::current_exe().unwrap());
        Self::start_by(command, cgroup)
    }

    fn start_by(mut command: Command, cgroup: Option<&Path>) -> Self {
        let mut child = command
            .args(["--exact", "client", "--ignored", "--nocapture", "--test-threads=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if let Some(cgroup) = cgroup {
            std::fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// Has it do something, and gives what came of it: for [`serve`] `connect ADDRESS`, `send TEXT` on that connection,
    /// `receive` what came on it, `datagram ADDRESS`, `listen ADDRESS`. The answer is `ok`, an error number, `timeout`, or what
    /// was received.
    pub fn ask(&mut self, what: &str) -> String {
        writeln!(self.input, "{what}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the client has ended");
            if let Some(answer) = line.split_once("answer ").map(|(_, answer)| answer.trim()) {
                return answer.to_owned();
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves a [`Client`].
pub fn serve() {
    let mut held = Held::default();
    answer(|line| {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        held.act(verb, rest)
    });
}

/// Serves a [`Client`] by these acts. Ends with its input, or after a minute.
pub fn answer(mut act: impl FnMut(&str) -> std::io::Result<String>) {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(60));
        std::process::exit(1);
    });
    for line in std::io::stdin().lines() {
        let answer = act(&line.unwrap()).unwrap_or_else(|error| match error.raw_os_error() {
            Some(number) if error.kind() != std::io::ErrorKind::WouldBlock => number.to_string(),
            Some(_) => "timeout".to_owned(),
            None if error.kind() == std::io::ErrorKind::TimedOut => "timeout".to_owned(),
            None => error.to_string(),
        });
        println!("answer {answer}");
    }
}

/// What a client holds open.
#[derive(Default)]
struct Held {
    living: Option<TcpStream>,
    listening: Vec<TcpListener>,
}

impl Held {
    fn act(&mut self, verb: &str, rest: &str) -> std::io::Result<String> {
        let address = || rest.parse::<SocketAddr>().map_err(std::io::Error::other);
        match verb {
            "connect" => {
                let stream = TcpStream::connect_timeout(&address()?, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                self.living = Some(stream);
            }
            "send" => self.living.as_mut().map_or(Ok(()), |stream| stream.write_all(rest.as_bytes()))?,
            "receive" => {
                let mut buffer = [0; 64];
                let read = self.living.as_mut().map_or(Ok(0), |stream| stream.read(&mut buffer))?;
                return Ok(String::from_utf8_lossy(&buffer[..read]).into_owned());
            }
            "datagram" => {
                let to = address()?;
                let any: SocketAddr = match to {
                    SocketAddr::V4(_) => ([0; 4], 0).into(),
                    SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
                };
                UdpSocket::bind(any)?.send_to(b"x", to)?;
            }
            "listen" => {
                let listener = TcpListener::bind(address()?)?;
                let accepting = listener.try_clone()?;
                // Whoever comes gets back what they send.
                std::thread::spawn(move || {
                    for stream in accepting.incoming().flatten() {
                        std::thread::spawn(move || {
                            let mut echo = stream.try_clone()?;
                            std::io::copy(&mut &stream, &mut echo)
                        });
                    }
                });
                self.listening.push(listener);
            }
            _ => {}
        }
        Ok("ok".to_owned())
    }
}
