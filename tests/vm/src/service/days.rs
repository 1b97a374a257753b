//! Days of a server: watched, learned, enforced.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use davy_test_vm::everyday::{FOLDER, PACKAGE, ROUNDS, SLICE};
use serde_json::Value;

use crate::host::{davy, run, wait_for, wait_so_long_for};

/// The kernel judges from the first day on, as it does when it enforces.
const POLICY: &str = "\
[trust]
kernel = true
";

/// How long a record of the kernel takes to be worked up at most.
const SETTLE: Duration = Duration::from_secs(3);

/// In which packages are read on an emulated processor.
const LEARNED_WITHIN: Duration = Duration::from_secs(300);

/// What a day printed.
const SAID: &str = "/run/day.said";

/// Where what nobody vouches for is put: no place that says anything by itself.
const STRANGERS: &str = "/srv/strangers";

pub(crate) fn step(name: &str) -> Result<()> {
    match name {
        "packages_vouch_for_a_server" => vouched(),
        "first_day_is_watched" => first_day(),
        "what_ran_is_accepted" => accept(),
        "second_day_has_nothing_to_refuse" => second_day(),
        "enforced_day_breaks_nothing" => enforced_day(),
        "unknown_code_is_refused" => strangers(),
        _ => bail!("there is no step {name}"),
    }
}

/// As an administrator would: the server as it is, then Davy on it.
fn vouched() -> Result<()> {
    for place in ["/var/lib/apt/lists/partial", "/var/cache/apt/archives/partial"] {
        fs::create_dir_all(place)?;
    }
    // An archive of classes that is the administrator's own: no package has it.
    let jar = "import shutil, zipfile\n\
               shutil.copy('/usr/share/java/hsqldb.jar', 'app.jar')\n\
               zipfile.ZipFile('app.jar', 'a').comment = b'ours'";
    ensure!(Command::new("python3").args(["-c", jar]).current_dir(FOLDER).status()?.success(), "no app.jar");
    // Its cgroup is there from now on, and stays the same.
    run("systemctl", &["start", SLICE])?;
    fs::create_dir_all("/etc/davy")?;
    fs::write("/etc/davy/davy.toml", POLICY)?;
    run("dpkg", &["--force-confold", "--install", PACKAGE])?;
    let learned = wait_so_long_for("packages are learned", LEARNED_WITHIN, || {
        let status = davy(&["trust", "status"])?;
        let by = status["by"].as_array().cloned().unwrap_or_default();
        let packages = by.iter().find(|source| source["source"] == "packages");
        Ok(packages.and_then(|source| source["contents"].as_u64()).map(|contents| (contents, status)))
    })?;
    println!("packages vouch for {} contents: {}", learned.0, learned.1["learning"]);
    ensure!(learned.0 > 2_000, "packages vouch for {} contents only", learned.0);
    Ok(())
}

