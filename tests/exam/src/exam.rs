use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use davy_model::{Finding, FindingKind};
use davy_wire::AgentStatus;

use crate::agent::Agent;
use crate::case::{Case, Disguise, Load, MinerCase};
use crate::mark::{Mark, Outcome};
use crate::miner::Miner;
use crate::peers::Peers;
use crate::programs::{Programs, SEARCH, missing};
use crate::scope::{Held, Scope};
use crate::watch::Watch;

/// What an agent may use to learn what ordinarily runs here before the first case.
const SETTLE: Duration = Duration::from_secs(3);
/// How many findings about processes of others are kept; further ones are left out.
const STRANGERS: usize = 256;
/// How long a miner may take to fill its memory and reach its steady state.
const PREPARATION: Duration = Duration::from_secs(110);

/// How long loads run and how long evidence is gathered after a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Time of an everyday load.
    pub load: Duration,
    /// Time after a verdict in which further evidence is still taken down.
    pub after: Duration,
}

impl Length {
    /// For `make test`.
    pub const SHORT: Self = Self { load: Duration::from_secs(20), after: Duration::from_millis(500) };
    /// For `make bench`.
    pub const FULL: Self = Self { load: Duration::from_secs(45), after: Duration::from_secs(3) };
}

/// A sitting: one live agent and the cases that are put to it one after another.
pub struct Exam {
    agent: Agent,
    programs: Programs,
    length: Length,
    cases: usize,
    /// Findings of mining about processes of no case.
    strangers: Vec<Finding>,
    /// Pids of earlier cases and of all peers, about which the agent may still speak.
    known: BTreeSet<u32>,
}

impl Exam {
    /// Starts the agent.
    ///
    /// # Errors
    /// When a program is not built or the agent does not start.
    pub fn begin(length: Length) -> Result<Self> {
        let programs = Programs::find()?;
        let agent = Agent::start(&programs.davy)?;
        thread::sleep(SETTLE);
        Ok(Self { agent, programs, length, cases: 0, strangers: Vec::new(), known: BTreeSet::new() })
    }

