//! An agent of canned answers behind real sockets.

#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command as Process, Output, Stdio};
use std::sync::{Arc, Mutex};

use davy_wire::{ErrorCode, Reply, Request, RequestBody};
use tempfile::TempDir;

/// What the agent does with a request: the bytes it sends before it hangs up.
type Script = dyn Fn(&RequestBody, bool) -> Vec<u8> + Send + Sync;

/// A fake agent; it ends with the test process.
pub struct FakeAgent {
    base: TempDir,
    heard: Arc<Mutex<Vec<RequestBody>>>,
}

impl FakeAgent {
    /// Answers by `script`, which is given the request and whether it came on the change socket.
    pub fn scripted(script: impl Fn(&RequestBody, bool) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("run")).unwrap();
        let heard = Arc::new(Mutex::new(vec![]));
        let script: Arc<Script> = Arc::new(script);
        for (name, changes) in [("read.sock", false), ("control.sock", true)] {
            let listener = UnixListener::bind(base.path().join("run").join(name)).unwrap();
            let (script, heard) = (Arc::clone(&script), Arc::clone(&heard));
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    serve(stream, changes, script.as_ref(), &heard);
                }
            });
        }
        Self { base, heard }
    }

    /// Answers with replies and the end.
    pub fn answering(answer: impl Fn(&RequestBody) -> Vec<Reply> + Send + Sync + 'static) -> Self {
        Self::scripted(move |request, changes| {
            if matches!(request, RequestBody::Command(_)) && !changes {
                let refusal = Reply::Error {
                    code: ErrorCode::Forbidden,
                    message: "this socket only answers questions".to_owned(),
                };
                return lines(&[refusal]);
            }
            let mut replies = answer(request);
            replies.push(Reply::End);
            lines(&replies)
        })
    }

    /// Its base folder.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// What it was asked.
    pub fn heard(&self) -> Vec<RequestBody> {
        self.heard.lock().unwrap().clone()
    }

    /// Runs `davy` against it.
    pub fn davy(&self, args: &[&str]) -> Ended {
        davy(self.base.path(), args)
    }

    /// Runs `davy` with a standard output that nobody reads; gives its exit code.
    pub fn unread(&self, args: &[&str]) -> i32 {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = Process::new(env!("CARGO_BIN_EXE_davy"))
            .args(args)
            .env("DAVY_BASE_DIR", self.base.path())
            .stdout(writer)
            .status()
            .unwrap();
        status.code().unwrap_or(-1)
    }
}

fn serve(stream: UnixStream, changes: bool, script: &Script, heard: &Mutex<Vec<RequestBody>>) {
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let request: Request = serde_json::from_str(&line).expect("davy sends requests of the protocol");
    heard.lock().unwrap().push(request.body.clone());
    // The client may have hung up already; that is what some tests are about.
    let _ = reader.get_mut().write_all(&script(&request.body, changes));
}

/// Replies as they go over the wire.
pub fn lines(replies: &[Reply]) -> Vec<u8> {
    let mut out = vec![];
    for reply in replies {
        serde_json::to_writer(&mut out, reply).unwrap();
        out.push(b'\n');
    }
    out
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it said.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

/// Runs `davy` in UTC, without colours, with everything below `base`.
pub fn davy(base: &Path, args: &[&str]) -> Ended {
    let output: Output = Process::new(env!("CARGO_BIN_EXE_davy"))
        .args(args)
        .env("TZ", "UTC")
        .env("DAVY_BASE_DIR", base)
        .env_remove("DAVY_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
