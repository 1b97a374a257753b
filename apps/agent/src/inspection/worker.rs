//! The `inspect` worker as the agent holds it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use davy_model::{Capture, Captured, Confinement, Event, EventKind, ProcessKey, Said, Timestamp};
use davy_wire::worker::{InspectReply, InspectRequest};
use davy_worker::WorkerProcess;

/// How long the worker may take for one batch, and to begin.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a worker is started: the program, its arguments, and what it is told first.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) head_bytes: u32,
    pub(crate) flows: u32,
}

impl Recipe {
    /// This very program, whatever became of its file's name since.
    pub(crate) fn new(head_bytes: u32, flows: u32) -> Self {
        let arguments = ["worker", "inspect"].map(str::to_owned).to_vec();
        Self { program: PathBuf::from("/proc/self/exe"), arguments, head_bytes, flows }
    }
}

/// A running worker.
pub(super) struct Worker(WorkerProcess);

impl Worker {
    pub(super) fn start(recipe: &Recipe) -> Result<(Self, Confinement)> {
        let worker = WorkerProcess::start(&recipe.program, &recipe.arguments)?;
        let first = InspectRequest::Begin { head_bytes: recipe.head_bytes, flows: recipe.flows };
        match worker.ask(&first, None, PATIENCE) {
            Ok(InspectReply::Ready(confinement)) => Ok((Self(worker), confinement)),
            Ok(_) => Err(anyhow!("it answered before it was asked{}", worker.end())),
            Err(error) => Err(anyhow!("{error:#}{}", worker.end())),
        }
    }

    /// Its pid.
    pub(super) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<anyhow::Error> {
        self.0.ended()
    }

    /// Sends captures and gives what they say as events of their time and their process: neither is the worker's to choose.
    pub(super) fn ask(&mut self, batch: Vec<Capture>) -> Result<Vec<Event>> {
        let (about, contents): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|capture| ((capture.time, capture.process), capture.content)).unzip();
        let request = InspectRequest::Read(contents);
        let InspectReply::Said { said, .. } = self.0.ask(&request, None, PATIENCE)? else {
            bail!("it began anew")
        };
        let InspectRequest::Read(contents) = request else { bail!("the question changed") };
        said.into_iter().map(|(place, said)| event(place as usize, said, &about, &contents)).collect()
    }

    /// Hangs up and waits for it to end by itself, which takes it no time.
    pub(super) fn dismiss(self) {
        self.0.dismiss();
    }

    /// Ends it by force, and says how it had ended if it had.
    pub(super) fn end(self) -> String {
        self.0.end()
    }
}

fn event(
    place: usize,
    said: Said,
    about: &[(Timestamp, Option<ProcessKey>)],
    contents: &[Captured],
) -> Result<Event> {
    let ((time, process), content) =
        about.get(place).zip(contents.get(place)).context("it answered beside the question")?;
    let kind = match (said, content) {
        (Said::Flow(reading), Captured::Flow { flow, .. }) if reading.flow == *flow => {
            EventKind::FlowRead(Box::new(reading))
        }
        (Said::Name(answer), Captured::NameAnswer { .. }) => EventKind::Name(answer),
        _ => bail!("it spoke of what it was not asked"),
    };
    Ok(Event { time: *time, process: *process, kind })
}
