//! Flows, whose they are, how they began and the messages that go over them.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use davy_model::{
    Dialogue, Direction, FlowChunk, FlowKey, FlowOpen, FlowVolume, NameAnswer, ProcessKey, Timestamp,
    Transport,
};

/// Messages remembered a flow.
const MAX_MESSAGES: usize = 64;
/// Messages remembered from the flow's very beginning.
const MAX_OPENING: usize = 6;
/// Packets of one direction closer than this are one message, in seconds.
const SAME_MESSAGE_SECS: f64 = 0.03;

/// How many of the newest flows an answer of a name server may have led to, and how long after it they begin, in seconds.
const NAMED_AT_ONCE: usize = 128;
const NAMED_WITHIN: f64 = 2.0;

/// A message: consecutive packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Message {
    /// When its first packet went.
    pub time: Timestamp,
    /// When its last packet went.
    pub end: Timestamp,
    /// Which way.
    pub direction: Direction,
    /// Payload bytes.
    pub size: u32,
}

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Its addresses; unspecified ones when it began before it was watched.
    pub open: FlowOpen,
    /// Whose it is.
    pub owner: Option<ProcessKey>,
    /// When it began, or was first seen.
    pub opened: Timestamp,
    /// Whether its beginning was seen.
    pub from_start: bool,
    /// When anything last went over it.
    pub last: Timestamp,
    /// When it ended.
    pub closed: Option<Timestamp>,
    /// What went over it so far.
    pub volume: FlowVolume,
    /// The name of the other end: from TLS, HTTP or the answer that gave its address.
    pub name: Option<String>,
    /// The first words of the first HTTP request, either way.
    pub request: Option<String>,
    /// The first messages.
    pub opening: Vec<Message>,
    /// The latest messages, oldest first.
    pub messages: VecDeque<Message>,
    /// What it says of mining, in the clear.
    pub(crate) dialogue: Dialogue,
    /// Whether it is encrypted by TLS.
    pub tls: bool,
    /// Whether the first bytes sent look like a key.
    pub(crate) random_start: bool,
    /// Whether its other end is a pool for certain, so that it may be cut.
    pub(crate) to_pool: bool,
    pub(crate) touched: bool,
}

impl Flow {
    fn new(open: FlowOpen, owner: Option<ProcessKey>, time: Timestamp, from_start: bool) -> Self {
        Self {
            open,
            owner,
            opened: time,
            from_start,
            last: time,
            closed: None,
            volume: FlowVolume::default(),
            name: None,
            request: None,
            opening: Vec::new(),
            messages: VecDeque::new(),
            dialogue: Dialogue::default(),
            tls: false,
            random_start: false,
            to_pool: false,
            touched: false,
        }
    }

    /// The other end for people: name and address.
    #[must_use]
    pub fn remote(&self) -> String {
        match &self.name {
            Some(name) if self.open.remote.ip().is_unspecified() => name.clone(),
            Some(name) => format!("{name} ({})", self.open.remote),
            None if self.open.remote.ip().is_unspecified() => "an address not seen".to_owned(),
            None => self.open.remote.to_string(),
        }
    }

    fn count(&mut self, time: Timestamp, chunk: &FlowChunk) {
        let size = u64::from(chunk.size);
        match chunk.direction {
            Direction::Sent => {
                self.volume.sent_bytes = self.volume.sent_bytes.saturating_add(size);
                self.volume.sent_packets = self.volume.sent_packets.saturating_add(1);
            }
            Direction::Received => {
                self.volume.received_bytes = self.volume.received_bytes.saturating_add(size);
                self.volume.received_packets = self.volume.received_packets.saturating_add(1);
            }
        }
        if chunk.size == 0 {
            return;
        }
        let message = Message { time, end: time, direction: chunk.direction, size: chunk.size };
        let room = self.opening.len() < MAX_OPENING;
        match self.opening.last_mut() {
            Some(last) if last.direction == chunk.direction => {
                last.size = last.size.saturating_add(chunk.size);
                last.end = time;
            }
            _ if room => self.opening.push(message),
            _ => {}
        }
        match self.messages.back_mut() {
            Some(last)
                if last.direction == chunk.direction
                    && self.open.transport == Transport::Tcp
                    && time.secs_since(last.end).abs() < SAME_MESSAGE_SECS =>
            {
                last.size = last.size.saturating_add(chunk.size);
                last.end = time;
            }
            _ => {
                if self.messages.len() >= MAX_MESSAGES {
                    self.messages.pop_front();
                }
                self.messages.push_back(message);
            }
        }
    }
}

/// The bounded table of flows.
#[derive(Debug)]
pub struct FlowTable {
    entries: HashMap<FlowKey, Flow>,
    order: VecDeque<FlowKey>,
    ended: VecDeque<FlowKey>,
    touched: Vec<FlowKey>,
    limit: usize,
    evicted: u64,
}

