//! The short exam as ordinary test results: one a case, put one after another to one agent.
#![allow(missing_docs)]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use davy_test_exam::{Exam, Length, Mark, Outcome, Report, obstacle, short};
use libtest_mimic::{Arguments, Failed, Trial};

/// The sitting begins with the first case that runs, so that listing tests starts nothing.
#[derive(Default)]
struct Sitting {
    exam: Option<Exam>,
    marks: Vec<Mark>,
}

impl Sitting {
    fn put(&mut self, case: davy_test_exam::Case) -> Result<(), Failed> {
        if self.exam.is_none() {
            self.exam = Some(Exam::begin(Length::SHORT).map_err(|e| format!("{e:#}"))?);
        }
        let Some(exam) = &mut self.exam else { return Err("no exam".into()) };
        let mark = exam.put(case);
        self.marks.push(mark.clone());
        if let Outcome::Skipped(reason) | Outcome::Starved(reason) = &mark.outcome {
            println!("SKIPPED: {}: {reason}", case.name());
        }
        // A clock fails a test for the machine's fault as well as for the code's. Who is named late is told loudly here, and
        // fails the full exam.
        if matches!(mark.outcome, Outcome::Late) {
            println!("LATE: {}: named after {:?} s", case.name(), mark.seconds);
            return Ok(());
        }
        if mark.failed() { Err(format!("{mark:#?}").into()) } else { Ok(()) }
    }
}

fn main() {
    let mut arguments = Arguments::from_args();
    // One agent, two CPUs: cases would disturb each other.
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Some(reason) = obstacle()
    {
        println!("SKIPPED: the miner exam needs {reason}");
        return;
    }
    let began = Instant::now();
    let sitting = Arc::new(Mutex::new(Sitting::default()));
    let trials = short()
        .into_iter()
        .map(|case| {
            let sitting = Arc::clone(&sitting);
            Trial::test(case.name(), move || sitting.lock().unwrap_or_else(PoisonError::into_inner).put(case))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut sitting = std::mem::take(&mut *sitting.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(exam) = sitting.exam.take() {
        let report = Report::of(&exam, sitting.marks, began.elapsed().as_secs_f64());
        println!("{}", report.markdown());
    }
    // Ends the process without running destructors, which is why the agent went before.
    conclusion.exit();
}
