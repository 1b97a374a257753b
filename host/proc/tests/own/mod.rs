//! What tests make for themselves: processes, namespaces, connections.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use davy_model::FlowKey;

/// A process of ours that is ended whatever happens.
pub(crate) struct Own(pub(crate) Child);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn shell(script: &str) -> Own {
    let child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    Own(child.unwrap())
}

/// Runs one ignored test of this file in namespaces of its own; `None` without the right to make them.
pub(crate) fn inside(namespaces: &[&str], test: &str) -> Option<Own> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: making namespaces needs root");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(namespaces).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    Some(Own(child.unwrap()))
}

/// Asks again until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn line_with(own: &mut Own, word: &str) -> String {
    let reader = BufReader::new(own.0.stdout.as_mut().unwrap());
    reader.lines().map(Result::unwrap).find(|line| line.contains(word)).unwrap()
}

/// A connection over loopback: its listener, its two ends, and their cookies.
pub(crate) fn connection() -> (TcpListener, TcpStream, TcpStream, FlowKey) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    let cookie = FlowKey(rustix::net::sockopt::socket_cookie(&client).unwrap());
    (listener, client, server, cookie)
}
