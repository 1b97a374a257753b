use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use davy_model::{Finding, FindingKind, Timestamp};

use crate::agent::{Agent, Told};
use crate::case::Case;
use crate::mark::{Mark, Nearest, Outcome};
use crate::scope::Scope;

/// How often a case looks at its scope and its findings.
const LOOK: Duration = Duration::from_millis(100);
/// How often it asks for findings that were not told live.
const ASK: Duration = Duration::from_secs(1);

/// What is seen of one case while it runs.
pub(crate) struct Watch<'a> {
    pub(crate) scope: &'a mut Scope,
    /// When the exam first heard that the case's processes mine.
    pub(crate) named: Option<SystemTime>,
    /// The newest of each finding about them.
    findings: Vec<Finding>,
    /// Findings about other processes.
    pub(crate) others: Vec<Finding>,
    nearest: Option<Nearest>,
    began: Timestamp,
    asked: Instant,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(scope: &'a mut Scope) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
        Self {
            scope,
            named: None,
            findings: Vec::new(),
            others: Vec::new(),
            nearest: None,
            began: Timestamp(now),
            asked: Instant::now(),
        }
    }

    /// Takes in what the agent tells within [`LOOK`].
    pub(crate) fn listen(&mut self, agent: &Agent) {
        self.scope.look();
        if self.asked.elapsed() >= ASK {
            self.asked = Instant::now();
            // An agent that does not answer now is asked again a second later.
            for finding in agent.findings_since(self.began).unwrap_or_default() {
                self.hear(agent, Told { at: SystemTime::now(), finding });
            }
            self.look_how_near(agent);
        }
        match agent.findings.recv_timeout(LOOK) {
            Ok(told) => self.hear(agent, told),
            Err(RecvTimeoutError::Timeout) => {}
            // The agent is gone; the case ends by its limit, and its mark says so.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK),
        }
    }

    fn look_how_near(&mut self, agent: &Agent) {
        for tree in agent.top().into_iter().filter(|tree| self.scope.had(tree.root.pid)) {
            if self.nearest.as_ref().is_none_or(|known| tree.bits > known.bits) {
                self.nearest = Some(Nearest { bits: tree.bits, evidence: tree.evidence });
            }
        }
    }

    fn hear(&mut self, agent: &Agent, told: Told) {
        let Told { at, finding } = told;
        if !self.concerns(agent, &finding) {
            self.others.retain(|known| known.id != finding.id);
            self.others.push(finding);
            return;
        }
        if finding.kind == FindingKind::Mining {
            self.named.get_or_insert(at);
        }
        self.findings.retain(|known| known.id != finding.id);
        self.findings.push(finding);
    }

    /// Whether any process of the finding is one of the case's: seen in its scope, or known to the agent to be in
    /// it when it lived too shortly to be seen.
    fn concerns(&self, agent: &Agent, finding: &Finding) -> bool {
        finding.subject.iter().chain(&finding.processes).any(|key| {
            self.scope.had(key.pid)
                || agent.process(key.pid).is_some_and(|info| self.scope.named_by(&info.cgroup))
        })
    }

    pub(crate) fn mark(&self, case: Case, outcome: Outcome, seconds: Option<f64>, ran: Duration) -> Mark {
        let mut mark = Mark { seconds, ..Mark::without_answer(case, outcome) };
        mark.cpus = self.scope.cpu_time().map(|used| used.as_secs_f64() / ran.as_secs_f64().max(1e-3));
        mark.nearest.clone_from(&self.nearest);
        mark.weigh(&self.findings);
        mark
    }
}
