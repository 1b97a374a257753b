//! How fast events are written. Run by hand: `cargo test -p davy-store --test speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, missing_docs)]

mod samples;

use std::time::Instant;

use davy_model::Timestamp;
use davy_store::{Limits, Store};
use samples::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn events_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Limits::default()).await.unwrap();
    let now = Timestamp(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64,
    );
    let total = 400_000_u32;
    let begin = Instant::now();
    for start in (0..total).step_by(4_000) {
        // One exec and exit for two forks, as short processes give.
        let events = (start..start + 4_000).map(|n| match n % 4 {
            0 => exec(now, n, "/usr/bin/gcc"),
            1 => exit(now, n),
            _ => fork(now, n, n + 1),
        });
        store.append(events.collect());
        if start % 40_000 == 0 {
            store.flush().await.unwrap();
        }
    }
    store.flush().await.unwrap();
    let took = begin.elapsed().as_secs_f64();
    let status = store.status();
    println!(
        "{:.0} events/s, {:.0} bytes an event, {} lost",
        f64::from(total) / took,
        status.bytes as f64 / status.events as f64,
        status.lost
    );
    let begin = Instant::now();
    let found = store.events(&davy_store::EventFilter { pid: Some(7), ..Default::default() }).await.unwrap();
    println!("one pid of {total} events: {} found in {} ms", found.len(), begin.elapsed().as_millis());
    let begin = Instant::now();
    let newest = store.events(&davy_store::EventFilter::default()).await.unwrap();
    println!("the newest {}: {} ms", newest.len(), begin.elapsed().as_millis());
}
