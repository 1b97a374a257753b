//! A connection that no rule allows is told in the incident of whoever tried it, and begins none.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use std::collections::BTreeMap;

use davy_model::{
    EventKind, Evidence, Finding, FindingId, FindingKind, Incident, ProcessKey, ScanHit, ScanMatch,
    ScanOccasion, Severity, Signal, Technique, Timestamp,
};
use scene::{Scene, file_id};

fn refused(time: Timestamp, tried: &[(ProcessKey, &str, u64)]) -> Finding {
    let evidence = tried.iter().map(|(process, to, times)| Evidence {
        time,
        signal: Signal::Outbound,
        weight: 0.0,
        text: format!("\"x\" was kept from connecting to {to}, {times} times: no rule of p.toml:4 allows it"),
        numbers: BTreeMap::from([("attempts".to_owned(), *times as f64)]),
        process: Some(*process),
        flow: None,
        technique: Some(Technique::new("T1071")),
    });
    Finding {
        id: FindingId(77),
        kind: FindingKind::Outbound,
        first: time,
        time,
        severity: Severity::Medium,
        confidence: 1.0,
        subject: tried.last().map(|(process, _, _)| *process),
        processes: tried.last().map(|(process, _, _)| *process).into_iter().collect(),
        summary: "x was kept from connecting".to_owned(),
        evidence: evidence.collect(),
        techniques: vec![Technique::new("T1071")],
    }
}

/// Something that opens an incident.
fn malware(scene: &mut Scene, process: ProcessKey, path: &str) {
    let matches = vec![ScanMatch {
        rule: "a_miner".to_owned(),
        origin: "davy".to_owned(),
        severity: Severity::High,
        description: "a program that mines".to_owned(),
        inside: Vec::new(),
        patterns: Vec::new(),
    }];
    let hit = ScanHit {
        file: file_id(path),
        path: path.to_owned(),
        born: None,
        occasion: ScanOccasion::Executed,
        sha256: None,
        matches,
    };
    scene.event(Some(process), EventKind::Scanned(Box::new(hit)));
    scene.second();
}

fn told(incident: &Incident) -> Vec<&str> {
    let outbound = incident.timeline.iter().filter(|entry| entry.text.contains("kept from connecting"));
    outbound.map(|entry| entry.text.as_str()).collect()
}

#[test]
fn it_joins_the_incident_of_its_processes_and_not_what_others_tried() {
    let mut scene = Scene::new();
    let miner = scene.run(scene.init(), "/tmp/x", &["/tmp/x"]);
    let other = scene.run(scene.init(), "/usr/bin/apt", &["apt"]);
    let tried = [(miner, "203.0.113.8:443", 3), (other, "198.51.100.1:80", 1)];
    scene.detector.adopt(&refused(scene.now, &tried));
    scene.second();
    assert!(scene.incidents.is_empty(), "it may be a gap in the policy");
    // The incident begins after it.
    malware(&mut scene, miner, "/tmp/x");
    let incident = scene.incidents.values().next().unwrap();
    assert_eq!(incident.findings.len(), 2, "{incident:?}");
    assert!(incident.findings.iter().any(|finding| finding.id == FindingId(77)));
    assert_eq!(
        told(incident),
        ["was kept from connecting to 203.0.113.8:443, 3 times: no rule of p.toml:4 allows it"]
    );
    assert!(incident.tree.iter().all(|node| node.process != other));

    // Told anew with another destination, it is one finding and one line more.
    let tried = [(miner, "203.0.113.8:443", 5), (miner, "203.0.113.9:443", 1), (other, "198.51.100.1:80", 1)];
    scene.detector.adopt(&refused(scene.now, &tried));
    scene.second();
    let incident = scene.incidents.values().next().unwrap();
    let lines = told(incident);
    assert_eq!((scene.incidents.len(), incident.findings.len(), lines.len()), (1, 2, 2), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("203.0.113.8:443, 5 times")), "{lines:?}");
}

#[test]
fn it_joins_no_story_that_begins_long_after_it_and_many_are_bounded() {
    let mut scene = Scene::new();
    let miner = scene.run(scene.init(), "/tmp/x", &["/tmp/x"]);
    scene.detector.adopt(&refused(scene.now, &[(miner, "203.0.113.8:443", 1)]));
    scene.wait(300.0);
    for number in 0..1000 {
        let other = Finding {
            id: FindingId(1000 + number),
            ..refused(scene.now, &[(scene.init(), "192.0.2.1:1", 1)])
        };
        scene.detector.adopt(&other);
    }
    malware(&mut scene, miner, "/tmp/x");
    let incident = scene.incidents.values().next().unwrap();
    assert_eq!((scene.incidents.len(), incident.findings.len()), (1, 1), "{incident:?}");
    assert_eq!(incident.findings[0].kind, FindingKind::Malware);
}
