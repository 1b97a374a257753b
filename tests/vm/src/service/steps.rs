use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use davy_firewall::{Bans, Ports};
use davy_test_pool::{Algorithm, Pool, PoolConfig};
use davy_test_vm::PROGRAM;
use davy_test_vm::service_life::{FIREWALL_MODULES, PACKAGES};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use rustix::system::finit_module;
use serde_json::Value;

use crate::attached::Attached;
use crate::host::{davy, run, unit, wait_for};
use crate::remains;
use crate::victim::Try;

const POOL: &str = "127.0.0.1:3333";

/// Where the service that is broken into keeps its record, and where the miner is put.
const VICTIM: &str = "/run/victim";

const POLICY: &str = "\
[scope]
cgroups = [\"/system.slice/victim.service\"]

[mining]
mode = \"enforce\"
actions = [\"cut\", \"kill\"]
";

const PINS: &str = "/sys/fs/bpf/davy";

/// The worst exposure that systemd may see in the unit; from 10, all open, down to 0.
const EXPOSURE: f64 = 5.2;

/// Capabilities that the agent has no use for, by number: modules, raw I/O, reboot, clock.
const NOT_NEEDED: [u32; 4] = [16, 17, 22, 25];

/// What one step leaves for the next.
#[derive(Default)]
pub(crate) struct Life {
    pool: Option<Pool>,
    /// Files and BPF before the package came.
    before: Option<(BTreeSet<PathBuf>, Attached)>,
}

impl Life {
    pub(crate) fn step(&mut self, name: &str) -> Result<()> {
        match name {
            "package_installs_and_the_unit_starts" => self.install(),
            "unit_is_hardened" => hardened(),
            "pool_is_cut_off_in_one_service" => cut_off(),
            "canary_is_stopped_in_the_units_sandbox" => canary_stopped(),
            "code_that_nobody_vouches_for_is_refused" => code_refused(),
            "upgrade_leaves_no_gap" => self.without_a_gap(|| {
                run("dpkg", &["--install", PACKAGES[1]])?;
                let version = run("dpkg-query", &["--show", "--showformat=${Version}", "davy"])?;
                ensure!(version.ends_with("-2"), "the package is still {version}");
                Ok(())
            }),
            "signals_from_outside_are_refused" => signals_refused(),
            "crash_leaves_no_gap" => self.without_a_gap(|| {
                // The first process may do what the agent's own guard refuses to everybody else.
                run("systemctl", &["kill", "--signal=KILL", "davy.service"])?;
                wait_for("systemd starts it again", || Ok((unit("NRestarts")? == "1").then_some(())))
            }),
            "stop_by_systemd_keeps_what_is_cut_off" => self.stop_by_systemd(),
            "order_to_stop_opens_and_stays_stopped" => self.order_to_stop(),
            "read_only_disk_leaves_protection_on" => read_only_disk(),
            "restarted_service_stays_cut_off" => restarted_service(),
            "purge_leaves_nothing" => self.purge(),
            _ => bail!("there is no step {name}"),
        }
    }

    fn install(&mut self) -> Result<()> {
        let mut config = PoolConfig::new(Algorithm::RandomX);
        config.listen = POOL.parse()?;
        config.lifetime = Duration::from_secs(1200);
        self.pool = Some(Pool::start(config)?);
        let service = format!(
            "[Service]\nType=exec\nExecStart={PROGRAM} service {POOL} {VICTIM}\nRuntimeDirectory=victim\n"
        );
        fs::write("/etc/systemd/system/victim.service", service)?;
        run("systemctl", &["daemon-reload"])?;
        run("systemctl", &["start", "victim.service"])?;
        wait_for("the service reaches the pool", || all(Try::Reached, 5))?;
        self.before = Some((remains::files(), Attached::now()?));

        let said = run("dpkg", &["--install", PACKAGES[0]])?;
        for property in ["is-active", "is-enabled"] {
            run("systemctl", &[property, "davy.service"]).with_context(|| said.clone())?;
        }
        let status = wait_for("the agent answers", || davy(&["status"]).map(Some))?;
        ensure!(status["tier"] == "lsm", "a stock kernel gives the lsm tier, not {}", status["tier"]);
        ensure!(status["pid"] == agent()?, "another agent answers: {status}");
        ensure!(fs::exists(PINS).is_ok_and(|there| !there), "an observing agent pins nothing");
        all(Try::Reached, 5)?.context("an observing agent is in the way of a service")
    }

    /// Does something to a running agent that cuts off the service, and looks whether the service got through
    /// meanwhile, whether the next agent holds the same, and whether anything is there twice.
    fn without_a_gap(&self, disturb: impl FnOnce() -> Result<()>) -> Result<()> {
        let connections = self.pool.as_ref().context("no pool")?.stats().connections;
        let (attached, before, members) = (Attached::now()?, agent()?, processes()?);
        let held = blocked()?;
        let (start, watch) = (Instant::now(), Watch::begin()?);
        disturb()?;
        let status = wait_for("the new agent answers", || {
            Ok(davy(&["status"]).ok().filter(|status| status["pid"] != before))
        })?;
        ensure!(status["pid"] == agent()?, "another agent answers: {status}");
        wait_for("it holds what the old one held", || Ok((blocked()? == held).then_some(())))?;
        let tries = watch.end()?;
        let reached = self.pool.as_ref().context("no pool")?.stats().connections - connections;
        println!("{} tries in {:.1} s", tries.len(), start.elapsed().as_secs_f64());
        ensure!(tries.iter().all(|t| *t == Try::Refused), "{}", tally(&tries));
        ensure!(reached == 0, "the pool took {reached} connections");
        // A gap hides only where nobody tries.
        ensure!(tries.len() as f64 >= start.elapsed().as_secs_f64() * 5.0, "only {} tries", tries.len());
        ensure!(Try::now(POOL) == Try::Reached, "the pool is cut off outside of the scope too");
        wait_for("nothing is there twice", || {
            let now = (Attached::now()?, processes()?);
            ensure!(now == (attached.clone(), members), "{now:?} and before it {attached:?}, {members}");
            Ok(Some(()))
        })
    }

    fn stop_by_systemd(&self) -> Result<()> {
        let watch = Watch::begin()?;
        run("systemctl", &["stop", "davy.service"])?;
        ensure!(unit("ActiveState")? == "inactive", "the unit is {}", unit("ActiveState")?);
        wait_for("the service tries without an agent", || all(Try::Refused, 20))?;
        run("systemctl", &["start", "davy.service"])?;
        wait_for("the agent holds it again", || Ok((blocked()? == serde_json::json!([POOL])).then_some(())))?;
        let tries = watch.end()?;
        ensure!(tries.iter().all(|t| *t == Try::Refused), "{}", tally(&tries));
        ensure!(Try::now(POOL) == Try::Reached, "the pool is cut off outside of the scope too");
        Ok(())
    }

    fn order_to_stop(&self) -> Result<()> {
        davy(&["stop"])?;
        wait_for("the unit has ended", || Ok((unit("ActiveState")? == "inactive").then_some(())))?;
        wait_for("the service reaches the pool", || all(Try::Reached, 5))?;
        ensure!(fs::exists(PINS).is_ok_and(|there| !there), "pins are left");
        let (_, before) = self.before.as_ref().context("no state from before")?;
        wait_for("every program is gone", || {
            let now = Attached::now()?;
            ensure!(now == *before, "{now:?} and before the package {before:?}");
            Ok(Some(()))
        })?;
        // Longer than the unit waits before it starts an agent again that ended by itself.
        std::thread::sleep(Duration::from_secs(3));
        ensure!(unit("ActiveState")? == "inactive", "systemd started it again: {}", unit("ActiveState")?);
        ensure!(unit("Result")? == "success", "systemd says {}", unit("Result")?);
        Ok(())
    }

    /// From an agent that enforces, the hardest moment.
    fn purge(&mut self) -> Result<()> {
        run("systemctl", &["start", "davy.service"])?;
        wait_for("what has time left is cut off again", || all(Try::Refused, 5))?;
        close_ports()?;
        run("dpkg", &["--purge", "davy"])?;
        ensure!(!Ports::open()?.remove()?, "ports are still closed");
        ensure!(!Bans::open()?.remove()?, "somebody is still banned");
        wait_for("the service reaches the pool", || all(Try::Reached, 5))?;
        ensure!(run("systemctl", &["cat", "davy.service"]).is_err(), "there is still a unit");
        let running = fs::read_dir("/proc")?
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
        ensure!(running.into_iter().all(|name| name.trim() != "davy"), "a davy still runs");
        let (files, attached) = self.before.as_ref().context("no state from before")?;
        let left: Vec<_> = remains::files().difference(files).cloned().collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        wait_for("every program is gone", || {
            let now = Attached::now()?;
            ensure!(now == *attached, "{now:?} and before the package {attached:?}");
            Ok(Some(()))
        })
    }
}

/// Ports are closed for good, and somebody is banned.
fn close_ports() -> Result<()> {
    for module in FIREWALL_MODULES {
        let file = fs::File::open(format!("/lib/modules/{module}.ko")).with_context(|| module)?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => bail!("{module} is not loaded: {error}"),
        }
    }
    let policy = fs::read_to_string("/etc/davy/davy.toml")?;
    let opens = "[[inbound.allow]]\nport = 22\nfrom = [\"anyone\"]\nreason = \"administration\"\n";
    fs::write("/etc/davy/davy.toml", format!("{policy}\n[inbound]\nmode = \"enforce\"\n{opens}"))?;
    run("davy", &["policy", "reload"])?;
    davy(&["ports", "apply", "--unused"])?;
    davy(&["ports", "confirm"])?;
    davy(&["ban", "192.0.2.1", "--for", "1h"])?;
    let (ports, bans) = (davy(&["ports"])?, davy(&["bans"])?);
    ensure!(ports["state"] == "closed" && bans[0]["held"] == true, "{ports} {bans}");
    Ok(())
}

/// What the unit says it takes away is taken away from the running agent too.
fn hardened() -> Result<()> {
    let report = run("systemd-analyze", &["security", "--no-pager", "davy.service"])?;
    let level =
        report.lines().find(|line| line.contains("Overall exposure level")).context("no overall exposure")?;
    println!("{}", level.trim());
    let number = level.split_once("davy.service:").and_then(|(_, rest)| rest.split_whitespace().next());
    let exposure: f64 = number.context("no number")?.parse()?;
    ensure!(exposure <= EXPOSURE, "more exposed than {EXPOSURE}:\n{report}");
    let status = fs::read_to_string(format!("/proc/{}/status", agent()?))?;
    let field = |name: &str| {
        let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(":")?.trim().to_owned());
        status.lines().find_map(of).with_context(|| format!("no {name} in\n{status}"))
    };
    ensure!(field("NoNewPrivs")? == "1" && field("Seccomp")? == "2", "{status}");
    let bound = u64::from_str_radix(&field("CapBnd")?, 16)?;
    let had: Vec<_> = NOT_NEEDED.into_iter().filter(|capability| bound & (1 << capability) != 0).collect();
    ensure!(had.is_empty(), "it may have the capabilities {had:?}");
    // A nice level of -10 as getrlimit(2) counts it: 20 less the level.
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent()?))?;
    let nice = limits.lines().find_map(|line| line.strip_prefix("Max nice priority"));
    let nice = nice.and_then(|values| values.split_whitespace().next());
    ensure!(nice == Some("30"), "the keeper of the permission gate may not raise itself: {limits}");
    // What the unit forbids must not be what the workers lock themselves up with.
    let status = davy(&["status"])?;
    // The one that scans runs only while there is something to scan.
    let running =
        status["workers"].as_array().into_iter().flatten().filter(|worker| !worker["pid"].is_null());
    let workers: Vec<&Value> = running.collect();
    ensure!(!workers.is_empty(), "no worker runs");
    let confined = |worker: &&Value| worker["confinement"]["missing"] == serde_json::json!([]);
    ensure!(workers.iter().all(confined), "{}", status["workers"]);
    Ok(())
}

