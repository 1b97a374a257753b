//! As much of nftables' netlink protocol (include/uapi/linux/netfilter/nf_tables.h) as Davy's tables need.

mod attributes;
mod batch;
mod expression;
mod read;
mod set;
mod socket;

pub(crate) use attributes::{Attributes, find};
pub(crate) use batch::Batch;
pub(crate) use expression::{Rule, Verdict};
pub(crate) use read::{Listed, rule_counters, set_elements};
pub(crate) use set::{Count, Element, Interval, Key, SetKind, octets};
pub(crate) use socket::Socket;

/// `NFPROTO_INET`: a table for IPv4 and IPv6 at once.
pub(crate) const FAMILY: u8 = 1;

/// `NFNL_SUBSYS_NFTABLES`.
pub(crate) const SUBSYSTEM: u16 = 10;

/// Kinds of messages (`enum nf_tables_msg_types`).
pub(crate) mod message {
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const DELETE_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const NEW_SET: u16 = 9;
    pub(crate) const NEW_ELEMENTS: u16 = 12;
    pub(crate) const GET_ELEMENTS: u16 = 13;
    pub(crate) const DELETE_ELEMENTS: u16 = 14;
    pub(crate) const NEW_GENERATION: u16 = 15;
    pub(crate) const GET_GENERATION: u16 = 16;
}
