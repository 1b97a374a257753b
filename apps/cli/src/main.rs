//! The `davy` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    davy_cli::start(std::env::args_os())
}