/// A day, as a service of a slice.
fn day(round: u32) -> Result<String> {
    let unit = format!(
        "[Service]\nType=oneshot\nSlice={SLICE}\nExecStart={FOLDER}/day {round}\n\
         StandardOutput=truncate:{SAID}\nStandardError=inherit\nTimeoutStartSec=infinity\n"
    );
    fs::write("/run/systemd/system/day.service", unit)?;
    run("systemctl", &["daemon-reload"])?;
    let done = run("systemctl", &["start", "day.service"]);
    let said = fs::read_to_string(SAID).unwrap_or_default();
    println!("{said}");
    done.with_context(|| format!("round {round}: {said}"))?;
    std::thread::sleep(SETTLE);
    Ok(said)
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Judgements of an outcome since then.
fn judged(outcome: &str, since: SystemTime) -> Result<Vec<String>> {
    let ago = format!("{}s", since.elapsed().unwrap_or_default().as_secs() + 1);
    let events = davy(&["events", "--kind", "code_judged", "--since", &ago, "--limit", "100000"])?;
    let events = events.as_array().cloned().unwrap_or_default();
    let of = |event: &&Value| event["event"] == "code_judged" && event["data"]["outcome"] == outcome;
    Ok(events.iter().filter(of).map(|event| event["data"].to_string()).collect())
}

fn waiting() -> Result<Vec<Value>> {
    Ok(davy(&["trust", "pending", "--limit", "1000"])?.as_array().cloned().unwrap_or_default())
}

fn first_day() -> Result<()> {
    let begin = SystemTime::now();
    day(ROUNDS[0])?;
    for judged in judged("would_deny", begin)? {
        println!("would be refused: {judged}");
    }
    let waiting = waiting()?;
    // The day's own program is nobody's but the administrator's.
    let day = format!("{FOLDER}/day");
    ensure!(waiting.iter().any(|p| p["path"] == day.as_str()), "{day} does not wait: {waiting:?}");
    ensure!(waiting.iter().all(|p| p["refused"] == 0), "refused while observing: {waiting:?}");
    Ok(())
}

/// What ran is proposed, nothing of it is odd, and all of it is taken.
fn accept() -> Result<()> {
    let proposal = davy(&["trust", "learn"])?;
    let paths = |list: &str| -> Vec<String> {
        let list = proposal[list].as_array().into_iter().flatten();
        list.map(|p| format!("{} {}", p["path"].as_str().unwrap_or_default(), p["kinds"])).collect()
    };
    let (allow, odd) = (paths("allow"), paths("odd"));
    println!("proposed: {allow:#?}\nodd: {odd:#?}");
    ensure!(odd.is_empty(), "odd: {odd:#?}");
    // What apt unpacks, the compiler writes or packages bring is not for the administrator to look at. PHP's timer names the
    // settings that ucf keeps to `php -c`: what an interpreter is told to open is judged, and settings say what it loads.
    let own = [FOLDER, "/srv/build/configure", "/etc/php/"];
    let foreign: Vec<_> = allow.iter().filter(|path| !own.iter().any(|own| path.starts_with(own))).collect();
    ensure!(foreign.is_empty(), "more is proposed than the administrator's own: {foreign:#?}");
    println!("{}", davy(&["trust", "learn", "--accept"])?);
    ensure!(waiting()?.is_empty(), "{:?}", waiting()?);
    Ok(())
}

/// Other packages, another program built: nothing would be refused, on the whole host.
fn second_day() -> Result<()> {
    let begin = SystemTime::now();
    day(ROUNDS[1])?;
    let would = judged("would_deny", begin)?;
    ensure!(would.is_empty(), "would be refused: {would:#?}");
    ensure!(waiting()?.is_empty(), "{:?}", waiting()?);
    ensure!(!judged("marked", begin)?.is_empty(), "nothing ran that a compiler or a package manager wrote");
    Ok(())
}

fn enforced_day() -> Result<()> {
    let enforce = format!("{POLICY}mode = \"enforce\"\n\n[scope]\ncgroups = [\"/{SLICE}\"]\n");
    fs::write("/etc/davy/davy.toml", enforce)?;
    run("davy", &["policy", "check", "/etc/davy/davy.toml"])?;
    run("davy", &["policy", "reload"])?;
    wait_for("trust enforces", || Ok((davy(&["trust", "status"])?["mode"] == "enforce").then_some(())))?;
    let begin = SystemTime::now();
    day(ROUNDS[2])?;
    for outcome in ["denied", "would_deny"] {
        let judged = judged(outcome, begin)?;
        ensure!(judged.is_empty(), "{outcome}: {judged:#?}");
    }
    ensure!(waiting()?.is_empty(), "{:?}", waiting()?);
    Ok(())
}

/// What nobody vouches for runs outside of the slice and not in it, and the administrator sees why.
fn strangers() -> Result<()> {
    fs::create_dir_all(STRANGERS)?;
    let put = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = format!("{STRANGERS}/{name}");
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let altered = |original: &str| -> Result<Vec<u8>> {
        Ok([fs::read(original).with_context(|| original.to_owned())?, b"altered".to_vec()].concat())
    };
    // This very program is in no package, and it was not run in a day.
    let program = put("program", &fs::read(davy_test_vm::PROGRAM)?)?;
    let copy = put("copy", &altered("/usr/bin/true")?)?;
    let library = put("library.so", &altered("/usr/lib/x86_64-linux-gnu/libm.so.6")?)?;
    let jar = put("strange.jar", &altered(&format!("{FOLDER}/app.jar"))?)?;
    let scripts = [
        ("sh", put("script.sh", b"true\n")?),
        ("bash", put("script.bash", b": true\n")?),
        ("python3", put("script.py", b"pass\n")?),
        ("perl", put("script.pl", b"1;\n")?),
        ("php", put("script.php", b"<?php\n")?),
        ("node", put("script.js", b"0;\n")?),
        ("awk -f", put("script.awk", b"BEGIN {}\n")?),
    ];
    let named = put("named", b"#!/bin/sh\ntrue\n")?;
    let mut acts = vec![
        ("an unknown program", program.clone(), format!("{program} act")),
        ("an altered copy of a packaged program", copy.clone(), copy.clone()),
        ("an unknown script by its first line", named.clone(), named.clone()),
        // The loader goes on without it, and says so.
        (
            "an unknown library by LD_PRELOAD",
            library.clone(),
            format!("test -z \"$(LD_PRELOAD={library} /usr/bin/true 2>&1)\""),
        ),
        (
            "an unknown archive of classes",
            jar.clone(),
            format!("java -cp {jar} org.hsqldb.server.Server --help >/dev/null"),
        ),
    ];
    for (interpreter, script) in &scripts {
        acts.push(("an unknown script", script.clone(), format!("{interpreter} {script}")));
    }
    for (what, file, act) in &acts {
        ensure!(ran(false, act)?.status.success(), "{what} does not run anywhere: {act}");
        let refused = ran(true, act)?;
        ensure!(!refused.status.success(), "{what} ran in the scope: {act}");
        println!("{what}: {act}: {}", said(&refused).trim().lines().next_back().unwrap_or_default());
        let explained = run("davy", &["trust", "explain", file]);
        ensure!(explained.is_err(), "{file} is vouched for");
    }
    std::thread::sleep(SETTLE);
    let waiting = waiting()?;
    for (what, file, _) in &acts {
        let found = waiting.iter().find(|p| p["path"] == file.as_str());
        let found = found.with_context(|| format!("{what} does not wait: {waiting:?}"))?;
        ensure!(found["refused"].as_u64() > Some(0), "{found}");
        ensure!(found["because"] == "nobody vouches for this content", "{found}");
    }
    // What was approved runs.
    let found = waiting.iter().find(|p| p["path"] == program.as_str()).context("no number")?;
    run("davy", &["trust", "approve", &found["id"].to_string()])?;
    let approved = ran(true, &acts[0].2)?;
    ensure!(approved.status.success(), "what was approved does not run: {}", said(&approved));
    Ok(())
}

/// Runs a command of the shell, in a cgroup of the slice or outside of every scope.
fn ran(bound: bool, command: &str) -> Result<Output> {
    let cgroup = format!("/sys/fs/cgroup/{}/strangers", if bound { SLICE } else { "system.slice" });
    fs::create_dir_all(&cgroup)?;
    let script = format!("echo $$ >{cgroup}/cgroup.procs || exit 99; {command}");
    let output = Command::new("sh").args(["-c", &script]).output().context("starting a shell")?;
    ensure!(output.status.code() != Some(99), "the cgroup could not be entered: {}", said(&output));
    Ok(output)
}
