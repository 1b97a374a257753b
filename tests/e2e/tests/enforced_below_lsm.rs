//! A policy that enforces refuses code where the kernel takes no programs that judge it. Each agent here has a mount
//! namespace of its own, so that the machine's mounts are not asked about, and a cgroup that the test made for its scope.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use davy_model::{Capability, Mode, Tier};
use davy_test_e2e::{Agent, Scope, assert_published, cgroup2, davy, root_or_skip};
use davy_wire::{Command as Order, Query, Reply, RequestBody};
use rustix::fs::MemfdFlags;

use Came::{Refused, Runs};

/// How long the agent may take to notice something.
const SOON: Duration = Duration::from_secs(20);

/// Programs that the test vouches for, with everything that they load.
const TRUSTED: [&str; 6] =
    ["/bin/sh", "/usr/bin/true", "/usr/bin/rm", "/usr/bin/cp", "/usr/bin/sleep", "/usr/bin/mount"];

/// Without programs that judge, and with permission events: the tiers that are tried here.
fn is_below_lsm(agent: &Agent) -> bool {
    let status = agent.status().unwrap();
    let works = |wanted| status.probes.iter().any(|probe| probe.capability == wanted && probe.works);
    let below = !works(Capability::TrustLsm) && works(Capability::FanotifyPermission);
    if !below {
        println!("SKIPPED: code is judged in the kernel here, or the kernel asks nobody");
    }
    below && works(Capability::Tracing)
}

/// Sections of the page of bypasses.
const PROGRAMS: &str = "Unknown programs";
const NAMES: &str = "Names, links, mounts, chroots, namespaces";
const CHANGED: &str = "Known programs, changed";
const NAMELESS: &str = "Programs without a name";
const LOADER: &str = "What the dynamic loader is given";
const SCRIPTS: &str = "What interpreters are given";

/// The dynamic loader as programs name it.
const LOADER_PATH: &str = "/lib64/ld-linux-x86-64.so.2";

struct Ground {
    scope: Scope,
    folder: tempfile::TempDir,
}

impl Ground {
    fn make(name: &str) -> Option<Self> {
        if !root_or_skip() || cgroup2().is_none() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("davy-e2e-").tempdir().unwrap();
        Some(Self { scope: Scope::make(name).unwrap(), folder })
    }

    /// Nothing is learned; the allow-list alone vouches.
    fn agent(&self, sections: &str) -> Agent {
        self.agent_for(&[&self.scope], sections)
    }

