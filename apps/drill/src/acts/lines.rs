//! One JSON text a line, over a connection in the clear or in TLS.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// The longest line that is taken, in bytes.
const MAX_LINE: usize = 4096;

/// How long the other end may take to take a line.
const PATIENCE: Duration = Duration::from_secs(2);

/// What can be read from and written to.
pub(super) trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A line.
    Line(Vec<u8>),
    /// Nothing whole in the time given.
    Nothing,
    /// The other end hung up.
    Closed,
}

/// A connection that lines go over.
pub(super) struct Lines {
    stream: BufReader<Box<dyn Duplex>>,
    socket: TcpStream,
    partial: Vec<u8>,
}

impl Lines {
    /// Lines in the clear.
    pub(super) fn clear(socket: TcpStream) -> io::Result<Self> {
        Self::over(Box::new(socket.try_clone()?), socket)
    }

    /// Lines over what wraps the socket.
    pub(super) fn over(stream: Box<dyn Duplex>, socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), socket, partial: Vec::new() })
    }

    /// Sends one line, in one piece: its size is what others see of it.
    pub(super) fn send(&mut self, text: &Value) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{text}\n").as_bytes())?;
        stream.flush()
    }

    /// Waits for the next line.
    ///
    /// # Errors
    /// What the connection says, or a line that is longer than anyone honest sends.
    pub(super) fn receive(&mut self, patience: Duration) -> io::Result<Received> {
        self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        let room = (MAX_LINE - self.partial.len()) as u64;
        match self.stream.by_ref().take(room).read_until(b'\n', &mut self.partial) {
            Ok(_) if self.partial.ends_with(b"\n") => Ok(Received::Line(std::mem::take(&mut self.partial))),
            Ok(_) if self.partial.len() >= MAX_LINE => Err(io::ErrorKind::InvalidData.into()),
            Ok(_) => Ok(Received::Closed),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(Received::Nothing)
            }
            // Those who end without a farewell have hung up too.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Received::Closed),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_line_in_pieces_is_one_and_a_line_without_end_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut lines = Lines::clear(listener.accept().unwrap().0).unwrap();
        let soon = Duration::from_millis(20);
        other.write_all(b"[1,").unwrap();
        assert_eq!(lines.receive(soon).unwrap(), Received::Nothing);
        other.write_all(b"2]\n[3").unwrap();
        assert_eq!(lines.receive(soon).unwrap(), Received::Line(b"[1,2]\n".to_vec()));
        assert_eq!(lines.receive(soon).unwrap(), Received::Nothing);
        other.write_all(&[b'x'; MAX_LINE]).unwrap();
        assert!((0..50).any(|_| lines.receive(soon).is_err()));
        drop(other);
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut lines = Lines::clear(listener.accept().unwrap().0).unwrap();
        drop(other);
        assert_eq!(lines.receive(Duration::from_secs(1)).unwrap(), Received::Closed);
    }
}