/// The way of docs/guides/enforce-in-one-service.md, and a miner in the service.
fn cut_off() -> Result<()> {
    fs::write("/etc/davy/davy.toml", POLICY)?;
    run("davy", &["policy", "check", "/etc/davy/davy.toml"])?;
    run("davy", &["policy", "reload"])?;
    let service = run("systemctl", &["show", "--value", "--property=MainPID", "victim.service"])?;
    let miner = Path::new(VICTIM).join("miner");
    fs::copy(PROGRAM, miner.with_extension("new"))?;
    fs::rename(miner.with_extension("new"), &miner)?;
    wait_for("the service is cut off", || {
        all(Try::Refused, 5)?.with_context(|| format!("{:?}", davy(&["findings"]))).map(Some)
    })?;
    fs::remove_file(&miner)?;
    wait_for("the miner is killed", || Ok(done("kill")?.then_some(())))?;
    ensure!(done("cut")?, "no cut in the journal: {}", davy(&["actions"])?);
    ensure!(Try::now(POOL) == Try::Reached, "the pool is cut off outside of the scope too");
    let same = run("systemctl", &["show", "--value", "--property=MainPID", "victim.service"])?;
    ensure!(same == service, "the service did not live through it");
    ensure!(blocked()? == serde_json::json!([POOL]), "the agent does not say what it cut off");
    ensure!(fs::exists(PINS)?, "what is cut off is not pinned");
    Ok(())
}

