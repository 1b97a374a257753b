//! What every verb answers, for people and in JSON, against an agent of canned answers.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod canned;
mod fake_agent;
mod golden_file;

use davy_model::{ActionId, IncidentId};
use davy_wire::{Command, ErrorCode, Query, Reply, RequestBody};
use fake_agent::FakeAgent;
use golden_file::golden;

fn host() -> FakeAgent {
    FakeAgent::answering(|request| match request {
        RequestBody::Query(query) => match query {
            Query::Status => vec![Reply::Status(canned::status())],
            Query::Top => vec![Reply::Top(canned::top())],
            Query::Events { .. } => canned::events().into_iter().map(Reply::Event).collect(),
            Query::Findings { .. } => vec![Reply::Finding(canned::finding())],
            Query::Finding { id } if id.0 == 12 => vec![Reply::Finding(canned::finding())],
            Query::Incidents { .. } => canned::listed().into_iter().map(Reply::Incident).collect(),
            Query::Incident { id } if id.0 == 7 => vec![Reply::Incident(canned::incident())],
            Query::Process { pid: 811 } => {
                vec![Reply::Process(canned::process(811, "apache2", "/usr/sbin/apache2", &[]))]
            }
            Query::Bans => canned::network::bans().into_iter().map(Reply::Ban).collect(),
            Query::Ports => vec![Reply::Ports(canned::network::ports())],
            Query::Outbound => vec![Reply::Outbound(canned::network::outbound())],
            Query::Quarantine => canned::quarantined().into_iter().map(Reply::Quarantined).collect(),
            Query::Connections { .. } => {
                canned::connections::all().into_iter().map(Reply::Connection).collect()
            }
            Query::Actions { .. } => canned::actions().into_iter().map(Reply::Action).collect(),
            _ => {
                vec![Reply::Error { code: ErrorCode::NotFound, message: "there is no such thing".to_owned() }]
            }
        },
        RequestBody::Command(command) => vec![Reply::Done(format!("Did it: {command:?}."))],
    })
}

fn answers(name: &str, args: &[&str]) {
    let host = host();
    let people = host.davy(args);
    assert_eq!((people.code, people.err.as_str()), (0, ""));
    golden(&format!("{name}.txt"), &people.out);
    let mut args = args.to_vec();
    args.push("--json");
    let programs = host.davy(&args);
    assert_eq!((programs.code, programs.err.as_str()), (0, ""));
    for document in serde_json::Deserializer::from_str(&programs.out).into_iter::<serde_json::Value>() {
        document.unwrap();
    }
    golden(&format!("{name}.json"), &programs.out);
}

#[test]
fn status() {
    answers("status", &["status", "-v"]);
}

#[test]
fn incidents() {
    answers("incidents", &["incidents"]);
}

#[test]
fn the_story_of_one() {
    answers("incident", &["incidents", "7"]);
}

#[test]
fn explain_an_incident() {
    answers("explain", &["explain", "7"]);
}

#[test]
fn explain_a_finding() {
    answers("explain_finding", &["explain", "f12"]);
}

#[test]
fn events() {
    answers("events", &["events"]);
}

#[test]
fn events_followed_are_json_lines() {
    let ended = host().davy(&["events", "-f", "--json"]);
    assert_eq!(ended.code, 0);
    assert_eq!(ended.out.lines().count(), canned::events().len());
    for line in ended.out.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["time"].as_str().unwrap().starts_with("2026-02-03T03:12:4"));
    }
}

#[test]
fn findings() {
    answers("findings", &["findings"]);
}

#[test]
fn actions() {
    answers("actions", &["actions"]);
}

#[test]
fn connections() {
    answers("connections", &["connections"]);
}

#[test]
fn connections_as_a_tree() {
    golden("connections_graph.txt", &host().davy(&["connections", "--graph"]).out);
}

#[test]
fn a_full_answer_says_that_there_may_be_more() {
    let ended = host().davy(&["connections", "--limit", "4"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, "These are the 4 seen last; --limit shows more.\n"));
}

#[test]
fn connections_are_asked_for_by_where_they_go() {
    for (args, outside) in [
        (&["connections", "--service", "nginx", "--process", "curl"] as &[&str], None),
        (&["connections", "--service", "nginx", "--process", "curl", "--outside"], Some(true)),
        (&["connections", "--service", "nginx", "--process", "curl", "--inside"], Some(false)),
    ] {
        let host = host();
        host.davy(args);
        let (service, process) = (Some("nginx".to_owned()), Some("curl".to_owned()));
        let asked = Query::Connections { since: None, limit: 100, service, process, outside };
        assert_eq!(host.heard(), [RequestBody::Query(asked)]);
    }
    assert_eq!(host().davy(&["connections", "--outside", "--inside"]).code, 2);
}

