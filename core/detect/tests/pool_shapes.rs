//! The shape of pool traffic from synthetic traces: what is a pool's, at any rate and in any dialect, and what is not.
#![allow(clippy::unwrap_used, missing_docs)]

mod scene;

use davy_detect::{PoolShape, pool_shape};
use davy_model::{Direction, FlowKey};
use scene::{Scene, chance};

/// Sizes of one dialect as they are in TLS: a solution, its answer, a job.
struct Sizes {
    name: &'static str,
    solution: u32,
    answer: u32,
    job: u32,
}

const DIALECTS: [Sizes; 3] = [
    Sizes { name: "Monero", solution: 225, answer: 85, job: 382 },
    Sizes { name: "Bitcoin", solution: 117, answer: 58, job: 951 },
    Sizes { name: "EthereumStratum", solution: 91, answer: 62, job: 240 },
];

/// What a trace is after `events` draws, of which each is a job or a solution, `pace` seconds apart on average.
fn pool(sizes: &Sizes, pace: f64, events: usize, seed: usize, accepted: bool) -> Option<PoolShape> {
    trace(accepted, |scene, flow| {
        for draw in 0..events {
            let luck = (chance(seed * 1000 + draw) % 1000) as f64 / 1000.0;
            // Solutions come as luck has it: gaps of an exponential distribution.
            scene.wait(-pace * (1.0 - luck * 0.98).ln() + 0.1);
            let digits = (chance(draw) % 3) as u32;
            if chance(seed + draw * 7).is_multiple_of(3) {
                scene.size(flow, Direction::Received, sizes.job + digits * 2);
            } else {
                scene.size(flow, Direction::Sent, sizes.solution + digits);
                scene.wait(0.04);
                scene.size(flow, Direction::Received, sizes.answer + digits);
            }
        }
    })
}

fn trace(accepted: bool, play: impl Fn(&mut Scene, FlowKey)) -> Option<PoolShape> {
    let mut scene = Scene::new();
    let process = scene.run(scene.init(), "/usr/bin/x", &["x"]);
    let flow = scene.flow(process, "198.51.100.7:443", accepted);
    scene.size(flow, Direction::Sent, 517);
    scene.size(flow, Direction::Received, 3000);
    scene.wait(1.5);
    play(&mut scene, flow);
    pool_shape(scene.detector.flows().get(&flow).unwrap())
}

#[test]
fn a_pool_is_one_at_any_rate_and_in_any_dialect() {
    for sizes in &DIALECTS {
        for pace in [0.3, 2.0, 20.0, 300.0] {
            for seed in 0..20 {
                let shape = pool(sizes, pace, 30, seed, false).expect("enough of it");
                assert!(shape.score >= 0.8, "{} at {pace} s, {seed}: {shape:?}", sizes.name);
            }
        }
    }
}

#[test]
fn most_pools_are_known_after_five_events() {
    let known = (0..200)
        .filter(|seed| pool(&DIALECTS[0], 2.0, 5, *seed, false).is_some_and(|s| s.score >= 0.6))
        .count();
    assert!(known >= 120, "{known} of 200");
}

#[test]
fn who_serves_is_no_miner() {
    assert!(pool(&DIALECTS[0], 2.0, 30, 1, true).is_none());
}

#[test]
fn other_conversations_score_low() {
    let say = |scene: &mut Scene, flow, direction, size: usize| {
        scene.wait(0.04);
        scene.size(flow, direction, size as u32);
    };
    for seed in 0..50 {
        let draw = |n: usize, of: usize| chance(seed * 977 + n) % of;
        let chat = trace(false, |scene, flow| {
            for n in 0..40 {
                scene.wait(1.0 + draw(n, 40) as f64 / 10.0);
                if draw(n, 2) == 0 {
                    say(scene, flow, Direction::Sent, 50 + draw(n + 100, 500));
                    say(scene, flow, Direction::Received, 40 + draw(n + 200, 60));
                } else {
                    say(scene, flow, Direction::Received, 60 + draw(n + 300, 700));
                }
            }
        });
        assert!(chat.is_none_or(|s| s.score < 0.5), "chat {seed}: {chat:?}");
        let heartbeat = trace(false, |scene, flow| {
            for n in 0..40 {
                scene.wait(4.96);
                say(scene, flow, Direction::Sent, 220);
                say(scene, flow, Direction::Received, 60);
                if draw(n, 5) == 0 {
                    scene.wait(1.0);
                    say(scene, flow, Direction::Received, 300);
                    scene.wait(-1.04);
                }
            }
        });
        assert!(heartbeat.is_none_or(|s| s.score < 0.5), "heartbeat {seed}: {heartbeat:?}");
        let shell = trace(false, |scene, flow| {
            for n in 0..60 {
                scene.wait(0.1 + draw(n, 20) as f64 / 10.0);
                say(scene, flow, Direction::Sent, 36);
                say(scene, flow, Direction::Received, 36);
                if draw(n, 9) == 0 {
                    scene.wait(0.5);
                    say(scene, flow, Direction::Received, 100 + draw(n + 50, 4000));
                }
            }
        });
        assert!(shell.is_none_or(|s| s.score < 0.5), "shell {seed}: {shell:?}");
        let requests = trace(false, |scene, flow| {
            for n in 0..60 {
                scene.wait(draw(n, 30) as f64 / 10.0);
                say(scene, flow, Direction::Sent, 300 + draw(n, 40));
                say(scene, flow, Direction::Received, 500 + draw(n + 60, 20_000));
            }
        });
        assert!(requests.is_none_or(|s| s.score < 0.5), "requests {seed}: {requests:?}");
    }
}
