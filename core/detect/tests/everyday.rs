//! Everyday loads, told as events: never called mining, wherever they run from.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_model::{
    Direction, EventKind, FindingKind, FlowKey, ImageKind, MemoryShape, ProcessKey, Severity, Signal,
};
use scene::{Scene, everyday};

struct Load {
    name: &'static str,
    threads: u32,
    shares: &'static [f64],
    waits: f64,
    nice: i32,
    mxcsr: &'static [u32],
    memory: Option<(u64, u32, u64)>,
}

const PLAIN: &[u32] = &[0x1fa0];
const MIB: u64 = 1 << 20;

const LOADS: [Load; 16] = [
    Load { name: "openssl", threads: 2, shares: &[0.99], waits: 0.1, nice: 0, mxcsr: PLAIN, memory: None },
    Load {
        name: "xz",
        threads: 3,
        shares: &[0.98, 0.95, 0.99],
        waits: 4.0,
        nice: 0,
        mxcsr: PLAIN,
        memory: Some((200 * MIB, 0, 0)),
    },
    Load {
        name: "rustc",
        threads: 4,
        shares: &[0.2, 0.9, 0.6, 0.1],
        waits: 90.0,
        nice: 0,
        mxcsr: PLAIN,
        memory: None,
    },
    Load {
        name: "sysbench",
        threads: 2,
        shares: &[0.99],
        waits: 0.2,
        nice: 0,
        mxcsr: PLAIN,
        memory: Some((256 * MIB, 0, 0)),
    },
    Load {
        name: "stress-ng",
        threads: 2,
        shares: &[1.0],
        waits: 0.0,
        nice: 0,
        mxcsr: PLAIN,
        memory: Some((256 * MIB, 4, 0)),
    },
    Load {
        name: "ffmpeg",
        threads: 6,
        shares: &[0.3, 0.35, 0.28],
        waits: 60.0,
        nice: 10,
        mxcsr: &[0x1fa0, 0x1fa1],
        memory: None,
    },
    // OpenBLAS and friends with fast-math set both bits, and never change the mode.
    Load {
        name: "python3",
        threads: 2,
        shares: &[0.99],
        waits: 1.0,
        nice: 0,
        mxcsr: &[0x9fe0],
        memory: Some((512 * MIB, 0, 0)),
    },
    // Interval arithmetic rounds up and down, without those bits.
    Load {
        name: "gappa",
        threads: 1,
        shares: &[0.99],
        waits: 0.1,
        nice: 0,
        mxcsr: &[0x5fa0, 0x3fa0, 0x1fa0, 0x7fa0],
        memory: None,
    },
    Load {
        name: "pgbench",
        threads: 2,
        shares: &[0.5, 0.45],
        waits: 4000.0,
        nice: 0,
        mxcsr: PLAIN,
        memory: None,
    },
    Load { name: "john", threads: 2, shares: &[0.99], waits: 0.3, nice: 19, mxcsr: PLAIN, memory: None },
    Load {
        name: "java",
        threads: 2,
        shares: &[0.99],
        waits: 2.0,
        nice: 0,
        mxcsr: PLAIN,
        memory: Some((256 * MIB, 3, 4 * MIB)),
    },
    Load {
        name: "node",
        threads: 1,
        shares: &[0.99],
        waits: 1.0,
        nice: 0,
        mxcsr: PLAIN,
        memory: Some((100 * MIB, 0, 2 * MIB)),
    },
    Load { name: "gpg", threads: 1, shares: &[0.99], waits: 0.1, nice: 0, mxcsr: PLAIN, memory: None },
    Load {
        name: "zstd",
        threads: 3,
        shares: &[0.9, 0.7, 0.95],
        waits: 40.0,
        nice: 19,
        mxcsr: PLAIN,
        memory: None,
    },
    Load { name: "throttled", threads: 2, shares: &[0.25], waits: 3.0, nice: 0, mxcsr: PLAIN, memory: None },
    Load {
        name: "boinc",
        threads: 2,
        shares: &[0.99],
        waits: 0.5,
        nice: 19,
        mxcsr: PLAIN,
        memory: Some((2081 * MIB, 0, 0)),
    },
];

/// Ten minutes of a load, with the probes answered.
fn play(load: &Load, path: &str) -> Scene {
    let mut scene = Scene::new();
    scene.sessions = 0;
    let process = scene.run(scene.init(), path, &[load.name]);
    scene.threads(process, load.threads, |t| {
        t.shares = load.shares.to_vec();
        t.waits = load.waits;
        t.nice = load.nice;
        t.allowed = 1;
        t.mxcsr = load.mxcsr.to_vec();
    });
    for second in 0..600 {
        if second == 10
            && let Some((largest, scratchpads, jit)) = load.memory
        {
            let shape = MemoryShape {
                process,
                resident: largest,
                hugetlb: 0,
                largest_anonymous: largest,
                scratchpads,
                anonymous_executable: jit,
                writable_executable: 0,
                nameless_code: 0,
            };
            scene.event(Some(process), EventKind::Memory(shape));
        }
        if second == 20 {
            scene.event(Some(process), EventKind::Syscalls { count: 50, cpu_ns: 1_000_000_000 });
        }
        scene.second();
    }
    scene
}

