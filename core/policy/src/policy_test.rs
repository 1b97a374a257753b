//! Tests that a policy carries: what is found, and what should be done about it.

use davy_model::{Finding, FindingId, FindingKind, Mode, Severity, Signal, Timestamp};
use serde::Serialize;

use crate::decide::{Decision, Subject};
use crate::{ActionKind, Digest, Policy};

/// What speaks against mining before any evidence, in bits; the detector starts from the same.
const PRIOR_BITS: f64 = -13.0;

/// One `[[test]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyTest {
    /// What it shows.
    pub name: String,
    /// What is found.
    pub given: Given,
    /// What should be done.
    pub expect: Expectation,
}

/// What a test says is found.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Kind of finding.
    pub finding: FindingKind,
    /// The program's path.
    pub path: String,
    /// The program's digest.
    pub sha256: Option<Digest>,
    /// The user.
    pub user: Option<String>,
    /// The service that it came from.
    pub service: Option<String>,
    /// cgroup v2 path below the mount.
    pub cgroup: String,
    /// Probability; `None` when evidence is given.
    pub confidence: Option<f64>,
    /// Evidence in bits.
    pub evidence: Vec<(Signal, f32)>,
}

impl Given {
    /// The probability given, or the one that the evidence's bits and the prior's come to.
    #[must_use]
    pub fn probability(&self) -> f64 {
        self.confidence.unwrap_or_else(|| {
            let bits: f64 = self.evidence.iter().map(|(_, bits)| f64::from(*bits)).sum();
            1.0 / (1.0 + (-(bits + PRIOR_BITS)).exp2())
        })
    }
}

/// The strongest thing that should be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// Nothing, not even an alert.
    Allow,
    /// This action, really done.
    #[serde(untagged)]
    Action(ActionKind),
}

impl Expectation {
    /// Its word in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Action(action) => action.name(),
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "allow" => Some(Self::Allow),
            // What no policy chooses for itself, and what follows on a scan.
            "ban" => Some(Self::Action(ActionKind::Ban)),
            name => ActionKind::from_name(name).map(Self::Action),
        }
    }

    fn of(decision: &Decision) -> Self {
        decision.strongest().map_or(Self::Allow, Self::Action)
    }
}

/// How a policy's test went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestOutcome {
    /// The test's name.
    pub name: String,
    /// Where it is written, as `file:line`.
    pub place: String,
    /// Whether it went as expected.
    pub passed: bool,
    /// What was expected.
    pub expected: Expectation,
    /// What the policy does.
    pub found: Expectation,
    /// The line that decided.
    pub why: String,
}

/// Runs the tests a policy carries. `now` decides which allow entries still hold.
#[must_use]
pub fn run_tests(policy: &Policy, now: Timestamp) -> Vec<TestOutcome> {
    let run = |(index, test): (usize, &PolicyTest)| {
        let decision = policy.decide(&test.given.finding(now), &test.given.subject(), now);
        let found = Expectation::of(&decision);
        TestOutcome {
            name: test.name.clone(),
            place: policy.origin.of(&format!("test[{index}]")),
            passed: found == test.expect,
            expected: test.expect,
            found,
            why: decision.why,
        }
    };
    policy.tests.iter().enumerate().map(run).collect()
}

impl Given {
    fn finding(&self, now: Timestamp) -> Finding {
        Finding {
            id: FindingId(0),
            kind: self.finding,
            first: now,
            time: now,
            severity: Severity::High,
            confidence: self.probability(),
            subject: None,
            processes: Vec::new(),
            summary: String::new(),
            evidence: Vec::new(),
            techniques: Vec::new(),
        }
    }

    fn subject(&self) -> Subject {
        Subject {
            path: self.path.clone(),
            sha256: self.sha256,
            user: self.user.clone(),
            cgroup: self.cgroup.clone(),
            service: self.service.clone(),
        }
    }
}

/// A signal by its name in a policy, which is its name in JSON.
pub(crate) fn signal(name: &str) -> Option<Signal> {
    named(name)
}

/// A finding's kind by its name in a policy, which is its name in JSON.
pub(crate) fn finding_kind(name: &str) -> Option<FindingKind> {
    named(name)
}

fn named<T: serde::de::DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::from(name)).ok()
}

/// The name of a value that is written in JSON as one word.
pub(crate) fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

/// The word of a mode.
pub(crate) const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Observe => "observe",
        Mode::Enforce => "enforce",
    }
}