/// The policy that began to enforce had the agent act on a process of its own, past seccomp, capabilities and its own guard.
fn canary_stopped() -> Result<()> {
    let proof = wait_for("a canary", || {
        let proof = davy(&["status"])?["last_canary"].clone();
        Ok((!proof.is_null()).then_some(proof))
    })?;
    ensure!(proof["held"] == 5 && proof["of"] == 5, "{proof}");
    wait_for("the canary's cgroup is gone", || {
        let left = fs::read_dir("/sys/fs/cgroup")?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("davy-canary-"));
        Ok((!left).then_some(()))
    })
}

/// The drills of trust, by the installed program, with what the machine's own packages vouch for.
fn code_refused() -> Result<()> {
    fs::write("/etc/davy/davy.toml", format!("{POLICY}\n[trust]\nkernel = true\n"))?;
    run("systemctl", &["restart", "davy.service"])?;
    let vouched = wait_for("packages are learned", || {
        let by = davy(&["trust", "status"])?["by"].clone();
        let packages = by.as_array().into_iter().flatten().find(|source| source["source"] == "packages");
        Ok(packages.and_then(|source| source["contents"].as_u64()))
    })?;
    ensure!(vouched > 500, "packages vouch for {vouched} contents only");
    let explained = davy(&["trust", "explain", "/usr/bin/true"])?;
    ensure!(explained[0]["ruling"]["rank"] == "allowed", "{explained}");
    let results = davy(&["drill", "trust"])?;
    let results = results.as_array().context("no results")?;
    ensure!(results.len() == 4, "{results:?}");
    for result in results {
        ensure!(result["outcome"] == "held" && result["tier"] == "lsm", "{result}");
    }
    // What was refused waits for the administrator, with its content.
    let pending = davy(&["trust", "pending"])?;
    let refused =
        pending.as_array().into_iter().flatten().filter(|p| p["refused"].as_u64() > Some(0)).count();
    ensure!(refused >= 2, "{pending}");
    Ok(())
}