impl FlowTable {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            ended: VecDeque::new(),
            touched: Vec::new(),
            limit: limit.max(1),
            evicted: 0,
        }
    }

    /// A flow by its identity.
    #[must_use]
    pub fn get(&self, key: &FlowKey) -> Option<&Flow> {
        self.entries.get(key)
    }

    /// All flows kept, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.entries.values()
    }

    /// Flows kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no flow is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Flows that were forgotten while open, because the table was full.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(crate) fn opened(&mut self, time: Timestamp, owner: Option<ProcessKey>, open: FlowOpen) -> &mut Flow {
        let known = self.entries.contains_key(&open.flow);
        if !known {
            self.make_room();
            self.order.push_back(open.flow);
        }
        let flow = self.entries.entry(open.flow).or_insert_with(|| Flow::new(open, owner, time, true));
        if known {
            // A backfill tells the addresses of a flow whose bytes came first; a connect that is told twice is one.
            if flow.open.remote.ip().is_unspecified() {
                flow.open = open;
            }
            flow.owner = flow.owner.or(owner);
        }
        flow
    }

    /// A flow by its identity, to be changed.
    pub(crate) fn get_mut(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        self.entries.get_mut(key)
    }

    /// Names the newest flows that an answer led to and that have no name yet, and says which they are.
    pub(crate) fn name_newest(&mut self, time: Timestamp, answer: &NameAnswer) -> Vec<FlowKey> {
        let mut named = Vec::new();
        for key in self.order.iter().rev().take(NAMED_AT_ONCE) {
            let Some(flow) = self.entries.get_mut(key) else { continue };
            // They lie by when they were told, which is nearly when they began.
            if time.secs_since(flow.opened) > NAMED_WITHIN {
                break;
            }
            let led_there = !flow.open.accepted && flow.open.remote.ip() == answer.address;
            if led_there && flow.name.is_none() && (0.0..NAMED_WITHIN).contains(&flow.opened.secs_since(time))
            {
                flow.name = Some(answer.name.clone());
                named.push(*key);
            }
        }
        named
    }

    /// Counts a chunk; the flow is made when it began before it was watched.
    pub(crate) fn chunk(
        &mut self,
        time: Timestamp,
        owner: Option<ProcessKey>,
        chunk: &FlowChunk,
    ) -> &mut Flow {
        if !self.entries.contains_key(&chunk.flow) {
            self.make_room();
            self.order.push_back(chunk.flow);
        }
        let flow = self.entries.entry(chunk.flow).or_insert_with(|| {
            let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
            let open = FlowOpen {
                flow: chunk.flow,
                transport: Transport::Tcp,
                local: nowhere,
                remote: nowhere,
                accepted: false,
            };
            Flow::new(open, owner, time, chunk.offset == 0)
        });
        flow.owner = flow.owner.or(owner);
        flow.last = flow.last.max(time);
        flow.count(time, chunk);
        if !flow.touched {
            flow.touched = true;
            self.touched.push(chunk.flow);
        }
        flow
    }

    pub(crate) fn closed(&mut self, time: Timestamp, key: FlowKey, volume: FlowVolume) {
        let Some(flow) = self.entries.get_mut(&key) else { return };
        if flow.closed.is_none() {
            flow.closed = Some(time);
            flow.last = flow.last.max(time);
            self.ended.push_back(key);
        }
        if volume.sent_bytes + volume.received_bytes > 0 {
            flow.volume = volume;
        }
    }

    /// The flows that anything went over since the last call.
    pub(crate) fn take_touched(&mut self) -> Vec<FlowKey> {
        let touched = std::mem::take(&mut self.touched);
        for key in &touched {
            if let Some(flow) = self.entries.get_mut(key) {
                flow.touched = false;
            }
        }
        touched
    }

    fn make_room(&mut self) {
        while self.entries.len() >= self.limit {
            if let Some(key) = self.ended.pop_front() {
                self.entries.remove(&key);
            } else if let Some(key) = self.order.pop_front() {
                if self.entries.remove(&key).is_some() {
                    self.evicted += 1;
                }
            } else {
                break;
            }
        }
        // Keys of flows that went by the other queue are dropped once they outnumber the rest.
        if self.order.len() > self.limit * 2 {
            let entries = &self.entries;
            self.order.retain(|key| entries.contains_key(key));
        }
        if self.touched.len() > self.limit * 2 {
            let entries = &self.entries;
            self.touched.retain(|key| entries.contains_key(key));
            self.touched.dedup();
        }
        if self.ended.len() > self.limit * 2 {
            let entries = &self.entries;
            self.ended.retain(|key| entries.contains_key(key));
        }
    }
}
