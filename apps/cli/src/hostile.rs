//! Whatever an attacker writes into names, paths and arguments, nothing but text reaches the terminal.

#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use davy_wire::Reply;
use proptest::prelude::*;
use serde_json::Value;

use crate::answer::Answering;
use crate::clock::Clock;
use crate::escape::is_treacherous;
use crate::{canned, connections, document, events, explain, outbound, ports, status, story, top};

/// Canned answers, and the places in them where any text may stand.
static ANSWERS: LazyLock<Vec<(Value, Vec<String>)>> = LazyLock::new(|| {
    let mut answers = vec![
        Reply::Status(canned::status()),
        Reply::Top(canned::top()),
        Reply::Incident(canned::incident()),
        Reply::Finding(canned::finding()),
        Reply::Outbound(canned::network::outbound()),
        Reply::Ports(canned::network::ports()),
    ];
    answers.extend(canned::events().into_iter().map(Reply::Event));
    answers.extend(canned::connections::all().into_iter().map(Reply::Connection));
    answers
        .iter()
        .map(|reply| {
            let value = serde_json::to_value(reply).unwrap();
            let mut places = vec![];
            strings(&value, String::new(), &mut places);
            places.retain(|place| {
                let mut changed = value.clone();
                *changed.pointer_mut(place).unwrap() = Value::from("any text");
                serde_json::from_value::<Reply>(changed).is_ok()
            });
            (value, places)
        })
        .collect()
});

fn strings(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::String(_) => places.push(at),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, v)| strings(v, format!("{at}/{n}"), places));
        }
        Value::Object(fields) => fields.iter().for_each(|(k, v)| strings(v, format!("{at}/{k}"), places)),
        _ => {}
    }
}

fn shown(reply: &Reply, answering: &Answering) -> Vec<String> {
    let page = |p: crate::page::Page| p.print(false);
    match reply {
        Reply::Status(s) => {
            vec![page(status::page(s, answering)), document::pretty(&document::status(s))]
        }
        Reply::Top(view) => vec![
            page(top::snapshot(view, answering)),
            top::frame(view.clone(), 80, 24),
            document::pretty(&document::top(view)),
        ],
        Reply::Incident(i) => vec![
            page(story::page(i, answering)),
            page(explain::incident_page(i, answering)),
            document::pretty(&document::incident(i)),
        ],
        Reply::Finding(f) => {
            vec![page(explain::finding_page(f, answering)), document::pretty(&document::finding(f))]
        }
        Reply::Outbound(summary) => vec![
            page(outbound::overview(summary, answering)),
            document::pretty(&outbound::outbound_document(summary)),
        ],
        Reply::Ports(view) => {
            vec![page(ports::page(view, answering)), document::pretty(&document::ports(view))]
        }
        Reply::Event(e) => {
            vec![
                page(events::page(e, &mut events::Names::default(), answering)),
                document::line(&document::event(e)),
            ]
        }
        Reply::Connection(entry) => {
            let entries = std::slice::from_ref(entry);
            vec![
                page(connections::page(entries, false, answering)),
                page(connections::page(entries, true, answering)),
                document::pretty(&document::connection(entry)),
            ]
        }
        other => panic!("not canned: {other:?}"),
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "(\\x1b\\[[0-9;]{0,4}[A-Za-z]|\\n|\\r|\u{202e}|\u{9b}|a b|/tmp){0,12}"]
}

#[test]
fn texts_are_really_changed() {
    let places: usize = ANSWERS.iter().map(|(_, places)| places.len()).sum();
    assert!(places > 100, "{places}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_answer_speaks_to_the_terminal(text in text(), width in 60usize..160) {
        let mut answering = Answering::for_tests(Clock::standing(canned::BEGAN), width);
        answering.verbose = 1;
        for (value, places) in ANSWERS.iter() {
            let mut value = value.clone();
            for place in places {
                *value.pointer_mut(place).unwrap() = Value::from(text.clone());
            }
            let reply: Reply = serde_json::from_value(value).unwrap();
            for out in shown(&reply, &answering) {
                let spoken = out.chars().find(|c| is_treacherous(*c) && *c != '\n');
                prop_assert!(spoken.is_none(), "{:?} in {:?}", spoken, out);
            }
        }
    }
}