/// A service that restarts is in another cgroup of the same name. What it may reach until the agent has seen that is in
/// docs/concepts/limits.md.
fn restarted_service() -> Result<()> {
    run("systemctl", &["restart", "victim.service"])?;
    wait_for("the service is cut off again", || all(Try::Refused, 5))?;
    ensure!(Try::now(POOL) == Try::Reached, "the pool is cut off outside of the scope too");
    Ok(())
}

/// The unit starts on a disk that takes nothing, without the folder that it would make there.
fn read_only_disk() -> Result<()> {
    let (state, away) = ("/var/lib/davy", "/var/lib/davy.away");
    fs::rename(state, away)?;
    run("mount", &["--bind", "/var/lib", "/var/lib"])?;
    run("mount", &["--options", "remount,bind,ro", "/var/lib"])?;
    run("systemctl", &["start", "davy.service"])?;
    let status = wait_for("the agent answers", || davy(&["status"]).map(Some))?;
    ensure!(status["tier"] == "lsm", "the tier is {}", status["tier"]);
    ensure!(status["store"]["path"] == "/run/davy/state/store", "{}", status["store"]);
    let why = status["store"]["temporary"].as_str().unwrap_or_default();
    ensure!(why.contains("Read-only file system"), "{why}");
    davy(&["stop"])?;
    wait_for("the unit has ended", || Ok((unit("ActiveState")? == "inactive").then_some(())))?;
    run("umount", &["/var/lib"])?;
    ensure!(fs::exists(state).is_ok_and(|there| !there), "something was written to the disk");
    Ok(fs::rename(away, state)?)
}

