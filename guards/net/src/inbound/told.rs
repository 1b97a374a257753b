//! Which refusals are told, so that a scanner does not fill the store with them.

use std::collections::HashMap;
use std::net::IpAddr;

use davy_model::{InboundRefusal, Timestamp, Transport};

/// The same is told again after this long, in seconds.
const AGAIN_SECS: f64 = 600.0;

/// The most that is told in a minute.
const PER_MINUTE: u32 = 60;

/// The most that is remembered as told.
const MAX_TOLD: usize = 4096;

/// What was told lately: of each source and port once in ten minutes, refused or not, and no more than sixty a minute altogether.
#[derive(Debug, Default)]
pub struct Told {
    known: HashMap<(Transport, u16, IpAddr, bool), Timestamp>,
    minute: Option<(Timestamp, u32)>,
    left_out: u64,
}

impl Told {
    /// Whether to tell of this one now; if not for being known, it is counted.
    pub fn is_news(&mut self, time: Timestamp, refusal: &InboundRefusal) -> bool {
        let key = (refusal.transport, refusal.port, refusal.from.to_canonical(), refusal.refused);
        if self.known.get(&key).is_some_and(|then| time.secs_since(*then) < AGAIN_SECS) {
            return false;
        }
        if self.known.len() >= MAX_TOLD {
            self.known.retain(|_, then| time.secs_since(*then) < AGAIN_SECS);
        }
        let (began, told) =
            self.minute.filter(|(began, _)| time.secs_since(*began) < 60.0).unwrap_or((time, 0));
        if told >= PER_MINUTE || self.known.len() >= MAX_TOLD {
            self.minute = Some((began, told));
            self.left_out += 1;
            return false;
        }
        self.minute = Some((began, told + 1));
        self.known.insert(key, time);
        true
    }

    /// How many were not told for there being too many.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    fn news(told: &mut Told, secs: i64, port: u16, from: u32, refused: bool) -> bool {
        let from = Ipv4Addr::from_bits(from).into();
        told.is_news(
            Timestamp::from_secs(secs),
            &InboundRefusal { transport: Transport::Tcp, port, from, refused },
        )
    }

    #[test]
    fn each_is_told_once_in_ten_minutes() {
        let mut told = Told::default();
        assert!(news(&mut told, 0, 22, 1, false) && !news(&mut told, 599, 22, 1, false));
        assert!(news(&mut told, 1, 23, 1, false) && news(&mut told, 1, 22, 2, false));
        assert!(news(&mut told, 600, 22, 1, false));
        assert!(news(&mut told, 600, 22, 1, true), "that it is refused now is news");
        assert_eq!(told.left_out(), 0, "what is known is not left out");
    }

    #[test]
    fn a_flood_is_counted_and_remembered_within_bounds() {
        let mut told = Told::default();
        let all = (0..200_000u32).filter(|n| news(&mut told, i64::from(n / 1000), 22, *n, false)).count();
        assert!((200..=260).contains(&all), "sixty in each of four minutes, not {all}");
        assert_eq!(told.left_out(), 200_000 - all as u64);
        assert!(told.known.len() <= MAX_TOLD);
        assert!(news(&mut told, 10_000, 22, 7, false), "when it is over, it is told again");
    }
}
