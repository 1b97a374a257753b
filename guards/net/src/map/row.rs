//! One row.

use std::net::IpAddr;
use std::sync::Arc;

use davy_model::{Connection, Heading, Naming, Peer, Place, Talker, Timestamp, Transport};

/// Addresses and requests remembered a row.
const MAX_ADDRESSES: usize = 16;
const MAX_REQUESTS: usize = 4;
/// Bytes of a request.
const MAX_REQUEST: usize = 128;

/// What makes connections one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RowKey {
    pub(super) talker: Arc<Talker>,
    pub(super) direction: Heading,
    pub(super) transport: Transport,
    pub(super) port: u16,
    pub(super) peer: Peer,
}

/// What a flow adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) connections: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: RowKey,
    pub(super) naming: Option<Naming>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) more_addresses: bool,
    pub(super) place: Option<Place>,
    pub(super) tls: bool,
    pub(super) requests: Vec<String>,
    pub(super) share: Share,
    pub(super) open: u64,
    /// Whether an earlier map made it.
    pub(super) inherited: bool,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

impl Row {
    pub(super) fn new(key: RowKey, naming: Option<Naming>, time: Timestamp) -> Self {
        Self {
            key,
            naming,
            addresses: Vec::new(),
            more_addresses: false,
            place: None,
            tls: false,
            requests: Vec::new(),
            share: Share::default(),
            open: 0,
            inherited: false,
            first: time,
            last: time,
        }
    }

    pub(super) fn of(talker: Arc<Talker>, kept: Connection) -> Self {
        let Connection { direction, transport, port, peer, .. } = kept;
        let key = RowKey { talker, direction, transport, port, peer };
        let mut row = Self {
            naming: kept.named_by,
            more_addresses: kept.more_addresses || kept.addresses.len() > MAX_ADDRESSES,
            addresses: kept.addresses,
            place: kept.place,
            tls: kept.tls,
            requests: kept.requests,
            share: Share {
                connections: kept.connections,
                sent: kept.sent_bytes,
                received: kept.received_bytes,
            },
            last: kept.last,
            inherited: true,
            ..Self::new(key, None, kept.first)
        };
        row.addresses.truncate(MAX_ADDRESSES);
        row.requests.truncate(MAX_REQUESTS);
        row
    }

    pub(super) fn connection(&self, id: u64) -> Connection {
        Connection {
            id,
            talker: Talker::clone(&self.key.talker),
            direction: self.key.direction,
            transport: self.key.transport,
            port: self.key.port,
            peer: self.key.peer.clone(),
            named_by: self.naming,
            addresses: self.addresses.clone(),
            more_addresses: self.more_addresses,
            place: self.place,
            tls: self.tls,
            requests: self.requests.clone(),
            connections: self.share.connections,
            open: self.open,
            sent_bytes: self.share.sent,
            received_bytes: self.share.received,
            first: self.first,
            last: self.last,
        }
    }

    pub(super) fn add(&mut self, share: &Share, time: Timestamp) {
        self.share.connections = self.share.connections.saturating_add(share.connections);
        self.share.sent = self.share.sent.saturating_add(share.sent);
        self.share.received = self.share.received.saturating_add(share.received);
        self.first = self.first.min(time);
        self.last = self.last.max(time);
    }

    pub(super) fn take_back(&mut self, share: &Share) {
        self.share.connections = self.share.connections.saturating_sub(share.connections);
        self.share.sent = self.share.sent.saturating_sub(share.sent);
        self.share.received = self.share.received.saturating_sub(share.received);
    }

    pub(super) fn meet(&mut self, address: Option<IpAddr>, place: Option<Place>) {
        self.place = self.place.max(place);
        let Some(address) = address.filter(|address| !self.addresses.contains(address)) else { return };
        if self.addresses.len() < MAX_ADDRESSES {
            self.addresses.push(address);
        } else {
            self.more_addresses = true;
        }
    }

    /// Says whether that was news.
    pub(super) fn read(&mut self, tls: bool, request: Option<&str>) -> bool {
        let news = tls && !self.tls;
        self.tls |= tls;
        let Some(request) = request.filter(|request| self.requests.last().is_none_or(|last| last != request))
        else {
            return news;
        };
        self.requests.retain(|known| known != request);
        if self.requests.len() >= MAX_REQUESTS {
            self.requests.remove(0);
        }
        self.requests.push(request.to_owned());
        true
    }

    /// Takes over what another row was, which is no more.
    pub(super) fn absorb(&mut self, other: &Self) {
        self.add(&other.share, other.last);
        self.first = self.first.min(other.first);
        self.open = self.open.saturating_add(other.open);
        self.tls |= other.tls;
        for address in &other.addresses {
            self.meet(Some(*address), other.place);
        }
        self.more_addresses |= other.more_addresses;
        self.place = self.place.max(other.place);
    }
}

/// The first words of a request within the bound; with the host it asked for, `GET shop.example/upload`.
pub(super) fn bounded_request(request: &str, host: Option<&str>) -> String {
    let mut text = match (request.split_once(' '), host) {
        (Some((method, path)), Some(host)) => format!("{method} {host}{path}"),
        _ => request.to_owned(),
    };
    text.truncate(text.floor_char_boundary(MAX_REQUEST));
    text
}
