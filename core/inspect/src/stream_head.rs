//! The first bytes of one direction of a flow, put in order.

/// Pieces kept that came before what precedes them. When full, the gap is given up.
const MAX_EARLY: usize = 8;

/// A bounded beginning of a byte stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamHead {
    bytes: Vec<u8>,
    /// Offset in the stream that follows `bytes`.
    next: u64,
    early: Vec<(u64, Vec<u8>)>,
    closed: bool,
}

impl StreamHead {
    /// What was gathered.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Memory that the bytes take, those that came early with them.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len() + self.early.iter().map(|(_, piece)| piece.len()).sum::<usize>()
    }

    /// Stops gathering and frees the memory.
    pub(crate) fn close(&mut self) {
        *self = Self { closed: true, ..Self::default() };
    }

    /// Takes in bytes at an offset; a sensor that does not know offsets gives zero for each, and they are taken as they
    /// come. Returns whether there is anything new.
    pub(crate) fn push(&mut self, offset: u64, bytes: &[u8], limit: usize) -> bool {
        if self.closed || bytes.is_empty() {
            return false;
        }
        if self.bytes.is_empty() && self.early.is_empty() && offset > 0 {
            // The flow began before it was watched.
            self.next = offset;
        }
        let begin = self.next - self.bytes.len() as u64;
        if offset > self.next {
            if self.early.len() < MAX_EARLY {
                self.early.push((offset, bytes.to_vec()));
                return false;
            }
            // What is missing was lost; the pieces that came are read one after the other.
            self.early.push((offset, bytes.to_vec()));
            self.early.sort_by_key(|(at, _)| *at);
            for (at, piece) in std::mem::take(&mut self.early) {
                self.append(&piece, limit);
                self.next = self.next.max(at.saturating_add(piece.len() as u64));
            }
            return true;
        }
        let known = usize::try_from(self.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        if known > 0 && offset >= begin {
            let at = usize::try_from(offset - begin).unwrap_or(0);
            let overlap = known.min(bytes.len());
            let repeated = self.bytes.get(at..at + overlap) == Some(&bytes[..overlap]);
            if repeated && known >= bytes.len() {
                return false;
            }
            let fresh = if repeated { &bytes[overlap..] } else { bytes };
            self.append(fresh, limit);
            self.next = self.next.saturating_add(fresh.len() as u64);
        } else {
            self.append(bytes, limit);
            self.next = self.next.saturating_add(bytes.len() as u64);
        }
        self.take_early(limit);
        true
    }

    fn take_early(&mut self, limit: usize) {
        while let Some(i) = self.early.iter().position(|(at, _)| *at <= self.next) {
            let (at, piece) = self.early.swap_remove(i);
            let skip = usize::try_from(self.next - at).unwrap_or(usize::MAX);
            if let Some(fresh) = piece.get(skip..) {
                self.append(fresh, limit);
                self.next = self.next.saturating_add(fresh.len() as u64);
            }
        }
    }

    fn append(&mut self, bytes: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if self.bytes.len() >= limit {
            // The bound is reached; what was gathered stays until it is read.
            self.early = Vec::new();
        }
    }

    /// Whether the bound is reached.
    pub(crate) fn full(&self, limit: usize) -> bool {
        self.bytes.len() >= limit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn puts_pieces_in_order() {
        let mut head = StreamHead::default();
        head.push(0, b"ab", 100);
        head.push(4, b"ef", 100);
        head.push(2, b"cd", 100);
        head.push(2, b"cdef", 100);
        assert_eq!(head.bytes(), b"abcdef");
    }

    #[test]
    fn takes_pieces_without_offsets_as_they_come() {
        let mut head = StreamHead::default();
        head.push(0, b"{\"method\":", 100);
        head.push(0, b"\"login\"}", 100);
        assert_eq!(head.bytes(), b"{\"method\":\"login\"}");
    }

    proptest! {
        #[test]
        fn any_order_gives_the_stream(data in proptest::collection::vec(any::<u8>(), 1..200), cuts in proptest::collection::vec(1usize..40, 1..20), seed in any::<u64>()) {
            let mut pieces = Vec::new();
            let mut at = 0;
            for cut in cuts {
                let end = (at + cut).min(data.len());
                if at < end {
                    pieces.push((at as u64, data[at..end].to_vec()));
                }
                at = end;
            }
            let whole = data[..at].to_vec();
            let first = pieces.remove(0);
            let mut order: Vec<usize> = (0..pieces.len()).collect();
            order.sort_by_key(|i| (seed.rotate_left(*i as u32 * 7), *i));
            let mut head = StreamHead::default();
            head.push(first.0, &first.1, 4096);
            // At most as many early pieces as are kept.
            for chunk in order.chunks(MAX_EARLY) {
                let mut chunk = chunk.to_vec();
                if pieces.len() > MAX_EARLY { chunk.sort_unstable(); }
                for i in chunk {
                    head.push(pieces[i].0, &pieces[i].1, 4096);
                }
            }
            prop_assume!(pieces.len() <= MAX_EARLY);
            prop_assert_eq!(head.bytes(), &whole[..]);
        }

        #[test]
        fn never_exceeds_its_bound(pushes in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..50)) {
            let mut head = StreamHead::default();
            for (offset, bytes) in pushes {
                head.push(offset, &bytes, 256);
                prop_assert!(head.bytes().len() <= 256);
                prop_assert!(head.early.len() <= MAX_EARLY);
            }
        }
    }
}
