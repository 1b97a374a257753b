use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use clamav_client::{Socket, clean, ping, scan_file};

/// ClamAV's daemon, asked for a second opinion.
#[derive(Clone, Debug)]
pub struct Clamd {
    socket: PathBuf,
}

impl Clamd {
    /// The daemon at this socket.
    ///
    /// # Errors
    /// When it does not answer there.
    pub fn at(socket: PathBuf) -> io::Result<Self> {
        let answer = ping(Socket { socket_path: &socket })?;
        if answer.starts_with(b"PONG") { Ok(Self { socket }) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// What it calls the file, when it finds something.
    pub(crate) fn ask(&self, file: &File) -> io::Result<Option<String>> {
        // By the open file and not by its name, which may lead elsewhere by now.
        let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
        let answer = scan_file(itself, Socket { socket_path: &self.socket }, None)?;
        if clean(&answer).map_err(io::Error::other)? {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&answer);
        let said = text.trim_matches(['\0', '\n', ' ']).trim_start_matches("stream: ");
        match said.strip_suffix(" FOUND") {
            Some(name) => Ok(Some(name.to_owned())),
            None => Err(io::Error::other(format!("clamd says: {said}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A daemon that answers a ping, and then each stream in turn, as clamd(8) words it.
    fn daemon(folder: &std::path::Path, answers: Vec<&'static str>) -> PathBuf {
        let socket = folder.join("clamd.ctl");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for answer in std::iter::once("PONG\0").chain(answers) {
                let (mut client, _) = listener.accept().unwrap();
                // A command ends with a zero; a stream is pieces with their lengths, the last of length zero.
                let mut byte = [1];
                while byte != [0] {
                    client.read_exact(&mut byte).unwrap();
                }
                let mut left = if answer.starts_with("PONG") { 0 } else { u32::MAX };
                while left > 0 {
                    let mut length = [0; 4];
                    client.read_exact(&mut length).unwrap();
                    left = u32::from_be_bytes(length);
                    std::io::copy(&mut (&client).take(left.into()), &mut std::io::sink()).unwrap();
                }
                client.write_all(answer.as_bytes()).unwrap();
            }
        });
        socket
    }

    #[test]
    fn its_answers_are_understood() {
        let folder = tempfile::tempdir().unwrap();
        let socket = daemon(
            folder.path(),
            vec!["stream: OK\0", "stream: Unix.Miner-1 FOUND\0", "INSTREAM size limit exceeded. ERROR\0"],
        );
        let clamd = Clamd::at(socket).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"bytes").unwrap();
        assert_eq!(clamd.ask(&file).unwrap(), None);
        assert_eq!(clamd.ask(&file).unwrap().as_deref(), Some("Unix.Miner-1"));
        assert!(clamd.ask(&file).is_err());
    }

    #[test]
    fn nobody_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Clamd::at(folder.path().join("none")).is_err());
    }
}
