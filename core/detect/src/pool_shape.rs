//! Pool traffic by its shape, whatever encrypts or relays it.
//!
//! A pool pushes jobs on its own rhythm; the miner hands in solutions now and then, each answered at once by a short
//! acknowledgement; each kind of message has nearly the same size every time. Encryption adds a constant to each size and nothing to the
//! rhythm. What is scored does not depend on the rate: whether pushes come unasked, how sizes agree with themselves and with each other,
//! and that solutions, which are found by luck, come irregularly where heartbeats come regularly.
//!
//! Chat, telemetry and remote shells come near some of it. So the score speaks for mining only together with computation of
//! the process tree that holds the flow.

use std::fmt;

use davy_model::{Direction, Timestamp, Transport};

use crate::flow_table::{Flow, Message};

/// An acknowledgement comes within this time, in seconds.
const ANSWER_SECS: f64 = 3.0;
/// The first moments of a flow (handshake, login, first job) follow other sizes.
const OPENING_SECS: f64 = 1.0;
/// Larger messages than this are no solutions.
const MAX_SOLUTION: u32 = 1_400;
/// Larger messages than this are no jobs.
const MAX_JOB: u32 = 6_000;

/// How much a flow looks like a miner's connection to its pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolShape {
    /// 0 to 1.
    pub score: f64,
    /// Messages sent that were answered: solutions.
    pub solutions: u32,
    /// Their usual size in bytes.
    pub solution_size: u32,
    /// The usual size of the answers.
    pub answer_size: u32,
    /// Messages received unasked: jobs.
    pub pushes: u32,
    /// Their usual size.
    pub push_size: u32,
    /// Seconds looked at.
    pub secs: f64,
}

impl fmt::Display for PoolShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sizes and rhythm of a pool ({:.2}): {} pushes of about {} bytes, {} messages of about {} bytes answered at once by {}, in {:.0} s",
            self.score,
            self.pushes,
            self.push_size,
            self.solutions,
            self.solution_size,
            self.answer_size,
            self.secs
        )
    }
}

/// Scores a flow; `None` while there is too little of it, or it cannot be a miner's.
#[must_use]
pub fn pool_shape(flow: &Flow) -> Option<PoolShape> {
    if flow.open.accepted || flow.open.transport != Transport::Tcp {
        return None;
    }
    let begin = if flow.from_start { flow.opened.plus_secs(OPENING_SECS) } else { Timestamp(i64::MIN) };
    let messages: Vec<&Message> = flow.messages.iter().filter(|m| m.time >= begin).collect();
    let exchanges = Exchanges::of(&messages);
    exchanges.score(&messages)
}

#[derive(Default)]
struct Exchanges {
    solutions: Vec<u32>,
    times: Vec<Timestamp>,
    answers: Vec<u32>,
    pushes: Vec<u32>,
    sent: u32,
}

impl Exchanges {
    fn of(messages: &[&Message]) -> Self {
        let mut exchanges = Self::default();
        let mut waiting: Option<&Message> = None;
        for message in messages {
            match message.direction {
                Direction::Sent => {
                    exchanges.sent += 1;
                    waiting = Some(message);
                }
                Direction::Received => match waiting.take() {
                    Some(asked) if message.time.secs_since(asked.end) <= ANSWER_SECS => {
                        exchanges.solutions.push(asked.size);
                        exchanges.times.push(asked.time);
                        exchanges.answers.push(message.size);
                    }
                    _ => exchanges.pushes.push(message.size),
                },
            }
        }
        // One still on its way is not unanswered.
        exchanges.sent -= u32::from(waiting.is_some());
        exchanges
    }

