//! Takes the Davy package through its life on a Debian with systemd, or the Debian through days under Davy's judging of
//! code and of whom it talks to, and says on the console how each step went.
//!
//! Called as `davy-vm-service service ...` it is a service that somebody breaks into, and as `davy-vm-service mine ...`
//! what they leave there.

mod attached;
mod days;
mod host;
mod remains;
mod steps;
mod talk;
mod victim;

use std::process::ExitCode;
use std::time::Instant;

use davy_test_vm::report::{Line, Outcome};
use davy_test_vm::{everyday, network, service_life};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["life"] => {
            let mut life = steps::Life::default();
            go_through(service_life::STEPS, |step| life.step(step));
        }
        ["everyday"] => go_through(everyday::STEPS, days::step),
        ["network"] => go_through(network::STEPS, talk::step),
        ["service", pool, folder] => victim::serve(pool, folder.as_ref()),
        ["mine", pool] => victim::mine(pool),
        // A program that does nothing, for whoever wants to know whether it may.
        ["act"] => {}
        _ => {
            eprintln!("this goes through steps in a virtual machine: life, everyday, or network");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn go_through(steps: &[&'static str], mut take: impl FnMut(&str) -> anyhow::Result<()>) {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    say(&Line::Up { kernel: kernel.trim().to_owned() });
    let mut broken: Option<&str> = None;
    for name in steps.iter().copied() {
        say(&Line::Begin { case: name.to_owned() });
        let begin = Instant::now();
        let outcome = match broken {
            // Every step stands on those before it.
            Some(broken) => Outcome::Failed(format!("not tried, because {broken} failed")),
            None => match take(name) {
                Ok(()) => Outcome::Passed,
                Err(error) => Outcome::Failed(format!("{error:?}\n{}", host::recent_log())),
            },
        };
        if matches!(outcome, Outcome::Failed(_)) {
            broken.get_or_insert(name);
        }
        let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        say(&Line::End { case: name.to_owned(), outcome, ms });
    }
    say(&Line::Done);
}

/// One line on the console, begun on a line of its own.
fn say(line: &Line) {
    println!("\n{}", line.print());
}
