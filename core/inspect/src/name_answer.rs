//! Names and addresses from DNS answers (RFC 1035), which anyone on the way may have written.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use davy_model::NameAnswer;
use simple_dns::rdata::RData;
use simple_dns::{Name, Packet, PacketFlag};

/// CNAME records followed from the question to an address.
const CHAIN: usize = 8;

/// Addresses taken from one answer.
const ADDRESSES: usize = 32;

/// What an answer says of the name that was asked for: one entry for each address it leads to.
#[must_use]
pub fn answers(message: &[u8]) -> Vec<NameAnswer> {
    let Ok(packet) = Packet::parse(message) else { return Vec::new() };
    if !packet.has_flags(PacketFlag::RESPONSE) {
        return Vec::new();
    }
    let Some(question) = packet.questions.first() else { return Vec::new() };
    let mut names = vec![text(&question.qname)];
    let aliases: HashMap<String, String> = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::CNAME(target) => Some((text(&record.name), text(&target.0))),
            _ => None,
        })
        .collect();
    while names.len() < CHAIN {
        match names.last().and_then(|name| aliases.get(name)) {
            Some(next) if !names.contains(next) => names.push(next.clone()),
            _ => break,
        }
    }
    packet
        .answers
        .iter()
        .filter(|record| names.contains(&text(&record.name)))
        .filter_map(|record| {
            let address: IpAddr = match &record.rdata {
                RData::A(a) => Ipv4Addr::from(a.address).into(),
                RData::AAAA(a) => Ipv6Addr::from(a.address).to_canonical(),
                _ => return None,
            };
            Some(NameAnswer { name: names[0].clone(), address, ttl_secs: record.ttl })
        })
        .take(ADDRESSES)
        .collect()
}

/// Lower case, without the last dot; bytes that are not text are made so.
fn text(name: &Name<'_>) -> String {
    name.to_string().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use simple_dns::rdata::{A, CNAME};
    use simple_dns::{CLASS, Question, ResourceRecord, TYPE};

    use super::*;

    fn answer(chain: &[(&str, &str)], last: &str) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        let asked = Name::new_unchecked(chain.first().map_or(last, |first| first.0)).into_owned();
        packet.questions.push(Question::new(asked, TYPE::A.into(), CLASS::IN.into(), false));
        for (from, to) in chain {
            let target = RData::CNAME(CNAME(Name::new_unchecked(to)));
            packet.answers.push(ResourceRecord::new(Name::new_unchecked(from), CLASS::IN, 60, target));
        }
        let address = RData::A(A { address: 0xc000_0201 });
        packet.answers.push(ResourceRecord::new(Name::new_unchecked(last), CLASS::IN, 300, address));
        packet.build_bytes_vec_compressed().unwrap()
    }

    #[test]
    fn an_address_gets_the_name_that_was_asked_for() {
        let found = answers(&answer(&[("Pool.Example.org", "edge.example.net")], "edge.example.net"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "pool.example.org");
        assert_eq!(found[0].address.to_string(), "192.0.2.1");
        assert_eq!(found[0].ttl_secs, 300);
    }

    #[test]
    fn an_address_of_another_name_is_not_taken() {
        let message = answer(&[], "a.example");
        let mut packet = Packet::parse(&message).unwrap();
        packet.questions[0].qname = Name::new_unchecked("b.example").into_owned();
        assert_eq!(answers(&packet.build_bytes_vec().unwrap()), []);
    }

    #[test]
    fn a_loop_of_aliases_ends() {
        assert_eq!(
            answers(&answer(&[("a.example", "b.example"), ("b.example", "a.example")], "c.example")),
            []
        );
    }

    proptest! {
        #[test]
        fn no_message_is_fatal(message in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = answers(&message);
        }

        #[test]
        fn no_damaged_answer_is_fatal(at in 0usize..120, to in any::<u8>(), cut in 0usize..120) {
            let mut message = answer(&[("a.example", "b.example")], "b.example");
            if let Some(byte) = message.get_mut(at) {
                *byte = to;
            }
            message.truncate(message.len().saturating_sub(cut));
            let _ = answers(&message);
        }
    }
}
