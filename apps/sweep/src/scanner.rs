//! The `scan` worker as a sweep holds it: started when the first thing must be looked at, ended when it hangs, started again
//! when it broke.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use davy_model::{Confinement, ScanReport, SetAside};
use davy_scan::RuleSource;
use davy_wire::worker::{ScanReply, ScanRequest};
use davy_worker::WorkerProcess;
use sha2::{Digest, Sha256};

/// How long it may take to compile rules.
const TO_BEGIN: Duration = Duration::from_secs(120);

/// How long it may look at one thing: this, and a second for each so many bytes.
const PATIENCE: Duration = Duration::from_secs(90);
const BYTES_A_SECOND: u64 = 2 << 20;

/// How often one thing is tried.
const TRIES: u32 = 2;

/// What to look for, and with which program.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program that becomes the worker.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Rules.
    pub rules: Vec<RuleSource>,
    /// Hash lists, as text.
    pub hashes: Vec<String>,
    /// Whether archives are opened.
    pub archives: bool,
    /// Whether the structure of every program is told.
    pub programs: bool,
}

impl Recipe {
    /// This very program as the worker, with these rules.
    #[must_use]
    pub fn new(rules: Vec<RuleSource>) -> Self {
        let arguments = ["worker", "scan"].map(str::to_owned).to_vec();
        let program = PathBuf::from("/proc/self/exe");
        Self { program, arguments, rules, hashes: Vec::new(), archives: true, programs: false }
    }

    /// What makes two scans look for the same: of the rules, the lists, and this version of the engine.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update([u8::from(self.archives)]);
        for text in self.rules.iter().flat_map(|rules| [&rules.origin, &rules.text]).chain(&self.hashes) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.finalize().into()
    }
}

/// What the worker said when it began.
#[derive(Clone, Debug)]
pub struct Ready {
    /// What it has given up.
    pub confinement: Confinement,
    /// How many rules take part.
    pub rules: u32,
    /// How many digests of bad files.
    pub hashes: u32,
    /// Rules that do not take part.
    pub aside: Vec<SetAside>,
}

/// What became of looking at one thing.
#[derive(Clone, Debug)]
pub enum Looked {
    /// It was looked at.
    Report(Box<ScanReport>),
    /// It could not be read, or broke the worker each time; why.
    Not(String),
}

/// Has things looked at. There is no worker, and no rule is compiled, before the first thing is.
#[derive(Debug)]
pub struct Scanner {
    recipe: Recipe,
    worker: Option<WorkerProcess>,
    ready: Option<Ready>,
    /// Whether the last worker broke, so that the next one is a restart.
    broke: bool,
    restarts: u64,
    stop: Arc<AtomicBool>,
    /// The digest of Davy's own program, once something was found.
    own: Option<String>,
}

impl Scanner {
    /// A scanner that looks for what the recipe says.
    #[must_use]
    pub fn new(recipe: Recipe) -> Self {
        Self { recipe, worker: None, ready: None, broke: false, restarts: 0, stop: Arc::default(), own: None }
    }

    /// Gives up looking at a thing, and looks at no other, once `stop` is set.
    #[must_use]
    pub fn until(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// Starts the worker and gives it the rules, unless it runs already. Says what it said when it began.
    ///
    /// # Errors
    /// When it does not start, cannot be confined, or does not come to an end of compiling.
    pub fn begin(&mut self) -> Result<&Ready> {
        if self.worker.is_none() {
            let (mut worker, ready) = begin(&self.recipe)?;
            worker.heed(Arc::clone(&self.stop));
            self.worker = Some(worker);
            self.restarts += u64::from(std::mem::take(&mut self.broke));
            self.ready = Some(ready);
        }
        self.ready.as_ref().ok_or_else(|| anyhow!("the worker has not begun"))
    }

    /// What the last worker said when it began; `None` before the first thing was looked at.
    #[must_use]
    pub fn ready(&self) -> Option<&Ready> {
        self.ready.as_ref()
    }

    /// How often it was started again after it had broken.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// The worker's pid, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.worker.as_ref().map(WorkerProcess::pid)
    }

