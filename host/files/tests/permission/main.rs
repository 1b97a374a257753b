//! The permission gate against the kernel, on file systems that each test mounts in a mount namespace of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod agent;
mod decisions;
mod ground;
mod held_up;
mod lockouts;
mod races;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("keep") => {
            return davy_files::permission::keep().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
        }
        Some("agent") => return agent::main(),
        _ => {}
    }
    let arguments = Arguments::from_args();
    if !arguments.list {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: fanotify permission events and a mount namespace need root");
            return ExitCode::SUCCESS;
        }
        if std::env::var_os("DAVY_TEST_INSIDE").is_none() {
            let mut inside = Command::new("timeout");
            inside.args(["300", "unshare", "--mount", "--propagation", "private"]);
            inside.arg(std::env::current_exe().unwrap()).args(std::env::args().skip(1));
            let error = inside.env("DAVY_TEST_INSIDE", "1").exec();
            panic!("unshare: {error}");
        }
    }
    let tests: Vec<(&str, fn())> = [decisions::TESTS, lockouts::TESTS, held_up::TESTS, races::TESTS].concat();
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || std::panic::catch_unwind(test).map_err(|_| Failed::without_message()))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
