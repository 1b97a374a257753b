//! What comes over the wire: the first byte cuts the rest in pieces that go both ways over one flow.
#![no_main]

use davy_detect::{Detector, Lists, Settings};
use davy_model::{Direction, Event, EventKind, FlowChunk, FlowKey, ProcessKey, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let mut detector = Detector::new(Settings::default(), Lists::empty());
    let process = Some(ProcessKey { pid: 2, start_ticks: 1, boot: 1 });
    for (i, piece) in data.chunks(usize::from(*cut).max(1)).enumerate() {
        let direction = if i % 3 == 0 { Direction::Received } else { Direction::Sent };
        let size = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let chunk = FlowChunk { flow: FlowKey(1), direction, size, offset: 0, bytes: piece.to_vec() };
        let time = Timestamp(i as i64 * 10_000);
        detector.observe(&Event { time, process, kind: EventKind::FlowChunk(chunk) });
    }
    detector.conclude(Timestamp::from_secs(60));
});
