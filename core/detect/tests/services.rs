//! What a service started: told in words, answered for what it started and never for the service.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_model::{
    Action, EventKind, FindingKind, ProcessKey, ProgramClass, ServiceBreach, Severity, Technique,
};
use scene::{Scene, info};

fn breach(root: ProcessKey, refused: bool) -> EventKind {
    EventKind::ServiceBreach(Box::new(ServiceBreach {
        service: "php-fpm".to_owned(),
        root,
        class: ProgramClass::Shell,
        path: "/usr/bin/dash".to_owned(),
        command: "sh -c id".to_owned(),
        chain: vec!["php-fpm8.2".to_owned(), "env".to_owned()],
        refused,
        technique: Technique::new("T1505.003"),
    }))
}

/// A service that runs, and a worker of it.
fn service(scene: &mut Scene) -> (ProcessKey, ProcessKey) {
    let (root, worker) = (scene::key(500), scene::key(501));
    let program = info(root, Some(scene.init()), "php-fpm8.2", "/usr/sbin/php-fpm8.2", &["php-fpm: master"]);
    scene.event(Some(root), EventKind::Exec(Box::new(program)));
    scene.event(Some(root), EventKind::Fork { child: worker, comm: "php-fpm8.2".to_owned() });
    (root, worker)
}

#[test]
fn a_shell_from_a_service_is_told_and_ended_alone() {
    let mut scene = Scene::new();
    let (root, worker) = service(&mut scene);
    let shell = scene::key(502);
    scene.event(Some(worker), EventKind::Fork { child: shell, comm: "php-fpm8.2".to_owned() });
    let program = info(shell, Some(worker), "sh", "/usr/bin/dash", &["sh", "-c", "id"]);
    scene.event(Some(shell), EventKind::Exec(Box::new(program)));
    scene.event(Some(shell), breach(root, false));
    let told = scene.detector.conclude(scene.now);
    let finding = &told.findings[0].item;
    assert_eq!((finding.kind, finding.severity), (FindingKind::Service, Severity::High));
    for words in ["a shell", "php-fpm (500)", "`sh -c id`", "php-fpm8.2 > env"] {
        assert!(finding.summary.contains(words), "{}", finding.summary);
    }
    assert_eq!(finding.techniques, [Technique::new("T1505.003")]);
    let kills: Vec<_> = told
        .proposals
        .iter()
        .filter_map(|p| match &p.item.action {
            Action::Kill { root, tree } => Some((*root, tree.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(kills, [(shell, vec![shell])], "the service is left alone");
    assert_eq!(told.incidents.len(), 1);
    assert!(told.incidents[0].item.title.contains("a service started"), "{}", told.incidents[0].item.title);
}

#[test]
fn what_was_refused_is_told_of_the_service_and_nobody_is_ended_for_it() {
    let mut scene = Scene::new();
    let (root, worker) = service(&mut scene);
    scene.event(Some(worker), breach(root, true));
    let told = scene.detector.conclude(scene.now);
    assert!(
        told.findings[0].item.summary.contains("was kept from starting a shell"),
        "{}",
        told.findings[0].item.summary
    );
    assert!(told.proposals.iter().all(|p| p.item.action == Action::Alert), "{:?}", told.proposals);
}

#[test]
fn of_what_is_over_only_is_told() {
    let mut scene = Scene::new();
    let (root, worker) = service(&mut scene);
    let shell = scene::key(502);
    let program = info(shell, Some(worker), "sh", "/usr/bin/dash", &["sh", "-c", "id"]);
    scene.event(Some(shell), EventKind::Exec(Box::new(program)));
    scene.event(Some(shell), breach(root, false));
    scene.event(Some(shell), EventKind::Exit(davy_model::Exit::default()));
    let told = scene.detector.conclude(scene.now);
    assert_eq!(told.findings.len(), 1);
    assert!(told.proposals.iter().all(|p| p.item.action == Action::Alert), "{:?}", told.proposals);
}
