//! Captures of any kind: the first byte cuts the rest in pieces that go both ways over a few flows, or are DNS answers.
#![no_main]

use davy_inspect::{Bounds, Inspector};
use davy_model::{Captured, Direction, FlowKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let mut inspector = Inspector::new(Bounds { head_bytes: 1024, flows: 4, bytes: 4096 });
    for (i, piece) in data.chunks(usize::from(*cut).max(1)).enumerate() {
        let bytes = piece.to_vec();
        let direction = if i % 3 == 0 { Direction::Received } else { Direction::Sent };
        let flow = FlowKey((i % 7) as u64 / 2);
        inspector.read(&match i % 11 {
            10 => Captured::FlowEnd { flow },
            9 => Captured::NameAnswer { bytes },
            _ => Captured::Flow { flow, direction, offset: 0, bytes },
        });
    }
});
