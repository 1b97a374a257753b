use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long an idle loop sleeps before it looks again whether it should stop.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Tells the threads of one server when to end: on request, or when the server's time is over.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    ended: Arc<AtomicBool>,
    deadline: Instant,
}

impl Lease {
    pub(crate) fn over(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

/// A listener that serves each connection on a thread of its own, within bounds of number and time.
/// A connection beyond the bound is closed at once.
pub(crate) struct Server {
    address: SocketAddr,
    lease: Lease,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(
        listen: SocketAddr,
        max_connections: usize,
        lifetime: Duration,
        serve: impl Fn(TcpStream, &Lease) + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let lease = Lease { ended: Arc::default(), deadline: Instant::now() + lifetime };
        let held = lease.clone();
        let serve = Arc::new(serve);
        let acceptor = thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || accept(&listener, max_connections, &held, &serve))?;
        Ok(Self { address, lease, acceptor: Some(acceptor) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn over(&self) -> bool {
        self.lease.over()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lease.ended.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

fn accept<F>(listener: &TcpListener, max_connections: usize, lease: &Lease, serve: &Arc<F>)
where
    F: Fn(TcpStream, &Lease) + Send + Sync + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    let mut served: Vec<JoinHandle<()>> = Vec::new();
    while !lease.over() {
        served.retain(|thread| !thread.is_finished());
        match listener.accept() {
            Ok((socket, _)) if open.load(Ordering::Relaxed) < max_connections => {
                open.fetch_add(1, Ordering::Relaxed);
                let (serve, lease, count) = (Arc::clone(serve), lease.clone(), Arc::clone(&open));
                served.push(thread::spawn(move || {
                    serve(socket, &lease);
                    count.fetch_sub(1, Ordering::Relaxed);
                }));
            }
            Ok((beyond_the_bound, _)) => drop(beyond_the_bound),
            Err(_) => thread::sleep(TICK),
        }
    }
    for thread in served {
        drop(thread.join());
    }
}
