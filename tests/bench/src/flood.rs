//! How many process events an agent takes in without loss.
#![allow(unsafe_code)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::agent::Agent;

/// Events a second that are asked for: each child gives two, a birth and an end. The last is beyond what is promised.
pub(crate) const RATES: [u32; 5] = [5_000, 10_000, 25_000, 50_000, 100_000];

/// How long each rate is held.
const TIME: u64 = 5;

/// Processes that bear children. One for each core of the smallest host that Davy is measured for.
const GENERATORS: u32 = 2;

/// One rate, and what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Flood {
    /// Process events a second asked for.
    pub(crate) asked: u32,
    /// Process events a second that the host managed to make.
    pub(crate) made: f64,
    /// Events a second that the agent took in, everything else on the host included.
    pub(crate) taken: f64,
    /// What it lost meanwhile, as `kind: count`.
    pub(crate) lost: Vec<String>,
}

/// Floods an agent at one rate.
pub(crate) fn measure(agent: &Agent, rate: u32) -> Result<Flood> {
    eprintln!("{rate} process events a second, {TIME} s");
    let before = agent.status()?;
    let begin = Instant::now();
    let each = (rate / 2 / GENERATORS).to_string();
    let generators = (0..GENERATORS).map(|_| {
        Command::new(std::env::current_exe()?)
            .args(["flood", &each, &TIME.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a generator")
    });
    let mut forks = 0;
    for generator in generators.collect::<Result<Vec<_>>>()? {
        let output = generator.wait_with_output()?;
        ensure!(output.status.success(), "a generator failed");
        forks += String::from_utf8(output.stdout)?.trim().parse::<u64>()?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    // What is still in the lanes is not lost.
    std::thread::sleep(Duration::from_secs(2));
    let after = agent.status()?;
    let events = |status: &Value| status["events"].as_u64().unwrap_or(0);
    Ok(Flood {
        asked: rate,
        made: 2.0 * forks as f64 / seconds,
        taken: (events(&after) - events(&before)) as f64 / seconds,
        lost: losses(&before, &after),
    })
}

fn losses(before: &Value, after: &Value) -> Vec<String> {
    let of = |status: &Value, kind: &Value| {
        let drops = status["drops"].as_array();
        drops
            .into_iter()
            .flatten()
            .find(|d| d["kind"] == *kind)
            .and_then(|d| d["count"].as_u64())
            .unwrap_or(0)
    };
    let all = after["drops"].as_array().cloned().unwrap_or_default();
    let grown = all.iter().map(|drop| (&drop["kind"], of(after, &drop["kind"]) - of(before, &drop["kind"])));
    grown
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{}: {count}", kind.as_str().unwrap_or("")))
        .collect()
}

/// Stack of a child, in bytes; it calls nothing.
const STACK: usize = 16 * 1024;

/// What a child does: it ends. The value is its exit code.
extern "C" fn end_at_once(_: *mut libc::c_void) -> libc::c_int {
    0
}

/// Bears children that end at once, evenly over time; gives how many. They share the parent's memory, which waits for
/// them, as vfork(2) has it: copying an address space would take most of the time and tell nothing of the agent.
pub(crate) fn generate(rate: u32, time: Duration) -> u64 {
    let begin = Instant::now();
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end.cast();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let mut children = 0u64;
    while begin.elapsed() < time {
        let due = (begin.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        if children >= due {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        // SAFETY: the child runs on a stack of its own, aligned and used by one child at a time, because this process
        // has one thread and CLONE_VFORK holds it until the child has ended; the child touches no memory but that stack.
        let child = unsafe { libc::clone(end_at_once, top, flags, std::ptr::null_mut()) };
        if child > 0 {
            // SAFETY: waits for the child just made; a null status is allowed (wait(2)).
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            children += 1;
        } else {
            // No more processes: the rate is what it is.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    children
}