#[test]
fn bans() {
    answers("bans", &["bans"]);
}

#[test]
fn ports() {
    answers("ports", &["ports"]);
}

#[test]
fn who_may_connect_to_what() {
    answers("outbound", &["outbound", "status", "--quiet"]);
    answers("outbound_learn", &["outbound", "learn", "--quiet"]);
    let hint = host().davy(&["outbound", "learn"]).err;
    assert!(hint.contains("proposed"), "{hint}");
}

#[test]
fn what_a_policy_would_have_refused_is_shown_and_added_to_it() {
    let host = host();
    let etc = host.base().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let file = etc.join("davy.toml");
    std::fs::write(&file, "[outbound]\nmode = \"observe\"\n").unwrap();
    let replayed = || -> serde_json::Value {
        let ended = host.davy(&["outbound", "replay", "--since", "7d", "--json"]);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""));
        serde_json::from_str(&ended.out).unwrap()
    };
    let before = replayed();
    assert_eq!(
        (&before["connections"], &before["allowed"], &before["refused"]),
        (&1206.into(), &0.into(), &1205.into())
    );
    assert_eq!(before["missing"][0]["service"], "apache2.service", "most first");
    assert_eq!(before["unclear"].as_array().unwrap().len(), 1);
    let shown = host.davy(&["outbound", "replay"]);
    assert!(shown.out.contains("Of 1,206 connections 1,205 would have been refused by"), "{}", shown.out);
    assert!(shown.err.contains("--accept"), "{}", shown.err);

    let accepted = host.davy(&["outbound", "learn", "--accept"]);
    assert_eq!(accepted.code, 0, "{}", accepted.err);
    assert!(
        accepted.out.starts_with("--- ") && accepted.out.contains("+service = \"apache2.service\""),
        "{}",
        accepted.out
    );
    assert!(
        accepted.err.contains("2 entries added to") && accepted.err.contains("davy policy reload"),
        "{}",
        accepted.err
    );
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("[outbound]\nmode = \"observe\"\n\n# "), "{text}");
    let after = replayed();
    assert_eq!((&after["allowed"], &after["refused"]), (&1205.into(), &0.into()));
    let again = host.davy(&["outbound", "learn", "--accept"]);
    assert_eq!((again.code, again.out.as_str()), (0, ""), "{}", again.err);
    assert!(again.err.contains("nothing to add"), "{}", again.err);
    let added: serde_json::Value =
        serde_json::from_str(&host.davy(&["outbound", "learn", "--accept", "--json"]).out).unwrap();
    assert_eq!((&added["added"], &added["left"]), (&serde_json::json!([]), &serde_json::json!([])));

    std::fs::write(&file, "[outbound]\nmode = \"fierce\"\n").unwrap();
    for verb in [&["outbound", "replay"][..], &["outbound", "learn", "--accept"]] {
        let faulty = host.davy(verb);
        assert_eq!((faulty.code, faulty.out.as_str()), (6, ""), "{}", faulty.err);
        assert!(faulty.err.contains("fierce"), "{}", faulty.err);
    }
}

#[test]
fn the_quarantine() {
    answers("quarantine", &["quarantine", "list"]);
}

#[test]
fn one_file_in_quarantine() {
    answers("quarantine_file", &["quarantine", "show", "3"]);
    assert_eq!(host().davy(&["quarantine", "show", "4"]).code, 4);
}

#[test]
fn top_once() {
    answers("top", &["top", "--once"]);
}

#[test]
fn questions_carry_their_filters() {
    let host = host();
    host.davy(&[
        "events",
        "--since",
        "2026-02-03T03:12:41Z",
        "--pid",
        "4711",
        "--kind",
        "exec",
        "--limit",
        "5",
    ]);
    let asked = Query::Events {
        since: Some(canned::BEGAN),
        limit: 5,
        pid: Some(4711),
        kinds: vec!["exec".to_owned()],
        follow: false,
    };
    assert_eq!(host.heard()[0], RequestBody::Query(asked));
}

