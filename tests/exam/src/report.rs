use std::fmt::Write;

use davy_model::Signal;
use davy_wire::AgentStatus;
use serde::Serialize;

use crate::case::Case;
use crate::exam::Exam;
use crate::mark::{Mark, Outcome};

/// How well one signal, or the verdict of all together, tells miners from others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Its name; `together` for the verdict.
    pub signal: String,
    /// Miners it spoke for.
    pub miners: usize,
    /// Honest loads it spoke against, in a finding.
    pub loads: usize,
    /// `miners` of all that it speaks for; `None` when it spoke for nothing.
    pub precision: Option<f64>,
    /// `miners` of all miners.
    pub recall: f64,
}

/// What an agent used during the sitting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgentUse {
    /// Resident memory in bytes at the end.
    pub resident: u64,
    /// CPU seconds in all.
    pub cpu_seconds: f64,
    /// Seconds of the sitting.
    pub seconds: f64,
    /// Events lost, by kind.
    pub lost: Vec<(String, u64)>,
    /// How often it dropped something it should have told live.
    pub gaps: u64,
    /// The tier it ran in.
    pub tier: String,
}

impl AgentUse {
    fn of(status: &AgentStatus, gaps: u64, seconds: f64) -> Self {
        Self {
            resident: status.resident,
            cpu_seconds: status.cpu_ns as f64 / 1e9,
            seconds,
            lost: status.drops.iter().filter(|d| d.count > 0).map(|d| (d.kind.clone(), d.count)).collect(),
            gaps,
            tier: spoken(status.tier),
        }
    }
}

/// The marks of one sitting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// One a case, in the order they were put.
    pub marks: Vec<Mark>,
    /// By signal, the best recall first, and together.
    pub scores: Vec<Score>,
    /// What the agent used, where it could be asked.
    pub agent: Option<AgentUse>,
    /// What it said of processes that no case started.
    pub strangers: Vec<String>,
}

/// How many findings about processes of others the tables name.
const STRANGERS_SHOWN: usize = 5;

const SIGNALS: [Signal; 14] = [
    Signal::RoundingMode,
    Signal::ComputeShape,
    Signal::MemoryShape,
    Signal::Gpu,
    Signal::Stratum,
    Signal::PoolShape,
    Signal::PoolList,
    Signal::Masquerade,
    Signal::OddParent,
    Signal::Fileless,
    Signal::Campaign,
    Signal::Persistence,
    Signal::Preparation,
    Signal::CommandLine,
];

impl Report {
    /// Sums up a sitting that took so many seconds.
    #[must_use]
    pub fn of(exam: &Exam, marks: Vec<Mark>, seconds: f64) -> Self {
        let strangers = exam.strangers().iter().map(|finding| finding.summary.clone()).collect();
        let agent = exam.status().ok().map(|status| AgentUse::of(&status, exam.gaps(), seconds));
        Self::new(marks, agent, strangers)
    }

    fn new(marks: Vec<Mark>, agent: Option<AgentUse>, strangers: Vec<String>) -> Self {
        let mut scores: Vec<Score> = SIGNALS
            .iter()
            .map(|signal| score(&spoken(*signal), &marks, |mark| mark.bits_of(*signal) > 0.0))
            .filter(|score| score.miners + score.loads > 0)
            .collect();
        scores.sort_by_key(|score| std::cmp::Reverse(score.miners));
        scores.push(score("together", &marks, |m| matches!(m.outcome, Outcome::Named | Outcome::Accused)));
        Self { marks, scores, agent, strangers }
    }

    /// Whether the agent passed: every miner within reach named in time, every load left alone.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.marks.iter().any(Mark::failed)
    }

    /// Tables for people, in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| miner | disguise | transport | outcome | seconds | limit | evidence in bits |\n|---|---|---|---|---|---|---|\n",
        );
        for mark in &self.marks {
            if let Case::Miner(m) = mark.case {
                let seconds = mark.seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.1}"));
                let (outcome, evidence) = (said(&mark.outcome), evidence(mark));
                // Writing to a String cannot fail.
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {outcome} | {seconds} | {:.0} | {evidence} |",
                    m.algo,
                    m.disguise,
                    m.transport,
                    m.limit(),
                );
            }
        }
        text.push_str(
            "\n| everyday load | outcome | CPUs used | nearest, bits | because |\n|---|---|---|---|---|\n",
        );
        for mark in &self.marks {
            if let Case::Load(load) = mark.case {
                let cpus = mark.cpus.map_or_else(|| "-".to_owned(), |c| format!("{c:.2}"));
                let _ = writeln!(
                    text,
                    "| {} | {} | {cpus} | {} |",
                    load.name,
                    said(&mark.outcome),
                    evidence(mark)
                );
            }
        }
        text.push_str("\n| signal | miners | loads | precision | recall |\n|---|---|---|---|---|\n");
        for s in &self.scores {
            let precision = s.precision.map_or_else(|| "-".to_owned(), |p| format!("{p:.2}"));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {precision} | {:.2} |",
                s.signal, s.miners, s.loads, s.recall
            );
        }
        if let Some(agent) = &self.agent {
            let _ = writeln!(
                text,
                "\nAgent: tier {}, {:.1} s of CPU in {:.0} s ({:.2} % of one core), {:.1} MiB resident, lost {:?}, {} gaps in what it told live.",
                agent.tier,
                agent.cpu_seconds,
                agent.seconds,
                100.0 * agent.cpu_seconds / agent.seconds.max(1.0),
                agent.resident as f64 / 1_048_576.0,
                agent.lost,
                agent.gaps,
            );
        }
        if !self.strangers.is_empty() {
            let count = self.strangers.len();
            let _ =
                writeln!(text, "\nFindings of mining about processes that the exam did not start: {count}");
        }
        for stranger in self.strangers.iter().take(STRANGERS_SHOWN) {
            let _ = writeln!(text, "- {stranger}");
        }
        text
    }
}

