//! The two control sockets: one answers questions, one takes commands from root alone.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use davy_wire::{Command, ErrorCode, MAX_LINE, Query, Reply, Request, RequestBody, VERSION};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};

use crate::Paths;

/// The most clients served at once on both sockets together. One more is told so and hung up on.
const MAX_CLIENTS: usize = 64;

/// A request line is never long; only replies are.
const MAX_REQUEST: usize = 64 * 1024;

/// How long a client may take to send its request, or to take a reply.
const PATIENCE: Duration = Duration::from_secs(30);

/// What answers the sockets' clients.
pub(crate) trait Answer: Send + Sync + 'static {
    /// Answers a question by sending replies; the last one is not [`Reply::End`], which the socket adds.
    fn query(&self, query: Query, client: &mut Client) -> impl Future<Output = Result<(), Hangup>> + Send;
    /// Carries out a command.
    fn command(&self, command: Command, by: Option<u32>) -> impl Future<Output = Reply> + Send;
}

/// The client went away, or takes nothing any more.
#[derive(Debug)]
pub(crate) struct Hangup;

/// The sending half of a client.
#[derive(Debug)]
pub(crate) struct Client {
    write: OwnedWriteHalf,
}

impl Client {
    /// Sends one reply.
    pub(crate) async fn send(&mut self, reply: &Reply) -> Result<(), Hangup> {
        let mut line = serde_json::to_vec(reply).map_err(|_| Hangup)?;
        if line.len() > MAX_LINE {
            line = serde_json::to_vec(&error(ErrorCode::Failed, "the answer is too long for one line"))
                .map_err(|_| Hangup)?;
        }
        line.push(b'\n');
        match tokio::time::timeout(PATIENCE, self.write.write_all(&line)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Hangup),
        }
    }
}

/// An error reply.
pub(crate) fn error(code: ErrorCode, message: impl Into<String>) -> Reply {
    Reply::Error { code, message: message.into() }
}

/// The listening sockets; their files go away when it is dropped.
#[derive(Debug)]
pub(crate) struct Sockets {
    read: UnixListener,
    control: UnixListener,
    files: [PathBuf; 2],
}

impl Sockets {
    /// Binds both sockets, replacing what a dead agent left (the instance lock proves that it is dead).
    ///
    /// # Errors
    /// When a socket cannot be bound or given its mode.
    pub(crate) fn bind(paths: &Paths) -> Result<Self> {
        let files = [paths.read_socket(), paths.control_socket()];
        // Anyone on the host may not read events: they hold command lines. Root and the socket's group may.
        let read = bind(&files[0], 0o660)?;
        let control = bind(&files[1], 0o600)?;
        Ok(Self { read, control, files })
    }

    /// Serves clients until the future is dropped.
    pub(crate) async fn serve<A: Answer>(&self, answer: Arc<A>) {
        let clients = Arc::new(AtomicUsize::new(0));
        loop {
            let (accepted, may_change) = tokio::select! {
                a = self.read.accept() => (a, false),
                a = self.control.accept() => (a, true),
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, most likely: wait for some to come back instead of spinning.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let answer = Arc::clone(&answer);
            let seat = Seat::take(&clients);
            tokio::spawn(async move {
                let full = seat.is_none();
                serve_client(stream, answer.as_ref(), may_change, full).await;
                drop(seat);
            });
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// One of the places for clients.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(clients: &Arc<AtomicUsize>) -> Option<Self> {
        let seat = Self(Arc::clone(clients));
        if clients.fetch_add(1, Ordering::Relaxed) < MAX_CLIENTS { Some(seat) } else { None }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bind(path: &Path, mode: u32) -> Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot replace the old socket {}", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot bind the socket {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    Ok(listener)
}

async fn serve_client<A: Answer>(stream: UnixStream, answer: &A, may_change: bool, full: bool) {
    let by = stream.peer_cred().ok().map(|c| c.uid());
    let (read, write) = stream.into_split();
    let mut client = Client { write };
    if full {
        let _ = client.send(&error(ErrorCode::Failed, "too many clients; try again shortly")).await;
        return;
    }
    let mut read = BufReader::new(read);
    // A client may ask several things one after the other on one connection.
    while let Ok(Some(line)) = tokio::time::timeout(PATIENCE, read_line(&mut read)).await.unwrap_or(Ok(None))
    {
        let outcome = match parse(&line) {
            Err(reply) => client.send(&reply).await,
            Ok(RequestBody::Query(query)) if query.is_guarded() && !may_change => {
                let reply =
                    error(ErrorCode::Forbidden, "this socket does not answer that; the change socket does");
                client.send(&reply).await
            }
            Ok(RequestBody::Query(query)) => answer.query(query, &mut client).await,
            Ok(RequestBody::Command(_)) if !may_change => {
                let reply = error(ErrorCode::Forbidden, "this socket only answers questions");
                client.send(&reply).await
            }
            Ok(RequestBody::Command(command)) => {
                let reply = answer.command(command, by).await;
                client.send(&reply).await
            }
        };
        if outcome.is_err() || client.send(&Reply::End).await.is_err() {
            return;
        }
    }
}

/// Reads one line of at most [`MAX_REQUEST`] bytes; `None` at the end or when it is longer.
async fn read_line<R: AsyncBufRead + Unpin>(read: &mut R) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let buffer = read.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let (taken, done) = match buffer.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        if line.len() + taken > MAX_REQUEST {
            return Ok(None);
        }
        line.extend_from_slice(&buffer[..taken]);
        read.consume(taken);
        if done {
            return Ok(Some(line));
        }
    }
}

fn parse(line: &[u8]) -> Result<RequestBody, Box<Reply>> {
    #[derive(serde::Deserialize)]
    struct Spoken {
        version: u32,
    }
    // The version is looked at first, so that a newer client hears about versions and not about fields.
    let spoken: Spoken = serde_json::from_slice(line)
        .map_err(|e| error(ErrorCode::Malformed, format!("not a request: {e}")))?;
    if spoken.version != VERSION {
        let said = format!("the client speaks protocol {}, this agent speaks {VERSION}", spoken.version);
        return Err(Box::new(error(ErrorCode::Version, said)));
    }
    let request: Request = serde_json::from_slice(line).map_err(|e| malformed(&e))?;
    Ok(request.body)
}

fn malformed(why: &serde_json::Error) -> Box<Reply> {
    Box::new(error(ErrorCode::Malformed, format!("not a request: {why}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_newer_client_hears_about_versions() {
        let reply = parse(br#"{"version":2,"query":{"what":"oracle"}}"#).unwrap_err();
        assert!(matches!(*reply, Reply::Error { code: ErrorCode::Version, .. }));
    }

    #[test]
    fn requests_round_trip() {
        let request = Request { version: VERSION, body: RequestBody::Query(Query::Status) };
        let line = serde_json::to_vec(&request).unwrap();
        assert_eq!(parse(&line).unwrap(), request.body);
    }

    #[tokio::test]
    async fn an_endless_line_is_refused_without_being_kept() {
        let endless = vec![b'x'; MAX_REQUEST + 1];
        let mut read = BufReader::new(&endless[..]);
        assert_eq!(read_line(&mut read).await.unwrap(), None);
    }
}