#[test]
fn no_load_is_called_mining_from_anywhere() {
    for load in &LOADS {
        for folder in ["/usr/bin/", "/tmp/", "/home/u/.hidden/", "/dev/shm/"] {
            let scene = play(load, &format!("{folder}{}", load.name));
            assert!(scene.mining().is_none(), "{folder}{}: {:?}", load.name, scene.mining());
            assert!(scene.findings.values().all(|f| f.severity < Severity::High), "{folder}{}", load.name);
        }
    }
}

#[test]
fn computation_is_seen_for_what_it_is() {
    // The other tests cannot pass by blindness: the engine does see that these compute.
    let scene = play(&LOADS[0], "/usr/bin/openssl");
    let busiest = scene.detector.busiest(3);
    assert_eq!(busiest.len(), 1);
    assert_eq!(busiest[0].threads, 2);
    assert!(busiest[0].cpu > 1.9);
    assert!(
        busiest[0].evidence.iter().any(|e| e.contains("2 threads at 99 % of a CPU each")),
        "{:?}",
        busiest[0].evidence
    );
    assert!(busiest[0].bits < -3.0);
}

/// Plays `talk` for two minutes beside full computation of the same process.
fn talking(talk: impl Fn(&mut Scene, FlowKey, usize)) -> Scene {
    let mut scene = Scene::new();
    let process: ProcessKey = scene.run(scene.init(), "/usr/bin/app", &["app"]);
    scene.threads(process, 2, |t| t.mxcsr = everyday());
    let flow = scene.open(process, "203.0.113.4:443");
    for second in 0..120 {
        scene.second();
        talk(&mut scene, flow, second);
    }
    scene.second();
    scene
}

fn say(scene: &mut Scene, flow: FlowKey, direction: Direction, size: u32) {
    scene.wait(0.06);
    scene.size(flow, direction, size);
}

#[test]
fn conversations_beside_computation_are_not_mining() {
    let chat = talking(|scene, flow, second| {
        // People write messages of every length, and get them.
        let draw = scene::chance(second);
        if draw.is_multiple_of(3) {
            say(scene, flow, Direction::Sent, 60 + (draw % 400) as u32);
            say(scene, flow, Direction::Received, 60 + (draw % 400) as u32 + 40);
        }
        if draw.is_multiple_of(4) {
            say(scene, flow, Direction::Received, 80 + (draw % 900) as u32);
        }
    });
    assert!(chat.mining().is_none(), "chat: {:?}", chat.mining());

    let heartbeat = talking(|scene, flow, second| {
        if second % 5 == 0 {
            say(scene, flow, Direction::Sent, 220);
            say(scene, flow, Direction::Received, 60);
        }
        if second % 30 == 7 {
            say(scene, flow, Direction::Received, 200 + (scene::chance(second) % 2000) as u32);
        }
    });
    assert!(heartbeat.mining().is_none(), "heartbeat: {:?}", heartbeat.mining());

    let keys = talking(|scene, flow, second| {
        for _ in 0..scene::chance(second) % 5 {
            say(scene, flow, Direction::Sent, 36);
            say(scene, flow, Direction::Received, 36);
        }
        if scene::chance(second).is_multiple_of(6) {
            say(scene, flow, Direction::Received, 100 + (scene::chance(second + 7) % 1400) as u32);
        }
    });
    assert!(keys.mining().is_none(), "ssh: {:?}", keys.mining());

    let queries = talking(|scene, flow, second| {
        for i in 0..4 {
            say(scene, flow, Direction::Sent, 70 + i);
            say(scene, flow, Direction::Received, 40 + (scene::chance(second + i as usize) % 200) as u32);
        }
    });
    assert!(queries.mining().is_none(), "queries: {:?}", queries.mining());

    let download = talking(|scene, flow, _| {
        say(scene, flow, Direction::Sent, 120);
        say(scene, flow, Direction::Received, 900_000);
    });
    assert!(download.mining().is_none());
}

#[test]
fn pool_traffic_alone_is_never_mining() {
    let mut scene = Scene::new();
    let relay = scene.run(scene.init(), "/usr/bin/socat", &["socat"]);
    scene.threads(relay, 1, |t| {
        t.shares = vec![0.01];
        t.waits = 50.0;
    });
    let flow = scene.open(relay, "198.51.100.7:443");
    for second in 0..300 {
        scene.second();
        if second % 9 == 0 {
            say(&mut scene, flow, Direction::Received, 382);
        }
        if scene::chance(second).is_multiple_of(4) {
            say(&mut scene, flow, Direction::Sent, 225);
            say(&mut scene, flow, Direction::Received, 85);
        }
    }
    assert!(scene.mining().is_none());
}

