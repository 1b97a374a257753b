use std::sync::mpsc;
use std::time::{Duration, Instant};

use davy_model::{Capability, Event, EventKind, Probe};

use super::Refusal;
use crate::sensors::{SensorConfig, Sensors};
use crate::sys;

/// Loads the process sensor, makes a child that ends at once, and waits to be told of both.
pub(super) fn processes() -> Result<String, Refusal> {
    let (send, receive) = mpsc::channel::<Event>();
    let config = SensorConfig { priority_bytes: 1 << 18, bulk_bytes: 1 << 12, ..SensorConfig::new(0) };
    let itself = [Probe { capability: Capability::Tracing, works: true, reason: String::new() }];
    let tell = Box::new(move |event| drop(send.send(event)));
    let sensors = Sensors::start(config, &itself, tell, Box::new(drop)).map_err(|error| {
        format!("the kernel refuses tracing programs ({error}); it needs tp_btf, Linux 5.11 or later")
    })?;
    let child =
        sys::brief_child(0).map_err(|error| format!("no child could be made to be noticed: {error}"))?;
    let deadline = Instant::now() + Duration::from_secs(2);
    let (mut born, mut ended) = (false, false);
    while !(born && ended) {
        let Ok(event) = receive.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
            break;
        };
        born |= matches!(event.kind, EventKind::Fork { child: key, .. } if key.pid == child);
        ended |=
            matches!(event.kind, EventKind::Exit(_)) && event.process.is_some_and(|key| key.pid == child);
    }
    drop(sensors);
    match (born, ended) {
        (true, true) => Ok("tracing programs load, and noticed the start and end of a child".to_owned()),
        _ => Err("tracing programs load, but did not notice a child within 2 s".to_owned()),
    }
}
