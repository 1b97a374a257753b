use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::costs::Count;
use crate::emulator::Emulator;
use crate::report::{Answer, Line, Outcome};

/// What the guest's clock runs by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's time; two CPUs.
    Host,
    /// The instructions that its one CPU executed, a nanosecond each; where it idles, time leaps to the next timer. A
    /// loop takes the same time whatever else the host does.
    Instructions,
}

/// A panic ends the emulator instead of standing still until the limit.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic";

/// How much of the console is kept for a failure's report, in lines.
const KEPT: usize = 60;

/// A machine that is ready to boot.
pub struct Machine<'a> {
    /// What runs it.
    pub emulator: &'a Emulator,
    /// The kernel's image.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// Its memory in MiB. The initramfs lies in it too.
    pub memory: u32,
    /// What its time is.
    pub clock: Clock,
    /// More words for the kernel's command line, which the guest reads: `davy.only=PART` for the cases whose names
    /// hold this part, `davy.cost=CASE` for that case of the bench alone, `davy.verbose` for libbpf's log.
    pub options: &'a str,
    /// When it must have gone down by itself; it is killed then.
    pub limit: Duration,
}

/// What one boot gave.
#[derive(Debug, Default)]
pub struct Boot {
    /// The kernel's release as it calls itself; empty when user space was not reached.
    pub kernel: String,
    /// The cases that ended.
    pub outcomes: BTreeMap<String, (Outcome, Duration)>,
    /// What was tried to make code run: the case, what, and what came of it.
    pub tried: Vec<(String, String, Answer)>,
    /// What the bench counted.
    pub counts: Vec<Count>,
    /// The case that was running when the machine stopped.
    pub unfinished: Option<String>,
    /// Why the machine stopped before it was done.
    pub cut_short: Option<String>,
    /// The end of the console.
    pub console: Vec<String>,
}

/// Ends the emulator on every way out.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    /// Boots, listens until the guest is done or the time is over, and takes the machine away.
    ///
    /// # Errors
    /// When the emulator cannot be started. A guest that crashes or hangs is a result, not an error.
    pub fn boot(&self) -> Result<Boot> {
        let mut command = self.emulator.command();
        command
            .args(match self.clock {
                Clock::Host => ["-accel", "tcg,thread=multi", "-smp", "2"].as_slice(),
                Clock::Instructions => {
                    &["-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,sleep=off"]
                }
            })
            .args(["-cpu", "max", "-m", &self.memory.to_string()])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", &format!("{KERNEL_ARGUMENTS} {}", self.options)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut running = Running(command.spawn().context("starting the emulator")?);
        let serial = running.0.stdout.take().context("qemu has no standard output")?;

        let (line_out, line_in) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
                if line_out.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });

        let mut boot = Boot::default();
        let deadline = Instant::now() + self.limit;
        loop {
            match line_in.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if boot.hear(line) {
                        return Ok(boot);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    boot.cut_short = Some(format!("not done after {} s", self.limit.as_secs()));
                    return Ok(boot);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    boot.cut_short = Some("the machine went down before it was done".to_owned());
                    return Ok(boot);
                }
            }
        }
    }
}

impl Boot {
    /// Takes in one line of the console; true when the guest is done.
    fn hear(&mut self, line: String) -> bool {
        match Line::parse(&line) {
            Some(Line::Up { kernel }) => self.kernel = kernel,
            Some(Line::Begin { case }) => self.unfinished = Some(case),
            Some(Line::End { case, outcome, ms }) => {
                self.unfinished = None;
                // A machine under way for minutes is watched by whoever wants to.
                if std::env::var_os("DAVY_VM_PROGRESS").is_some() {
                    eprintln!("{case}: {outcome:?}, {:.1} s", ms as f64 / 1e3);
                }
                self.outcomes.insert(case, (outcome, Duration::from_millis(ms)));
            }
            Some(Line::Tried { what, answer }) => {
                let tried = (self.unfinished.clone().unwrap_or_default(), what, answer);
                if !self.tried.contains(&tried) {
                    self.tried.push(tried);
                }
            }
            Some(Line::Counted(count)) => self.counts.push(count),
            Some(Line::Done) => return true,
            None => {
                if self.console.len() == KEPT {
                    self.console.remove(0);
                }
                self.console.push(line.trim_end().to_owned());
            }
        }
        false
    }

    /// How a case went, in words for a test report when it did not pass.
    #[must_use]
    pub fn outcome(&self, case: &str) -> Outcome {
        if let Some((outcome, _)) = self.outcomes.get(case) {
            return outcome.clone();
        }
        let why = self.cut_short.as_deref().unwrap_or("the guest did not report it");
        let during = match &self.unfinished {
            Some(running) if running == case => "in this case",
            Some(running) => running.as_str(),
            None if self.kernel.is_empty() => "before user space",
            None => "between cases",
        };
        Outcome::Failed(format!("{why} ({during})\n{}", self.console.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> (Boot, bool) {
        let mut boot = Boot::default();
        let done = lines.iter().fold(false, |done, line| done | boot.hear((*line).to_owned()));
        (boot, done)
    }

    #[test]
    fn a_whole_run_is_read() {
        let (boot, done) = heard(&[
            "[    0.1] Linux\r",
            "@davy {\"say\":\"up\",\"kernel\":\"6.1.0\"}\r",
            "@davy {\"say\":\"begin\",\"case\":\"a\"}",
            "@davy {\"say\":\"end\",\"case\":\"a\",\"outcome\":\"passed\",\"ms\":5}",
            "@davy {\"say\":\"end\",\"case\":\"b\",\"outcome\":\"skipped\",\"why\":\"no msr\",\"ms\":1}",
            "@davy {\"say\":\"done\"}",
        ]);
        assert!(done);
        assert_eq!(boot.kernel, "6.1.0");
        assert_eq!(boot.outcome("a"), Outcome::Passed);
        assert_eq!(boot.outcome("b"), Outcome::Skipped("no msr".into()));
        assert!(matches!(boot.outcome("never"), Outcome::Failed(_)));
    }

    #[test]
    fn a_crash_is_laid_at_the_door_of_the_case_that_ran() {
        let (boot, done) =
            heard(&["@davy {\"say\":\"begin\",\"case\":\"a\"}", "BUG: kernel NULL pointer dereference"]);
        assert!(!done);
        let Outcome::Failed(why) = boot.outcome("a") else { panic!("a crash is a failure") };
        assert!(why.contains("in this case") && why.contains("NULL pointer"), "{why}");
    }
}