#[test]
fn container_runtimes_and_upgrades_are_no_disguise() {
    let mut scene = Scene::new();
    let shim = scene.run(
        scene.init(),
        "/usr/bin/containerd-shim-runc-v2",
        &["/usr/bin/containerd-shim-runc-v2", "-id", "x"],
    );
    let runc = scene.run(shim, "/usr/bin/runc", &["runc", "create", "x"]);
    let init = scene.run_as(
        runc,
        "runc:[2:INIT]",
        "/memfd:runc_cloned:/proc/self/exe (deleted)",
        ImageKind::Memfd,
        &["runc", "init"],
    );
    scene.event(Some(init), EventKind::Code(davy_model::CodeAct::NamelessExec { memfd: true }));
    let old = scene::info(
        scene::key(500),
        Some(scene.init()),
        "postgres",
        "/usr/lib/postgresql/15/bin/postgres (deleted)",
        &["postgres"],
    );
    let old = davy_model::ProcessInfo {
        image: davy_model::ExecImage { kind: ImageKind::Deleted, ..old.image },
        ..old
    };
    scene.event(Some(scene::key(500)), EventKind::Found(Box::new(old)));
    scene.seconds(3);
    assert!(scene.findings.is_empty(), "{:?}", scene.findings);
}

#[test]
fn administration_is_no_campaign() {
    let mut scene = Scene::new();
    let shell = scene.run(scene.init(), "/usr/bin/bash", &["-bash"]);
    for args in [
        &["/usr/bin/crontab", "-l"][..],
        &["/usr/bin/crontab", "-e"],
        &["/usr/sbin/iptables", "-L"],
        &["/usr/bin/systemctl", "restart", "nginx"],
        &["/usr/bin/systemctl", "stop", "apache2"],
        &["/usr/bin/pkill", "-HUP", "nginx"],
        &["/usr/bin/curl", "-O", "https://example.org/x.tar.gz"],
        &["/usr/bin/rm", "-rf", "/var/log/journal/old"],
        &["/usr/bin/grep", "stratum+tcp://", "/etc/config"],
        &["/usr/bin/bash", "-c", "cat /var/log/syslog | grep error > /tmp/errors"],
        &["/usr/bin/bash", "-c", "make -j2 && ./test | tee log"],
        &["/usr/bin/sh", "-c", "ps aux | grep nginx"],
    ] {
        let child = scene.run(shell, args[0], args);
        scene.exit(child);
    }
    scene.seconds(3);
    assert!(scene.findings.is_empty(), "{:?}", scene.findings);
}

#[test]
fn package_managers_may_write_units_and_cron_tables() {
    let mut scene = Scene::new();
    let dpkg = scene.run(scene.init(), "/usr/bin/dpkg", &["dpkg", "--unpack", "x.deb"]);
    let change = davy_model::FileChange {
        path: "/etc/cron.d/x".to_owned(),
        file: scene::file_id("/etc/cron.d/x"),
        act: davy_model::FileAct::Renamed { from: Some("/etc/cron.d/x.dpkg-new".to_owned()) },
        executable: false,
        code: false,
        place: Some(davy_model::PersistencePlace::Cron),
    };
    scene.event(Some(dpkg), EventKind::File(change));
    scene.seconds(2);
    assert!(scene.of_kind(FindingKind::Persistence).is_empty());
    assert!(scene.findings.values().all(|f| f.evidence.iter().all(|e| e.signal != Signal::Persistence)));
}

#[test]
fn pipes_and_one_liners_of_every_day_say_nothing() {
    let mut scene = Scene::new();
    let shell = scene.run(scene.init(), "/usr/bin/bash", &["-bash"]);
    for pipe in [
        [
            &["/usr/bin/curl", "-s", "http://localhost/health"][..],
            &["/usr/bin/python3.11", "-m", "json.tool"],
        ],
        [&["/usr/bin/curl", "-s", "http://localhost/x.json"], &["/usr/bin/jq", "."]],
        [&["/usr/bin/base64", "/etc/hostname"], &["/usr/bin/bash", "./upload.sh"]],
        [&["/usr/bin/cat", "x.sql"], &["/usr/bin/perl", "-pe", "s/a/b/"]],
    ] {
        let ends = pipe.map(|line| scene.run(shell, line[0], line));
        ends.into_iter().for_each(|end| scene.exit(end));
    }
    // A download that is over, and then a shell for the person.
    let curl = scene.run(shell, "/usr/bin/curl", &["curl", "-O", "https://example.org/x"]);
    scene.exit(curl);
    scene.seconds(1);
    scene.run(shell, "/usr/bin/bash", &["bash"]);
    for line in [
        &["/usr/bin/python3.11", "-c", "import socket; print(socket.gethostname())"][..],
        &["/usr/bin/php8.2", "-r", "echo PHP_VERSION;"],
        &["/usr/bin/node", "-e", "console.log(process.version)"],
        &["/usr/bin/bash", "-c", "nc -z localhost 5432"],
    ] {
        scene.run(shell, line[0], line);
    }
    scene.seconds(3);
    assert!(scene.findings.is_empty(), "{:?}", scene.findings);
}