    /// The agent's state.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<AgentStatus> {
        self.agent.status()
    }

    /// Findings of mining, so far, about processes that the exam did not start.
    #[must_use]
    pub fn strangers(&self) -> &[Finding] {
        &self.strangers
    }

    /// How often the agent said that it dropped something it should have told live.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.agent.gaps()
    }

    /// Puts one case.
    pub fn put(&mut self, case: Case) -> Mark {
        self.cases += 1;
        while let Ok(told) = self.agent.findings.try_recv() {
            self.overhear(told.finding);
        }
        let needed: &[&str] = match case {
            Case::Load(load) => load.programs,
            Case::Miner(MinerCase { disguise: Disguise::Container, .. }) => &["unshare", "nsenter", "ip"],
            Case::Miner(_) => &[],
        };
        if let Some(reason) = missing(needed) {
            return Mark::without_answer(case, Outcome::Skipped(reason));
        }
        let mark = match case {
            Case::Miner(miner) => self.put_miner(miner),
            Case::Load(load) => self.put_load(load),
        };
        mark.unwrap_or_else(|reason| Mark::without_answer(case, Outcome::Broken(format!("{reason:#}"))))
    }

    /// A finding that does not concern the running case.
    fn overhear(&mut self, finding: Finding) {
        let ours = format!("davy-exam-{}-", std::process::id());
        let known = |pid: u32| {
            self.known.contains(&pid)
                || self.agent.process(pid).is_some_and(|info| info.cgroup.contains(ours.as_str()))
        };
        let new = self.strangers.iter().all(|stranger| stranger.id != finding.id);
        let pids = finding.subject.iter().chain(&finding.processes).map(|key| key.pid);
        let room = self.strangers.len() < STRANGERS;
        if finding.kind == FindingKind::Mining && new && room && !pids.into_iter().any(known) {
            self.strangers.push(finding);
        }
    }

    fn put_miner(&mut self, case: MinerCase) -> Result<Mark> {
        let apart = case.disguise == Disguise::Container;
        let peers = Peers::of_miner(&self.programs.pool, case.algo, case.transport, apart, 150)?;
        let mut scope = Scope::create(self.cases)?;
        let mut watch = Watch::new(&mut scope);
        let mut miner = Miner::start(&self.programs.miner, case, &peers, watch.scope)?;

        let began = Instant::now();
        let mut steady = None;
        let wait = Duration::from_secs_f64(case.limit() * 1.5);
        loop {
            watch.listen(&self.agent);
            if steady.is_none() {
                steady = miner.steady.try_recv().ok().map(|at| (at, Instant::now()));
            }
            match steady {
                Some(_) if watch.named.is_some() => break,
                Some((_, since)) if since.elapsed() > wait => break,
                None if began.elapsed() > PREPARATION => anyhow::bail!("the miner never became steady"),
                _ => {}
            }
            if let Some(status) = miner.process.0.try_wait()? {
                anyhow::bail!("the miner ended by itself: {status}");
            }
        }
        let after = Instant::now();
        while watch.named.is_some() && after.elapsed() < self.length.after {
            watch.listen(&self.agent);
        }
        let seconds = watch.named.zip(steady).map(|(named, (steady, _))| since(named, steady));
        let outcome = match (seconds, case.beyond_reach()) {
            (Some(seconds), _) if seconds <= case.limit() => Outcome::Named,
            (Some(_), _) => Outcome::Late,
            (None, Some(reason)) => Outcome::BeyondReach(reason.to_owned()),
            (None, None) => Outcome::Missed,
        };
        let mut mark = watch.mark(Case::Miner(case), outcome, seconds, began.elapsed());
        let got = mark.cpus.unwrap_or(f64::INFINITY);
        if matches!(mark.outcome, Outcome::Late | Outcome::Missed) && got < case.appetite() / 2.0 {
            let reason = format!("{got:.2} of {:.1} CPUs on a busy machine", case.appetite());
            mark.outcome = Outcome::Starved(reason);
        }
        let others = watch.others;
        self.close(&scope, &peers, others);
        Ok(mark)
    }

    fn put_load(&mut self, load: Load) -> Result<Mark> {
        let seconds = self.length.load.as_secs();
        let peers = Peers::of_load(&self.programs.pool, seconds + 30)?;
        let work = tempfile::Builder::new().prefix("davy-exam-load-").tempdir()?;
        let mut scope = Scope::create(self.cases)?;
        let mut watch = Watch::new(&mut scope);
        let mut process = Held(self.start_load(load, &peers, work.path(), watch.scope)?);
        let began = Instant::now();
        while began.elapsed() < self.length.load && watch.named.is_none() {
            watch.listen(&self.agent);
            if let Some(status) = process.0.try_wait()? {
                let said = std::fs::read_to_string(work.path().join("log")).unwrap_or_default();
                let last = said.lines().rev().take(3).collect::<Vec<_>>().join(" / ");
                anyhow::bail!("the load ended by itself: {status}: {last}");
            }
        }
        let outcome = if watch.named.is_some() { Outcome::Accused } else { Outcome::LeftAlone };
        let mark = watch.mark(Case::Load(load), outcome, None, began.elapsed());
        let others = watch.others;
        self.close(&scope, &peers, others);
        Ok(mark)
    }

    /// Ends a case's processes and remembers whose they were.
    fn close(&mut self, scope: &Scope, peers: &Peers, others: Vec<Finding>) {
        scope.empty();
        self.known.extend(scope.pids().chain(peers.pids()));
        others.into_iter().for_each(|finding| self.overhear(finding));
    }

    fn start_load(&self, load: Load, peers: &Peers, work: &Path, scope: &Scope) -> Result<Child> {
        let seconds = self.length.load.as_secs();
        let script = format!("{SEARCH}; export PATH; cd \"$WORK\" || exit 1\n{}", load.script);
        let log = std::fs::File::create(work.join("log"))?;
        scope
            .command(Path::new("timeout"))
            .args(["--kill-after=2", &(seconds + 15).to_string(), "bash", "-c", &script])
            .env("WORK", work)
            .env("SECS", seconds.to_string())
            .env("POOL", &self.programs.pool)
            .env("CHAT", peers.address.map(|a| a.to_string()).unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the load")
    }
}

/// Seconds from `steady` to `named`; zero when the verdict came first.
fn since(named: SystemTime, steady: SystemTime) -> f64 {
    named.duration_since(steady).map_or(0.0, |d| d.as_secs_f64())
}
