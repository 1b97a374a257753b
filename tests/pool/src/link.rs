use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use tungstenite::{HandshakeError, Message, WebSocket};

use crate::tls;

/// The longest line taken from a peer, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How lines travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Inside TLS, with a certificate that nobody signed.
    pub tls: bool,
    /// As WebSocket text messages (RFC 6455), each one line.
    pub websocket: bool,
}

impl Wire {
    /// Lines in the clear over TCP.
    pub const CLEAR: Self = Self { tls: false, websocket: false };
    /// Lines in TLS.
    pub const TLS: Self = Self { tls: true, websocket: false };
}

/// What came from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A line, without its end.
    Line(String),
    /// Nothing within the wait.
    Nothing,
    /// The peer is gone.
    Closed,
}

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

enum Channel {
    Lines { stream: Box<dyn Duplex>, pending: Vec<u8> },
    Messages(Box<WebSocket<Box<dyn Duplex>>>),
}

/// A connection that carries lines of text both ways.
pub struct Link {
    socket: TcpStream,
    channel: Channel,
}

impl Link {
    /// Dials `address`.
    ///
    /// # Errors
    /// When no one answers, or a handshake fails.
    pub fn dial(address: SocketAddr, wire: Wire) -> Result<Self> {
        let socket =
            TcpStream::connect_timeout(&address, HANDSHAKE).with_context(|| format!("dial {address}"))?;
        let (socket, held) = prepared(socket)?;
        let stream: Box<dyn Duplex> = if wire.tls {
            let name = ServerName::from(address.ip());
            let client = ClientConnection::new(tls::trusting()?, name)?;
            Box::new(StreamOwned::new(client, socket))
        } else {
            Box::new(socket)
        };
        let channel = if wire.websocket {
            let url = format!("ws://{address}/");
            let (messages, _) = tungstenite::client(url, stream).map_err(said).context("open a WebSocket")?;
            Channel::Messages(Box::new(messages))
        } else {
            Channel::Lines { stream, pending: Vec::new() }
        };
        Ok(Self { socket: held, channel })
    }

    /// Answers a connection that a listener took.
    ///
    /// # Errors
    /// When a handshake fails.
    pub fn answer(socket: TcpStream, wire: Wire, certificate: Option<&Arc<ServerConfig>>) -> Result<Self> {
        let (socket, held) = prepared(socket)?;
        let stream: Box<dyn Duplex> = match (wire.tls, certificate) {
            (true, Some(config)) => {
                Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(config))?, socket))
            }
            (true, None) => bail!("TLS needs a certificate"),
            (false, _) => Box::new(socket),
        };
        let channel = if wire.websocket {
            Channel::Messages(Box::new(
                tungstenite::accept(stream).map_err(said).context("answer a WebSocket")?,
            ))
        } else {
            Channel::Lines { stream, pending: Vec::new() }
        };
        Ok(Self { socket: held, channel })
    }

    /// Sends one line.
    ///
    /// # Errors
    /// When the peer is gone.
    pub fn send(&mut self, line: &str) -> io::Result<()> {
        match &mut self.channel {
            Channel::Lines { stream, .. } => {
                // One write, so that a line is one segment and one TLS record, as real pools and miners send it.
                let mut bytes = Vec::with_capacity(line.len() + 1);
                bytes.extend_from_slice(line.as_bytes());
                bytes.push(b'\n');
                stream.write_all(&bytes)?;
                stream.flush()
            }
            Channel::Messages(messages) => messages.send(Message::text(line)).map_err(io::Error::other),
        }
    }

    /// Waits for a line, at most so long.
    ///
    /// # Errors
    /// When the peer breaks the protocol or sends a line beyond 64 KiB.
    pub fn receive(&mut self, wait: Duration) -> io::Result<Received> {
        let deadline = Instant::now() + wait;
        loop {
            if let Channel::Lines { pending, .. } = &mut self.channel
                && let Some(line) = take_line(pending)?
            {
                return Ok(Received::Line(line));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Received::Nothing);
            }
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match &mut self.channel {
                Channel::Lines { stream, pending } => {
                    let mut chunk = [0_u8; 4096];
                    match stream.read(&mut chunk) {
                        Ok(0) => return Ok(Received::Closed),
                        Ok(n) => pending.extend_from_slice(&chunk[..n]),
                        Err(e) if waited_in_vain(&e) => {}
                        Err(e) if gone(&e) => return Ok(Received::Closed),
                        Err(e) => return Err(e),
                    }
                }
                Channel::Messages(messages) => match messages.read() {
                    Ok(Message::Text(text)) => return Ok(Received::Line(text.trim_end().to_owned())),
                    Ok(Message::Close(_)) => return Ok(Received::Closed),
                    Ok(_) => {}
                    Err(tungstenite::Error::Io(e)) if waited_in_vain(&e) => {}
                    Err(tungstenite::Error::Io(e)) if !gone(&e) => return Err(e),
                    Err(_) => return Ok(Received::Closed),
                },
            }
        }
    }

    /// Ends the connection.
    pub fn close(&self) {
        // An error means that the peer was faster.
        drop(self.socket.shutdown(Shutdown::Both));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

fn prepared(socket: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(HANDSHAKE))?;
    socket.set_write_timeout(Some(HANDSHAKE))?;
    let held = socket.try_clone()?;
    Ok((socket, held))
}

/// A handshake's error without the half-made connection in it, which cannot be sent across threads.
fn said<R: tungstenite::handshake::HandshakeRole>(error: HandshakeError<R>) -> anyhow::Error {
    match error {
        HandshakeError::Interrupted(_) => anyhow::anyhow!("the handshake took too long"),
        HandshakeError::Failure(reason) => anyhow::anyhow!(reason.to_string()),
    }
}

fn take_line(pending: &mut Vec<u8>) -> io::Result<Option<String>> {
    let Some(end) = pending.iter().position(|b| *b == b'\n') else {
        if pending.len() > MAX_LINE {
            return Err(io::Error::new(ErrorKind::InvalidData, "line longer than 64 KiB"));
        }
        return Ok(None);
    };
    let line: Vec<u8> = pending.drain(..=end).collect();
    String::from_utf8(line)
        .map(|text| Some(text.trim_end().to_owned()))
        .map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
}

fn waited_in_vain(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
    )
}
