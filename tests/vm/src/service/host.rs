use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// How long anything may take on an emulated CPU.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program and gives what it printed on its standard output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .with_context(|| format!("starting {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{program} {}: {}\n{out}\n{err}", arguments.join(" "), output.status);
    Ok(out)
}

/// What `davy VERB --json` says.
pub(crate) fn davy(arguments: &[&str]) -> Result<Value> {
    let said = run("davy", &[arguments, &["--json"]].concat())?;
    serde_json::from_str(&said).with_context(|| format!("davy {}: {said}", arguments.join(" ")))
}

/// A property of Davy's unit.
pub(crate) fn unit(property: &str) -> Result<String> {
    run("systemctl", &["show", "--value", "--property", property, "davy.service"])
}

/// Looks again and again until something is there.
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait_so_long_for(what, PATIENCE, look)
}

/// The same, for what takes longer.
pub(crate) fn wait_so_long_for<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        let last = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if Instant::now() >= end {
            bail!("not within {} s: {what}{last}", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The end of what Davy and systemd logged about it, for a report.
pub(crate) fn recent_log() -> String {
    let log = ["--no-pager", "--lines=60", "--output=short-monotonic", "--unit=davy.service"];
    let status = run("systemctl", &["status", "--no-pager", "--lines=0", "davy.service"]);
    format!(
        "{}\n{}",
        status.unwrap_or_else(|error| error.to_string()),
        run("journalctl", &log).unwrap_or_else(|error| error.to_string())
    )
}