    /// Has a file looked at. One that breaks the worker is tried once more in another; then it is given up, and the next
    /// thing finds a new worker.
    ///
    /// # Errors
    /// When no worker can be started any more.
    pub fn file(&mut self, file: &File, length: u64) -> Result<Looked> {
        let patience = PATIENCE + Duration::from_secs(length / BYTES_A_SECOND);
        let mut fault = String::new();
        for _ in 0..TRIES {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Looked::Not("it was to stop".to_owned()));
            }
            match self.worker()?.ask(&ScanRequest::File { length }, Some(file.as_fd()), patience) {
                Ok(ScanReply::Report(mut report)) => {
                    self.pass_over_own(&mut report);
                    return Ok(Looked::Report(Box::new(report)));
                }
                Ok(ScanReply::Unreadable(why)) => return Ok(Looked::Not(why)),
                Ok(_) => fault = self.broke(&anyhow!("it answered beside the question")),
                Err(error) => fault = self.broke(&error),
            }
        }
        Ok(Looked::Not(format!("looking at it broke the worker {TRIES} times: {fault}")))
    }

    /// Has pieces of a process's memory looked at, the last ones or not; the report comes after the last.
    ///
    /// # Errors
    /// When the worker breaks: then the process must be begun anew.
    pub fn memory(&mut self, file: &File, pieces: Vec<(u64, u64)>, last: bool) -> Result<Option<Looked>> {
        let request = ScanRequest::Memory { pieces, last };
        match self.worker()?.ask(&request, Some(file.as_fd()), PATIENCE) {
            Ok(ScanReply::Next) if !last => Ok(None),
            Ok(ScanReply::Report(report)) if last => Ok(Some(Looked::Report(Box::new(report)))),
            Ok(ScanReply::Unreadable(why)) => Ok(Some(Looked::Not(why))),
            Ok(_) => bail!("{}", self.broke(&anyhow!("it answered beside the question"))),
            Err(error) => bail!("{}", self.broke(&error)),
        }
    }

    /// Ends the worker, which gives its memory back. The next thing finds a new one, which is no restart.
    pub fn rest(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.dismiss();
        }
    }

    fn worker(&mut self) -> Result<&WorkerProcess> {
        self.begin()?;
        self.worker.as_ref().ok_or_else(|| anyhow!("there is no worker"))
    }

    /// Davy knows the words of miners, and its own program has them. It is known by its content, wherever it lies.
    fn pass_over_own(&mut self, report: &mut ScanReport) {
        let Some(found) = report.sha256.as_ref().filter(|_| !report.matches.is_empty()) else { return };
        if self.own.is_none() {
            let mut hash = Sha256::new();
            let read =
                File::open(&self.recipe.program).and_then(|mut own| std::io::copy(&mut own, &mut hash));
            self.own = Some(match read {
                Ok(_) => hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
                Err(_) => String::new(),
            });
        }
        if self.own.as_ref() == Some(found) {
            report.matches.clear();
        }
    }

    fn broke(&mut self, error: &anyhow::Error) -> String {
        self.broke = true;
        let how = self.worker.take().map(WorkerProcess::end).unwrap_or_default();
        format!("{error:#}{how}")
    }
}

fn begin(recipe: &Recipe) -> Result<(WorkerProcess, Ready)> {
    let worker = WorkerProcess::start(&recipe.program, &recipe.arguments)?;
    match introduce(&worker, recipe) {
        Ok(ready) => Ok((worker, ready)),
        Err(error) => Err(anyhow!("the scan worker did not begin: {error:#}{}", worker.end())),
    }
}

fn introduce(worker: &WorkerProcess, recipe: &Recipe) -> Result<Ready> {
    for RuleSource { origin, text } in &recipe.rules {
        worker.tell(&ScanRequest::Rules { origin: origin.clone(), text: text.clone() }, PATIENCE)?;
    }
    for list in &recipe.hashes {
        worker.tell(&ScanRequest::Hashes(list.clone()), PATIENCE)?;
    }
    let first = ScanRequest::Begin { archives: recipe.archives, programs: recipe.programs };
    match worker.ask(&first, None, TO_BEGIN)? {
        ScanReply::Ready { confinement, rules, hashes, aside } => {
            Ok(Ready { confinement, rules, hashes, aside })
        }
        _ => bail!("it answered before it was asked"),
    }
}
