use davy_model::{Finding, FindingKind, Signal};
use serde::Serialize;

use crate::case::Case;

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "reason")]
pub enum Outcome {
    /// A miner, named within its limit.
    Named,
    /// A miner, named after its limit.
    Late,
    /// A miner, not named in one and a half times its limit.
    Missed,
    /// A miner that was not named and could not be.
    BeyondReach(String),
    /// A miner, late or not named, to which a busy machine gave less than half of the CPU it would have used: no
    /// question about a steady state was put.
    Starved(String),
    /// An honest load, left alone.
    LeftAlone,
    /// An honest load, called mining.
    Accused,
    /// Not asked, because something is not installed.
    Skipped(String),
    /// Asked, but the miner or load itself failed, so that nothing was learnt.
    Broken(String),
}

/// Evidence of one kind about one case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SignalWeight {
    /// Which.
    pub signal: Signal,
    /// Bits in all; negative where it speaks against.
    pub bits: f32,
    /// The strongest piece of it in words.
    pub text: String,
}

/// How far the agent went towards calling a case mining.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Nearest {
    /// The highest weight of evidence that any of its process trees reached, in bits, prior included. About zero is
    /// an even chance.
    pub bits: f32,
    /// The evidence in words, strongest first.
    pub evidence: Vec<String>,
}

/// The mark for one case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    /// The question.
    pub case: Case,
    /// The answer.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Seconds from the miner's steady state to the verdict; zero when the verdict came first.
    pub seconds: Option<f64>,
    /// The agent's confidence in its verdict.
    pub confidence: Option<f64>,
    /// Evidence by signal, strongest first, of every finding about the case's processes.
    pub signals: Vec<SignalWeight>,
    /// What else was found about them.
    pub also: Vec<FindingKind>,
    /// How near it came to being called mining, where it was seen among the busiest.
    pub nearest: Option<Nearest>,
    /// CPUs that the case's processes used on average, where the kernel counts them.
    pub cpus: Option<f64>,
}

impl Mark {
    /// A mark for a case that was not put.
    #[must_use]
    pub fn without_answer(case: Case, outcome: Outcome) -> Self {
        Self {
            case,
            outcome,
            seconds: None,
            confidence: None,
            signals: vec![],
            also: vec![],
            nearest: None,
            cpus: None,
        }
    }

    /// Whether the agent failed the question.
    #[must_use]
    pub const fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Late | Outcome::Missed | Outcome::Accused | Outcome::Broken(_))
    }

    /// Bits that a signal gave for mining in this case.
    #[must_use]
    pub fn bits_of(&self, signal: Signal) -> f32 {
        self.signals.iter().filter(|s| s.signal == signal).map(|s| s.bits).sum()
    }

    /// Takes in what the findings about a case say, the newest text of each.
    pub(crate) fn weigh(&mut self, findings: &[Finding]) {
        for finding in findings {
            if finding.kind == FindingKind::Mining {
                self.confidence = Some(finding.confidence);
            } else if !self.also.contains(&finding.kind) {
                self.also.push(finding.kind);
            }
            for evidence in &finding.evidence {
                match self.signals.iter_mut().find(|s| s.signal == evidence.signal) {
                    // Findings of several kinds may rest on the same evidence.
                    Some(known) if known.text == evidence.text => {}
                    Some(known) => known.bits += evidence.weight,
                    None => self.signals.push(SignalWeight {
                        signal: evidence.signal,
                        bits: evidence.weight,
                        text: evidence.text.clone(),
                    }),
                }
            }
        }
        self.signals.sort_by(|a, b| b.bits.total_cmp(&a.bits));
    }
}