#[test]
fn a_process_that_no_event_names_is_asked_for_once() {
    let heard = |pid| {
        let host = FakeAgent::answering(move |request| match request {
            RequestBody::Query(Query::Process { pid: 811 }) => {
                vec![Reply::Process(canned::process(811, "apache2", "/usr/sbin/apache2", &[]))]
            }
            RequestBody::Query(Query::Events { .. }) => {
                let exit = davy_model::EventKind::Exit(davy_model::Exit::default());
                let process = Some(canned::key(pid));
                let event = davy_model::Event { time: canned::BEGAN, process, kind: exit };
                vec![Reply::Event(event.clone()), Reply::Event(event)]
            }
            _ => vec![],
        });
        (host.davy(&["events"]).out, host.heard().len())
    };
    let (out, questions) = heard(811);
    assert_eq!((out.matches("apache2 811").count(), questions), (2, 2), "{out}");
    let (out, questions) = heard(5);
    assert_eq!((out.matches("pid 5").count(), questions), (2, 2), "{out}");
}

#[test]
fn every_kind_of_event_can_be_asked_for() {
    for event in canned::events() {
        let name = serde_json::to_value(&event).unwrap()["event"].as_str().unwrap().to_owned();
        assert_eq!(host().davy(&["events", "--kind", &name]).code, 0, "{name}");
    }
    assert_eq!(host().davy(&["events", "--kind", "rumour"]).code, 2);
}

#[test]
fn changes_go_to_the_change_socket() {
    let cases: [(&[&str], Command); 10] = [
        (&["undo", "7"], Command::UndoIncident { id: IncidentId(7) }),
        (&["undo", "a31"], Command::UndoAction { id: ActionId(31) }),
        (
            &["act", "7", "freeze", "cut"],
            Command::Act { id: IncidentId(7), actions: vec!["freeze".to_owned(), "cut".to_owned()] },
        ),
        (&["disarm", "--for", "10m"], Command::Disarm { seconds: 600 }),
        (&["disarm", "--end"], Command::Arm),
        (
            &["isolate", "--for", "30m", "--keep", "10.0.0.0/8", "--keep", "2001:db8::1"],
            Command::Isolate {
                cgroup: None,
                keep: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::1".parse().unwrap()],
                seconds: 1800,
                anyway: false,
            },
        ),
        (&["isolate", "--end"], Command::Rejoin),
        (&["policy", "reload"], Command::Reload),
        (&["stop"], Command::Stop),
        (&["undo", "incident", "7"], Command::UndoIncident { id: IncidentId(7) }),
    ];
    for (args, command) in cases {
        let host = host();
        let ended = host.davy(args);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{args:?}");
        assert_eq!(ended.out.lines().collect::<Vec<_>>().join(" "), format!("Did it: {command:?}."));
        assert_eq!(host.heard(), [RequestBody::Command(command)]);
    }
    let ended = host().davy(&["--json", "stop"]);
    assert_eq!(ended.out, "{\n  \"done\": \"Did it: Stop.\"\n}\n");
}

#[test]
fn several_sentences_are_several_lines() {
    let host = FakeAgent::answering(|_| vec![Reply::Done("one\ntwo \u{1b}[2J".to_owned())]);
    assert_eq!(host.davy(&["undo", "7"]).out, "one\ntwo \\x1b[2J\n");
}

#[test]
fn what_is_missing_is_not_found() {
    let ended = host().davy(&["incidents", "99"]);
    assert_eq!(ended.code, 4);
    assert_eq!(ended.err, "davy: there is no such thing\n");
    let ended = host().davy(&["explain", "f99", "--json"]);
    assert_eq!(ended.code, 4);
    let error: serde_json::Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!(error["error"]["code"], "not_found");
}

/// The names of all fields in a document, but for the numbers that evidence names itself.
fn fields(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|v| fields(v, found)),
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                found.insert(name.clone());
                if name != "numbers" {
                    fields(value, found);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn the_reference_names_every_field() {
    let reference = include_str!("../../../docs/reference/json.md");
    let words: std::collections::BTreeSet<&str> =
        reference.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let host = host();
    let mut found = std::collections::BTreeSet::new();
    for verb in [
        &["status"] as &[&str],
        &["top"],
        &["events"],
        &["findings"],
        &["incidents", "7"],
        &["explain", "7"],
        &["explain", "f12"],
        &["actions"],
        &["connections"],
        &["quarantine", "list"],
        &["stop"],
        &["incidents", "99"],
        &["policy", "check"],
        &["drill", "--list"],
    ] {
        let ended = host.davy(&[verb, &["--json"]].concat());
        let document = if ended.code == 0 { ended.out } else { ended.err };
        fields(&serde_json::from_str(&document).unwrap(), &mut found);
    }
    assert!(found.len() > 100, "{found:?}");
    let missing: Vec<&String> = found.iter().filter(|f| !words.contains(f.as_str())).collect();
    assert!(missing.is_empty(), "docs/reference/json.md does not name {missing:?}");
}
