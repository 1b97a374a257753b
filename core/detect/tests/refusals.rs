//! Code that was refused: told once for each kind, and told anew when the same tree tries another.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_model::{CodeJudgement, CodeKind, CodeOutcome, CodeReason, EventKind, FindingKind};
use scene::Scene;

fn denied(kind: CodeKind, path: &str) -> EventKind {
    EventKind::CodeJudged(Box::new(CodeJudgement {
        kind,
        outcome: CodeOutcome::Denied,
        reason: CodeReason::Unknown,
        file: None,
        path: Some(path.to_owned()),
        sha256: None,
        repeats: 0,
    }))
}

#[test]
fn a_tree_that_is_refused_one_kind_of_code_and_tries_another_is_told_anew() {
    let mut scene = Scene::new();
    let shell = scene.run(scene.init(), "/usr/bin/bash", &["bash"]);
    let child = scene.fork(shell);
    scene.event(Some(child), denied(CodeKind::Exec, "/tmp/a"));
    let first = scene.detector.conclude(scene.now);
    assert_eq!(first.findings.len(), 1);
    assert_eq!(first.findings[0].item.kind, FindingKind::Untrusted);

    // The same again is not news.
    scene.wait(3.0);
    let child = scene.fork(shell);
    scene.event(Some(child), denied(CodeKind::Exec, "/tmp/b"));
    assert!(scene.detector.conclude(scene.now).findings.is_empty());

    scene.wait(3.0);
    let child = scene.fork(shell);
    scene.event(Some(child), denied(CodeKind::Nameless, "/memfd:c"));
    let told = scene.detector.conclude(scene.now);
    let finding = &told.findings[0];
    assert!(finding.renewed && finding.slot == first.findings[0].slot, "{finding:?}");
    let texts: Vec<&str> = finding.item.evidence.iter().map(|e| e.text.as_str()).collect();
    assert!(texts.iter().any(|text| text.contains("code without a file /memfd:c")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("the program /tmp/b")), "{texts:?}");
}