    fn score(&self, messages: &[&Message]) -> Option<PoolShape> {
        if self.solutions.is_empty() || self.pushes.is_empty() || self.solutions.len() + self.pushes.len() < 3
        {
            return None;
        }
        let solution = median(&self.solutions);
        let answer = median(&self.answers);
        let push = median(&self.pushes);
        let large = messages
            .iter()
            .filter(|m| m.size > if m.direction == Direction::Sent { MAX_SOLUTION } else { MAX_JOB })
            .count();
        if large * 20 > messages.len() || !(40..=MAX_SOLUTION).contains(&solution) || push > MAX_JOB {
            return None;
        }
        let mut points = 0.0;
        // Every solution is answered.
        points += if self.solutions.len() as u32 * 10 >= self.sent * 9 { 1.0 } else { -2.0 };
        // Solutions differ in a nonce of fixed length, answers in a counter, jobs in a blob.
        let fixed = agreement(&self.solutions, solution, 0.08);
        // A nonce has one length whatever is mined, so this is the surest of the three.
        points += if fixed < 0.0 { fixed * 2.0 } else { fixed };
        points += agreement(&self.answers, answer, 0.10) * 0.67;
        points += agreement(&self.pushes, push, 0.15);
        // A yes is shorter than what it answers; an echo is not.
        points += if answer + 8 < solution && answer <= 200 { 1.5 } else { -2.0 };
        // A job carries a block's header; a tick or a key's echo does not.
        points += if push >= 120 && push > answer + 20 { 1.5 } else { -1.5 };
        points += self.luck();
        let secs = match (messages.first(), messages.last()) {
            (Some(first), Some(last)) => last.time.secs_since(first.time),
            _ => 0.0,
        };
        // Dozens of messages a second are a conversation, not a search for solutions.
        if secs > 0.0 && messages.len() as f64 / secs > 15.0 {
            points -= 3.0;
        }
        let certainty = 1.0 - (-((self.solutions.len() + self.pushes.len()) as f64) / 2.0).exp();
        let mut score = certainty / (1.0 + (-(points - 2.5f64)).exp());
        // Two timed reports and one notice look the same as two solutions and one job.
        if self.solutions.len() < 3 && self.pushes.len() < 2 {
            score = score.min(0.6);
        }
        Some(PoolShape {
            score,
            solutions: self.solutions.len() as u32,
            solution_size: solution,
            answer_size: answer,
            pushes: self.pushes.len() as u32,
            push_size: push,
            secs,
        })
    }

    /// Solutions are found by luck: the gaps between them vary as much as they are long. A timer's do not.
    fn luck(&self) -> f64 {
        let gaps: Vec<f64> = self.times.windows(2).map(|w| w[1].secs_since(w[0])).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
        if gaps.len() < 2 || mean <= 0.0 {
            return 0.0;
        }
        let variance = gaps.iter().map(|g| (g - mean) * (g - mean)).sum::<f64>() / gaps.len() as f64;
        let variation = variance.sqrt() / mean;
        match gaps.len() {
            // Two gaps within a twentieth of each other are chance in one of ten miners.
            2 if variation < 0.04 => -2.5,
            2 => 0.0,
            _ if variation < 0.15 => -6.0,
            _ if variation > 0.35 => 1.0,
            _ => 0.0,
        }
    }
}

fn median(sizes: &[u32]) -> u32 {
    let mut sorted = sizes.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// Points for sizes that fall into two kinds, each within `tolerance` or 10 bytes, as a pool's and a miner's do. Sizes as people or
/// programs happen to write them speak louder against a pool than fixed ones for it; one size alone says nothing, two say little.
fn agreement(sizes: &[u32], usual: u32, tolerance: f64) -> f64 {
    let near = |size: &u32, usual: u32| {
        let margin = (f64::from(usual) * tolerance).max(10.0);
        (f64::from(*size) - f64::from(usual)).abs() <= margin
    };
    let others: Vec<u32> = sizes.iter().copied().filter(|s| !near(s, usual)).collect();
    let second = median(&others);
    let again = others.iter().filter(|s| near(s, second)).count();
    // A kind of its own is one that came twice.
    let again = if again >= 2 { again } else { 0 };
    let count = sizes.len().max(1) as f64;
    let share = (sizes.len() - others.len() + again) as f64 / count;
    let points = if share < 0.67 { (share - 0.67) * 8.0 } else { (share * 2.0 - 1.0) * 1.5 };
    points * (1.0 - 1.0 / count)
}