fn score(signal: &str, marks: &[Mark], speaks: impl Fn(&Mark) -> bool) -> Score {
    let asked = |mark: &&Mark| {
        !matches!(
            mark.outcome,
            Outcome::Skipped(_) | Outcome::Broken(_) | Outcome::BeyondReach(_) | Outcome::Starved(_)
        )
    };
    let (miners, loads): (Vec<&Mark>, Vec<&Mark>) =
        marks.iter().filter(asked).partition(|mark| matches!(mark.case, Case::Miner(_)));
    let all = miners.len();
    let miners = miners.into_iter().filter(|m| speaks(m)).count();
    let loads = loads.into_iter().filter(|m| speaks(m)).count();
    Score {
        signal: signal.to_owned(),
        miners,
        loads,
        precision: (miners + loads > 0).then(|| miners as f64 / (miners + loads) as f64),
        recall: miners as f64 / all.max(1) as f64,
    }
}

fn evidence(mark: &Mark) -> String {
    let parts = mark.signals.iter().map(|s| format!("{} {:+.1}", spoken(s.signal), s.bits));
    parts.collect::<Vec<_>>().join(", ")
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Skipped(reason) => format!("SKIPPED: {reason}"),
        Outcome::Broken(reason) => format!("BROKEN: {reason}"),
        Outcome::Starved(reason) => format!("STARVED: {reason}"),
        Outcome::BeyondReach(_) => "not named (beyond reach)".to_owned(),
        Outcome::Named => "named".to_owned(),
        Outcome::Late => "LATE".to_owned(),
        Outcome::Missed => "MISSED".to_owned(),
        Outcome::LeftAlone => "left alone".to_owned(),
        Outcome::Accused => "ACCUSED".to_owned(),
    }
}

fn spoken(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Algo, Disguise, MinerCase, Transport};
    use crate::mark::SignalWeight;

    fn miner(outcome: Outcome, signal: Option<Signal>) -> Mark {
        let case = MinerCase { algo: Algo::Scrypt, disguise: Disguise::Plain, transport: Transport::Clear };
        let mut mark = Mark::without_answer(Case::Miner(case), outcome);
        mark.signals.extend(signal.map(|signal| SignalWeight { signal, bits: 3.0, text: String::new() }));
        mark
    }

    fn load(outcome: Outcome, signal: Option<Signal>) -> Mark {
        Mark { case: Case::Load(crate::loads::everyday()[0]), ..miner(outcome, signal) }
    }

    #[test]
    fn precision_and_recall_count_what_was_asked() {
        let marks = vec![
            miner(Outcome::Named, Some(Signal::Stratum)),
            miner(Outcome::Late, Some(Signal::ComputeShape)),
            miner(Outcome::Missed, None),
            miner(Outcome::Broken(String::new()), Some(Signal::Stratum)),
            miner(Outcome::BeyondReach(String::new()), None),
            load(Outcome::LeftAlone, None),
            load(Outcome::Accused, Some(Signal::ComputeShape)),
            load(Outcome::Skipped(String::new()), Some(Signal::ComputeShape)),
        ];
        let report = Report::new(marks, None, vec![]);
        let of = |name: &str| {
            let score = report.scores.iter().find(|s| s.signal == name).expect("a score");
            (score.miners, score.loads, score.precision, (score.recall * 3.0).round() as u32)
        };
        assert_eq!(of("stratum"), (1, 0, Some(1.0), 1));
        assert_eq!(of("compute_shape"), (1, 1, Some(0.5), 1));
        assert_eq!(of("together"), (1, 1, Some(0.5), 1));
        assert!(!report.passed());
    }

    #[test]
    fn a_load_that_was_skipped_fails_nothing_and_says_why() {
        let report = Report::new(vec![load(Outcome::Skipped("x is missing".to_owned()), None)], None, vec![]);
        assert!(report.passed());
        assert!(report.markdown().contains("SKIPPED: x is missing"));
    }
}