fn signals_refused() -> Result<()> {
    let before = agent()?;
    let pid = Pid::from_raw(before).context("no agent")?;
    for signal in [Signal::KILL, Signal::TERM, Signal::STOP] {
        ensure!(kill_process(pid, signal) == Err(rustix::io::Errno::PERM), "{signal:?} is not refused");
    }
    let made = fs::create_dir("/sys/fs/cgroup/system.slice/davy.service/below").map_err(|error| error.kind());
    ensure!(made == Err(std::io::ErrorKind::PermissionDenied), "a cgroup below the agent's: {made:?}");
    wait_for("the attempt is found", || {
        let findings = davy(&["findings"])?;
        let told = |all: &Vec<Value>| all.iter().any(|finding| finding["kind"] == "tampering");
        Ok(findings.as_array().is_some_and(told).then_some(()))
    })?;
    ensure!(agent()? == before, "the agent is another");
    Ok(())
}

/// The pid of the agent that systemd runs.
fn agent() -> Result<i32> {
    Ok(unit("MainPID")?.parse()?)
}

/// How many processes the unit has: the agent and its workers, but for the one that scans, which comes and goes.
fn processes() -> Result<usize> {
    let members = fs::read_to_string("/sys/fs/cgroup/system.slice/davy.service/cgroup.procs")?;
    let scans =
        |pid: &&str| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.ends_with(b"\0scan\0"));
    Ok(members.lines().filter(|pid| !scans(pid)).count())
}

/// The service's tries from one moment to another.
struct Watch(usize);

impl Watch {
    fn begin() -> Result<Self> {
        Ok(Self(Try::read(&record(), 0)?.1))
    }

    fn end(self) -> Result<Vec<Try>> {
        Ok(Try::read(&record(), self.0)?.0)
    }
}

fn record() -> PathBuf {
    Path::new(VICTIM).join("tries")
}

/// Whether the service's next tries all end like this.
fn all(outcome: Try, number: usize) -> Result<Option<()>> {
    let watch = Watch::begin()?;
    std::thread::sleep(Duration::from_millis(30) * u32::try_from(number)?);
    let tries = watch.end()?;
    Ok((tries.len() * 2 >= number && tries.iter().all(|t| *t == outcome)).then_some(()))
}

fn tally(tries: &[Try]) -> String {
    let of = |outcome| tries.iter().filter(|t| **t == outcome).count();
    format!(
        "{} got through, {} refused, {} failed otherwise",
        of(Try::Reached),
        of(Try::Refused),
        of(Try::Failed)
    )
}

/// What the agent says is blocked now.
fn blocked() -> Result<Value> {
    let top = davy(&["top", "--once"])?;
    Ok(top["blocked"].clone())
}

/// Whether the journal has an action of this kind that was done.
fn done(kind: &str) -> Result<bool> {
    let actions = davy(&["actions"])?;
    // What is done for no finding is done to the agent's own canary.
    let is = |action: &Value| {
        action["state"] == "done" && action["action"] == kind && !action["finding"].is_null()
    };
    Ok(actions.as_array().is_some_and(|all| all.iter().any(is)))
}
