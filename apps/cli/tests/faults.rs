//! No agent, a hostile agent, an agent of another version: each ends in a sentence and an exit code.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod canned;
mod fake_agent;

use davy_wire::{ErrorCode, MAX_LINE, Reply};
use fake_agent::{Ended, FakeAgent, davy, lines};

fn status_from(answer: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Ended {
    FakeAgent::scripted(move |_, _| answer()).davy(&["status"])
}

#[test]
fn no_agent_says_how_to_start_one() {
    let base = tempfile::tempdir().unwrap();
    let ended = davy(base.path(), &["status"]);
    assert_eq!(ended.code, 3);
    assert!(ended.err.contains("no agent is running"), "{}", ended.err);
    assert!(ended.err.contains(&format!("davy --base-dir {} run", base.path().display())), "{}", ended.err);
    assert_eq!(ended.out, "");
}

#[test]
fn a_dead_agents_socket_is_no_agent() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(base.path().join("run/control.sock")).unwrap());
    assert_eq!(davy(base.path(), &["stop"]).code, 3);
}

#[test]
fn garbage_is_not_understood() {
    let ended = status_from(|| b"\x00\xff{{{\x1b[2J\n".to_vec());
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("cannot understand the agent's answer"), "{}", ended.err);
    assert!(ended.err.contains("version 1 of the protocol"), "{}", ended.err);
}

#[test]
fn an_answer_of_a_newer_protocol_is_not_understood() {
    let ended = status_from(|| b"{\"reply\":\"oracle\",\"data\":{}}\n".to_vec());
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("oracle"), "{}", ended.err);
}

#[test]
fn an_answer_to_another_question_is_named() {
    let ended = status_from(|| lines(&[Reply::Done("hello".to_owned())]));
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("answered with done"), "{}", ended.err);
}

#[test]
fn a_conversation_cut_short_is_told() {
    let whole = lines(&[Reply::Status(canned::status())]);
    for kept in [0, 1, whole.len() / 2, whole.len() - 1] {
        let part = whole[..kept].to_vec();
        let ended = status_from(move || part.clone());
        assert_eq!(ended.code, 1, "{kept}");
        assert!(ended.err.contains("before it had finished"), "{}", ended.err);
        assert_eq!(ended.out, "");
    }
}

#[test]
fn a_list_without_an_end_is_not_taken_for_a_whole_one() {
    let agent = FakeAgent::scripted(|_, _| {
        lines(&canned::listed().into_iter().map(Reply::Incident).collect::<Vec<_>>())
    });
    let ended = agent.davy(&["incidents", "--json"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
}

#[test]
fn an_endless_line_is_not_read_to_its_end() {
    let ended = status_from(|| vec![b'x'; MAX_LINE + 4096]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("more than 16777216 bytes"), "{}", ended.err);
}

#[test]
fn refusals_become_exit_codes() {
    for (code, exit) in [
        (ErrorCode::Forbidden, 5),
        (ErrorCode::NotFound, 4),
        (ErrorCode::Invalid, 2),
        (ErrorCode::Failed, 1),
        (ErrorCode::Malformed, 1),
        (ErrorCode::Version, 1),
    ] {
        let refusal = Reply::Error { code, message: "no\x1b[31m!".to_owned() };
        let ended = status_from(move || lines(std::slice::from_ref(&refusal)));
        assert_eq!(ended.code, exit, "{code:?}");
        assert!(ended.err.contains("no\\x1b[31m!"), "{}", ended.err);
        assert!(!ended.err.contains('\x1b'));
    }
}

#[test]
fn another_version_names_both() {
    let message = "the client speaks protocol 1, this agent speaks 9".to_owned();
    let refusal = Reply::Error { code: ErrorCode::Version, message };
    let ended = status_from(move || lines(std::slice::from_ref(&refusal)));
    assert!(ended.err.contains("this agent speaks 9"), "{}", ended.err);
    assert!(ended.err.contains("speaks version 1"), "{}", ended.err);
}

#[test]
fn wrong_usage_is_two() {
    let base = tempfile::tempdir().unwrap();
    for args in [
        &["frobnicate"] as &[&str],
        &[],
        &["disarm"],
        &["disarm", "--for", "soon"],
        &["disarm", "--for", "10m", "--end"],
        &["isolate"],
        &["isolate", "--for", "10m", "--keep", "everybody"],
        &["isolate", "--for", "10m", "--keep", "10.1.2.3/8"],
        &["isolate", "--end", "--in", "/a.service"],
        &["explain"],
        &["explain", "nonsense"],
        &["undo", "f3"],
        &["act", "7"],
        &["act", "7", "dance"],
        &["events", "--since", "once upon a time"],
        &["status", "-q", "-v"],
    ] {
        assert_eq!(davy(base.path(), args).code, 2, "{args:?}");
    }
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let agent = FakeAgent::answering(|_| canned::events().into_iter().map(Reply::Event).collect());
    let exit = agent.unread(&["events"]);
    assert_eq!(exit, 0);
}