    fn agent_for(&self, scopes: &[&Scope], sections: &str) -> Agent {
        let scopes: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
        let mut policy = format!("[scope]\ncgroups = {scopes:?}\n{sections}\n");
        for digest in trusted() {
            policy.push_str(&format!("[[trust.allow]]\nsha256 = \"{digest}\"\nreason = \"the test's\"\n"));
        }
        Agent::start_apart(self.folder.path(), &policy).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program with a content of its own.
    fn altered(&self, of: &str, name: &str) -> PathBuf {
        let mut bytes = fs::read(of).unwrap();
        bytes.extend(name.as_bytes());
        self.file(name, &bytes)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }
}

/// Digests of the trusted programs and of what they load.
fn trusted() -> Vec<String> {
    let mut files: Vec<String> = TRUSTED.iter().map(|path| (*path).to_owned()).collect();
    for program in TRUSTED {
        let said = Command::new("ldd").arg(program).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        files.extend(said.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
    }
    let said = Command::new("sha256sum").args(&files).output().unwrap();
    let mut digests: Vec<String> =
        String::from_utf8(said.stdout).unwrap().lines().map(|line| line[..64].to_owned()).collect();
    digests.sort();
    digests.dedup();
    digests
}

fn ran(output: &Output) -> bool {
    output.status.success() && output.stderr.is_empty()
}

/// A shell says 126 of what it may not execute.
fn was_denied(output: &Output) -> bool {
    output.status.code() == Some(126) && String::from_utf8_lossy(&output.stderr).contains("not permitted")
}

fn was_ended(output: &Output) -> bool {
    let signal = output.status.signal().or_else(|| output.status.code().map(|code| code - 128));
    signal == Some(9) && output.stdout.is_empty()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn an_enforcing_scope_refuses_what_nobody_vouches_for_and_nothing_outside() {
    let Some(ground) = Ground::make("enforced") else { return };
    let mut agent = ground.agent("[trust]\nmode = \"enforce\"\nsources = [\"manifests\"]\n");
    if !is_below_lsm(&agent) {
        return;
    }
    let trust = agent.status().unwrap().protections.into_iter().find(|p| p.name == "trust").unwrap();
    assert_eq!((trust.tier, trust.mode), (Some(Tier::Permission), Mode::Enforce), "{}", trust.note);
    agent
        .wait_for("the gate", SOON, |agent| {
            let refused =
                agent.shell(Some(&ground.scope), &text(&ground.altered("/usr/bin/true", "first")))?;
            Ok(was_denied(&refused).then_some(()))
        })
        .unwrap();

    let unknown = ground.file("unknown", &fs::read(davy()).unwrap());
    let altered = ground.altered("/usr/bin/true", "altered");
    let [by_link, by_hard_link, script_by_link] =
        ["link", "hard-link", "link.sh"].map(|name| ground.path(name));
    let script = ground.file("script.sh", b"exit 0\n");
    let direct = ground.file("direct.sh", b"#!/bin/sh\nexit 0\n");
    symlink(&altered, &by_link).unwrap();
    fs::hard_link(ground.altered("/usr/bin/true", "linked"), &by_hard_link).unwrap();
    symlink(&script, &script_by_link).unwrap();
    for (section, what, line, came) in [
        (PROGRAMS, "an unknown program", format!("{} --version >/dev/null", text(&unknown)), Refused(126)),
        (NAMES, "an unknown program by a symbolic link", text(&by_link), Refused(126)),
        (NAMES, "an unknown program by another hard link", text(&by_hard_link), Refused(126)),
        (CHANGED, "an altered copy", text(&altered), Refused(126)),
        (
            LOADER,
            "an unknown program by the loader",
            format!("{LOADER_PATH} {}", text(&altered)),
            Refused(127),
        ),
        (SCRIPTS, "an unknown script", text(&direct), Refused(126)),
        (SCRIPTS, "an unknown script as an argument", format!("/bin/sh {}", text(&script)), Refused(2)),
        (
            SCRIPTS,
            "an unknown script by a relative name",
            format!("cd {} && /bin/sh ./script.sh", ground.folder.path().display()),
            Refused(2),
        ),
        (SCRIPTS, "an unknown script by a link", format!("/bin/sh {}", text(&script_by_link)), Refused(2)),
        (SCRIPTS, "an unknown script on standard input", format!("/bin/sh <{}", text(&script)), Runs),
        (SCRIPTS, "an unknown script through a pipe", "echo 'exit 0' | /bin/sh".to_owned(), Runs),
        (SCRIPTS, "commands given to an interpreter as an argument", "/bin/sh -c 'exit 0'".to_owned(), Runs),
    ] {
        let inside = agent.shell(Some(&ground.scope), &line).unwrap();
        match came {
            Refused(code) => assert_eq!(inside.status.code(), Some(code), "{what}: {inside:?}"),
            Runs => assert!(ran(&inside), "{what}: {inside:?}"),
        }
        let outside = agent.shell(None, &line).unwrap();
        assert!(ran(&outside), "{what}: {outside:?}");
        assert_published(section, what, if came == Runs { "**runs**" } else { "refused" });
    }
    let library = ground.altered(&c_library(), "library.so");
    let preload = format!("LD_PRELOAD={} /usr/bin/true", text(&library));
    let inside = agent.shell(Some(&ground.scope), &preload).unwrap();
    assert!(String::from_utf8_lossy(&inside.stderr).contains("cannot be preloaded"), "{inside:?}");
    assert!(ran(&agent.shell(None, &preload).unwrap()));
    assert_published(LOADER, "an unknown library by LD_PRELOAD", "refused");

    // A copy of a trusted program runs, until it is changed.
    for (what, change) in
        [("writing into the same file", "cat {more} >>{known}"), ("renaming over it", "mv {more} {known}")]
    {
        let known = text(&ground.file("known", &fs::read("/usr/bin/true").unwrap()));
        assert!(ran(&agent.shell(Some(&ground.scope), &known).unwrap()), "{what}");
        let more = text(&ground.altered("/usr/bin/true", "more"));
        let change = change.replace("{more}", &more).replace("{known}", &known);
        assert!(ran(&agent.shell(None, &change).unwrap()), "{what}");
        let changed = agent.shell(Some(&ground.scope), &known).unwrap();
        assert!(was_denied(&changed), "{what}: {changed:?}");
        assert_published(CHANGED, what, "refused");
    }
    // Everyday work goes on, what is vouched for among it.
    assert!(ran(&agent.shell(Some(&ground.scope), "/usr/bin/true && exec /bin/sh -c :").unwrap()));
    // A machine's own process is not asked about, in the scope or not: its mounts are not the agent's.
    assert!(Command::new(&altered).status().unwrap().success());

    // What was refused waits, and runs once it is approved.
    let waiting = agent
        .wait_for("what waits", SOON, |agent| {
            let replies = agent.ask(RequestBody::Query(Query::TrustPending { limit: 100 }))?;
            Ok(replies.into_iter().find_map(|reply| match reply {
                // Run outside, it may be told before it was refused inside.
                Reply::Pending(pending) if pending.path.ends_with("/altered") && pending.refused > 0 => {
                    Some(pending)
                }
                _ => None,
            }))
        })
        .unwrap();
    agent.ask(RequestBody::Command(Order::TrustApprove { id: waiting.id, seconds: None })).unwrap();
    assert!(ran(&agent.shell(Some(&ground.scope), &text(&altered)).unwrap()));

    // Killed, it holds nobody up.
    agent.signal(rustix::process::Signal::KILL);
    agent.wait_end(SOON).unwrap();
    assert!(Command::new(&unknown).arg("--version").output().unwrap().status.success());
}

/// What becomes of code in an enforcing scope.
#[derive(Clone, Copy, PartialEq)]
enum Came {
    /// Its shell ends with this code.
    Refused(i32),
    Runs,
}

#[test]
fn no_file_passes_for_its_length_and_no_pipe_holds_the_agent_up() {
    let Some(ground) = Ground::make("long") else { return };
    let mut agent = ground.agent("[trust]\nmode = \"enforce\"\nsources = [\"manifests\"]\n");
    if !is_below_lsm(&agent) {
        return;
    }
    let long = ground.altered("/usr/bin/true", "long");
    // Holes cost nothing, and are as long to read as bytes.
    File::options().write(true).open(&long).unwrap().set_len(1 << 40).unwrap();
    agent
        .wait_for("the gate", SOON, |agent| {
            let refused = agent.shell(Some(&ground.scope), &text(&long))?;
            Ok(was_denied(&refused).then_some(()))
        })
        .unwrap();
    assert!(ran(&agent.shell(None, &text(&long)).unwrap()));

    // What ran is looked at afterwards, by a name that leads to a pipe by then.
    let (pipe, unknown) = (text(&ground.path("pipe")), ground.altered("/usr/bin/true", "unknown"));
    for _ in 0..10 {
        let line = format!("/usr/bin/cp {} {pipe}; {pipe}; /usr/bin/rm {pipe}", text(&unknown));
        assert!(ran(&agent.shell(None, &line).unwrap()));
        rustix::fs::mknodat(rustix::fs::CWD, &*pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        fs::remove_file(&pipe).unwrap();
    }
    let later = ground.altered("/usr/bin/true", "later");
    assert!(ran(&agent.shell(None, &text(&later)).unwrap()));
    agent
        .wait_for("that it still looks at what runs", SOON, |agent| {
            let replies = agent.ask(RequestBody::Query(Query::TrustPending { limit: 100 }))?;
            let waits = |reply| matches!(reply, Reply::Pending(pending) if pending.path.ends_with("/later"));
            Ok(replies.into_iter().any(waits).then_some(()))
        })
        .unwrap();
    agent.signal(rustix::process::Signal::INT);
    agent.wait_end(SOON).unwrap();
}

#[test]
fn a_spike_of_refusals_opens_the_service_where_it_was_and_no_other() {
    let Some(ground) = Ground::make("spike") else { return };
    let other = Scope::make("spike-other").unwrap();
    let trust =
        "[trust]\nmode = \"enforce\"\nsources = [\"manifests\"]\n[failsafe]\ndenials_per_minute = 20\n";
    let agent = ground.agent_for(&[&ground.scope, &other], trust);
    if !is_below_lsm(&agent) {
        return;
    }
    let altered = text(&ground.altered("/usr/bin/true", "altered"));
    let until = |what: &str, scope: &Scope, wanted: fn(&Output) -> bool| {
        let mut others = 0;
        agent
            .wait_for(what, SOON, |agent| {
                let output = agent.shell(Some(scope), &altered)?;
                others += u32::from(!wanted(&output));
                Ok(wanted(&output).then_some(()))
            })
            .unwrap();
        others
    };
    until("the gate", &ground.scope, was_denied);
    until("the gate elsewhere", &other, was_denied);
    let refused = until("the fall back", &ground.scope, ran);
    assert!(refused >= 20, "{refused} refusals are no spike");
    assert!(was_denied(&agent.shell(Some(&other), &altered).unwrap()), "{}", agent.log());
    let told = agent.status().unwrap().fallen_back;
    assert!(
        told.len() == 1 && told[0].starts_with(&format!("trust in {}: ", ground.scope.name())),
        "{told:?}"
    );
    agent.ask(RequestBody::Command(Order::Arm)).unwrap();
    until("the end of the fall back", &ground.scope, was_denied);
}

fn c_library() -> String {
    let said = Command::new("ldd").arg("/usr/bin/true").output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    said.split_whitespace().find(|word| word.starts_with('/') && word.contains("libc.so")).unwrap().to_owned()
}

#[test]
fn what_is_mounted_later_in_a_scope_is_asked_about_soon() {
    let Some(ground) = Ground::make("mounted") else { return };
    let agent = ground.agent("[trust]\nmode = \"enforce\"\nsources = [\"manifests\"]\n");
    if !is_below_lsm(&agent) {
        return;
    }
    let altered = text(&ground.altered("/usr/bin/true", "altered"));
    let place = ground.path("place");
    fs::create_dir(&place).unwrap();
    let place = text(&place);
    // In the agent's namespace, so that nobody else sees the mount; it goes with the agent.
    let line = format!(
        "mount -t tmpfs davy-test {place} && cp {altered} {place}/x || exit 1; n=0; \
         while {place}/x; do sleep 0.05; n=$((n+1)); [ $n -lt 200 ] || exit 3; done 2>/dev/null; exit 42"
    );
    let output = agent.shell(Some(&ground.scope), &line).unwrap();
    assert_eq!(output.status.code(), Some(42), "{output:?}; {}", agent.log());
}

/// `/bin/echo`, without a file.
fn echo_in_memory() -> File {
    let mut memory = File::from(rustix::fs::memfd_create("davy-test", MemfdFlags::empty()).unwrap());
    memory.write_all(&fs::read("/bin/echo").unwrap()).unwrap();
    memory
}

/// What a shell runs it by.
fn runs_from(memory: &File) -> String {
    format!("exec /proc/{}/fd/{} written", std::process::id(), memory.as_raw_fd())
}

#[test]
fn code_without_a_file_that_is_let_be_in_one_service_is_ended_in_the_others() {
    let Some(ground) = Ground::make("spike-fileless") else { return };
    let other = Scope::make("spike-fileless-other").unwrap();
    // Without packages, which take their time to be learned: what was ended is told after that.
    let fileless = "[trust]\nsources = [\"manifests\"]\n[fileless]\nmode = \"enforce\"\n[failsafe]\ndenials_per_minute = 5\n";
    let agent = ground.agent_for(&[&ground.scope, &other], fileless);
    if !is_below_lsm(&agent) {
        return;
    }
    let memory = echo_in_memory();
    let line = runs_from(&memory);
    let until = |what: &str, scope: &Scope, wanted: fn(&Output) -> bool| {
        agent
            .wait_for(what, SOON, |agent| Ok(wanted(&agent.shell(Some(scope), &line)?).then_some(())))
            .unwrap();
    };
    until("the end of code in memory", &other, was_ended);
    until("the end of it where it is tried over and over", &ground.scope, was_ended);
    until("the fall back", &ground.scope, ran);
    assert!(was_ended(&agent.shell(Some(&other), &line).unwrap()), "{}", agent.log());
    agent.ask(RequestBody::Command(Order::Arm)).unwrap();
    until("the end of the fall back", &ground.scope, was_ended);
}

#[test]
fn code_without_a_file_does_not_begin_where_fileless_enforces() {
    let Some(ground) = Ground::make("fileless") else { return };
    let agent = ground.agent("[fileless]\nmode = \"enforce\"\n");
    if !is_below_lsm(&agent) {
        return;
    }
    let fileless = agent.status().unwrap().protections.into_iter().find(|p| p.name == "fileless").unwrap();
    assert_eq!((fileless.tier, fileless.mode), (Some(Tier::Signal), Mode::Enforce), "{}", fileless.note);
    let memory = echo_in_memory();
    let line = runs_from(&memory);
    agent
        .wait_for("the end of code in memory", SOON, |agent| {
            Ok(was_ended(&agent.shell(Some(&ground.scope), &line)?).then_some(()))
        })
        .unwrap();
    assert_eq!(agent.shell(None, &line).unwrap().stdout, b"written\n");
    assert_published(NAMELESS, "a memfd", "ended");
    // A file whose name is gone is refused, or ended if nobody asked about its mount.
    let altered = text(&ground.altered("/bin/echo", "gone"));
    let deleted = |name: &str| {
        format!("cp {altered} {name} && exec 3<{name} && rm {name} && exec /proc/self/fd/3 written")
    };
    let inside = agent.shell(Some(&ground.scope), &deleted(&text(&ground.path("inside")))).unwrap();
    assert!((was_denied(&inside) || was_ended(&inside)) && inside.stdout.is_empty(), "{inside:?}");
    assert_published(NAMELESS, "a deleted file", "refused or ended");
    let outside = agent.shell(None, &deleted(&text(&ground.path("outside")))).unwrap();
    assert_eq!(outside.stdout, b"written\n", "{outside:?}");
    // Code with a file is another protection's, which only observes here.
    assert_eq!(agent.shell(Some(&ground.scope), &format!("{altered} written")).unwrap().stdout, b"written\n");
    agent
        .wait_for("the finding", SOON, |agent| {
            let mut evidence = agent.findings()?.into_iter().flat_map(|finding| finding.evidence);
            Ok(evidence.any(|e| e.text.contains("was kept from running code without a file")).then_some(()))
        })
        .unwrap();
}

#[test]
fn whoever_sits_at_the_terminal_is_told_why() {
    for told in [true, false] {
        let Some(ground) = Ground::make("terminal") else { return };
        let agent = ground
            .agent(&format!("[trust]\nmode = \"enforce\"\nsources = [\"manifests\"]\nterminal = {told}\n"));
        if !is_below_lsm(&agent) {
            return;
        }
        let altered = text(&ground.altered("/usr/bin/true", "altered"));
        let typescript = ground.path("typescript");
        // script(1) gives the shell a terminal, and writes down what shows there. The sleep is for the line to come.
        let line = format!(
            "nsenter --mount=/proc/{}/ns/mnt -- /bin/sh -c 'echo 0 >{}/cgroup.procs; exec /bin/sh -c \"{altered}; sleep 2\"'",
            agent.pid(),
            ground.scope.dir().display(),
        );
        let wanted =
            format!("davy: {altered} was not run: nobody vouches for it. Administrator: davy trust approve ");
        agent
            .wait_for("a refusal", SOON, |_| {
                let mut script = Command::new("script");
                script.args(["-q", "-e", "-c", &line]).arg(&typescript);
                script.stdin(std::process::Stdio::null()).output()?;
                Ok(fs::read_to_string(&typescript)?.contains("not permitted").then_some(()))
            })
            .unwrap();
        // At the first refusal: what is refused is mostly a child that began a moment ago.
        let shown = fs::read_to_string(&typescript).unwrap();
        assert_eq!(shown.contains(&wanted), told, "{shown}; {}", agent.log());
    }
}
