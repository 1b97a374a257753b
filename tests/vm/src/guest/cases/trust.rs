//! Code that nobody vouches for, in every way in that is known: each works outside the scope, and is refused in it.

mod lasting;
mod marks;
mod memory;
mod mounts;
mod nameless;
mod places;
mod programs;
mod scripts;
mod services;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use davy_kernel::{
    JudgedCounts, Rights, Saying, TrustConfig, TrustGate, TrustModes, TrustScope, Verdict, cgroup_id,
};
use davy_model::{CodeJudgement, CodeKind, CodeOutcome, CodeReason, EventKind, FileId, Mode, Sha256};
use davy_test_vm::report::{Answer, Line};

use super::{Cell, Lacks, SELF};
use crate::watch::Watch;
pub(crate) use lasting::{agent, everything};

pub(super) fn find(name: &str) -> Option<fn() -> Result<()>> {
    Some(match name {
        "unknown_programs_are_refused_in_their_scope" => {
            programs::unknown_programs_are_refused_in_their_scope
        }
        "changed_programs_are_refused" => programs::changed_programs_are_refused,
        "no_race_of_writer_and_exec_is_won" => programs::no_race_of_writer_and_exec_is_won,
        "judging_is_never_passed_over" => programs::judging_is_never_passed_over,
        "observing_refuses_nothing" => programs::observing_refuses_nothing,
        "blocked_programs_are_refused_although_vouched_for" => {
            programs::blocked_programs_are_refused_although_vouched_for
        }
        "nameless_programs_are_refused" => nameless::nameless_programs_are_refused,
        "trusted_files_are_read_once" => nameless::trusted_files_are_read_once,
        "code_for_the_loader_is_judged" => nameless::code_for_the_loader_is_judged,
        "written_memory_is_not_executed" => memory::written_memory_is_not_executed,
        "mapped_files_are_judged_when_made_executable" => {
            memory::mapped_files_are_judged_when_made_executable
        }
        "mapped_code_is_not_overwritten" => memory::mapped_code_is_not_overwritten,
        "page_zero_is_survived" => memory::page_zero_is_survived,
        "injection_is_refused" => memory::injection_is_refused,
        "kernel_code_is_judged" => memory::kernel_code_is_judged,
        "unknown_scripts_are_refused" => scripts::unknown_scripts_are_refused,
        "trusted_writers_output_is_trusted" => marks::trusted_writers_output_is_trusted,
        "package_managers_are_trusted_as_root" => marks::package_managers_are_trusted_as_root,
        "another_file_system_is_judged_anew" => mounts::another_file_system_is_judged_anew,
        "nothing_is_remembered_on_overlays" => mounts::nothing_is_remembered_on_overlays,
        "services_start_no_shells" => services::services_start_no_shells,
        "containers_are_not_bound_by_their_daemon" => services::containers_are_not_bound_by_their_daemon,
        "running_services_are_bound" => services::running_services_are_bound,
        "unknown_programs_are_refused_by_every_name" => places::unknown_programs_are_refused_by_every_name,
        "mounted_images_are_judged" => places::mounted_images_are_judged,
        "what_user_space_serves_is_refused" => places::what_user_space_serves_is_refused,
        "overlays_of_users_are_refused" => places::overlays_of_users_are_refused,
        "enforcement_outlives_the_agent" => lasting::enforcement_outlives_the_agent,
        _ => return None,
    })
}

/// Where the dynamic loader lies.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A gate, a cgroup that it binds, and one that it does not. The guest's own programs are vouched for; the case itself is in
/// the gate's exempt cgroup, as an agent is.
struct Scene {
    watch: Watch,
    gate: TrustGate,
    bound: Cell,
    free: Cell,
    folder: String,
}

impl Scene {
    fn set(mode: Mode) -> Result<Self> {
        let agent = Cell::make("agent")?;
        agent.enter()?;
        let config = TrustConfig { exempt: Some(cgroup_id(&agent.0)?), ..TrustConfig::default() };
        let scene = Self::adopting(config, Cell::make("bound")?, Cell::make("free")?)?;
        for program in ["/bin/busybox", SELF] {
            scene.vouch(program, Rights::default())?;
        }
        scene.gate.set_scope(TrustScope::Cgroup(cgroup_id(&scene.bound.0)?), TrustModes::all(mode))?;
        Ok(scene)
    }

    fn adopting(config: TrustConfig, bound: Cell, free: Cell) -> Result<Self> {
        let watch = Watch::start()?;
        let gate = TrustGate::start(config, &watch.sensors).context("starting the gate")?;
        let folder = format!("/tmp/trust-{}", std::process::id());
        fs::create_dir_all(&folder)?;
        Ok(Self { watch, gate, bound, free, folder })
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn vouch(&self, file: &str, rights: Rights) -> Result<()> {
        let saying = Saying { verdict: Verdict::Allow(rights), ..Saying::allow() };
        Ok(self.gate.vouch(&[(digest(file)?, saying)])?)
    }

    /// A copy of busybox that is another program by some bytes at its end. It looks at its name for what it is.
    fn stranger(&self, name: &str) -> Result<String> {
        self.altered("/bin/busybox", &format!("busybox-{name}"))
    }

    fn altered(&self, original: &str, name: &str) -> Result<String> {
        let bytes = [fs::read(original).with_context(|| original.to_owned())?, name.as_bytes().to_vec()];
        self.put(name, &bytes.concat())
    }

    /// A program of some hundred bytes that ends with a code.
    fn program(&self, name: &str, code: u8) -> Result<String> {
        self.put(name, &tiny(code))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<String> {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Works outside, and is refused in the scope.
    fn refused(&self, what: &str, script: &str) -> Result<()> {
        self.free_only(what, script)?;
        self.refused_in_scope(what, script)
    }

    /// Works outside and in the scope, as a published limit has it.
    fn passes(&self, what: &str, script: &str) -> Result<()> {
        self.allowed(what, script)?;
        tried(what, Answer::Runs);
        Ok(())
    }

    fn refused_in_scope(&self, what: &str, script: &str) -> Result<()> {
        let output = self.bound.shell(script)?;
        ensure!(output.status.code() != Some(99), "{what}: the scope could not be entered");
        ensure!(!output.status.success(), "{what} was let through in the scope: {}", said(&output));
        let said = said(&output);
        // The loader says that a segment could not be mapped, and not why.
        let refusals = ["not permitted", "denied", "failed to map segment"];
        ensure!(refusals.iter().any(|text| said.contains(text)), "{what} failed otherwise: {said}");
        tried(what, Answer::Refused);
        Ok(())
    }

    fn allowed(&self, what: &str, script: &str) -> Result<()> {
        self.free_only(what, script)?;
        self.bound_only(what, script)
    }

    fn free_only(&self, what: &str, script: &str) -> Result<()> {
        worked(&self.free.shell(script)?, &format!("{what}, outside"))
    }

    fn bound_only(&self, what: &str, script: &str) -> Result<()> {
        worked(&self.bound.shell(script)?, &format!("{what}, in the scope"))
    }

    fn count(&self, kind: CodeKind) -> JudgedCounts {
        self.gate
            .counts()
            .into_iter()
            .find(|(known, _)| *known == kind)
            .map(|(_, counts)| counts)
            .unwrap_or_default()
    }

    /// How many judgements of a kind were told.
    fn heard(&self, kind: CodeKind) -> usize {
        self.watch.heard(|event| matches!(event, EventKind::CodeJudged(told) if told.kind == kind))
    }

    /// Waits until a judgement is told.
    fn told(
        &self,
        kind: CodeKind,
        outcome: CodeOutcome,
        reason: CodeReason,
        path: Option<&str>,
    ) -> Result<CodeJudgement> {
        let wanted = |told: &CodeJudgement| {
            (told.kind, told.outcome, told.reason) == (kind, outcome, reason)
                && path.is_none_or(|path| told.path.as_deref() == Some(path))
        };
        let what = format!("{kind:?} {outcome:?} {reason:?} of {path:?}");
        let event = self
            .watch
            .expect_of_anyone(&what, |event| matches!(event, EventKind::CodeJudged(told) if wanted(told)))?;
        match event.kind {
            EventKind::CodeJudged(told) => Ok(*told),
            other => bail!("not a judgement: {other:?}"),
        }
    }
}

/// Tells the table of bypasses what came of one.
fn tried(what: &str, answer: Answer) {
    println!("{}", Line::Tried { what: what.to_owned(), answer }.print());
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn worked(output: &Output, what: &str) -> Result<()> {
    ensure!(output.status.success(), "{what} did not work: {:?} {}", output.status, said(output));
    Ok(())
}

fn run_it(file: &str, code: u8) -> String {
    format!("{file}; test $? = {code}")
}

/// SHA-256 of a file by another program than the one that is tried here.
fn digest(file: &str) -> Result<Sha256> {
    let output = Command::new("/bin/busybox").args(["sha256sum", file]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split(' ').next().unwrap_or("").parse().with_context(|| format!("the digest of {file}: {text}"))
}

fn identity(file: &str) -> Result<FileId> {
    let found = fs::metadata(file)?;
    Ok(FileId { dev: found.dev(), ino: found.ino() })
}

/// A program that needs the loader and a library, both of which are vouched for with it.
fn dynamic(scene: &Scene) -> Result<&'static str> {
    let program = "/bin/dynamic";
    for file in [LOADER, "/lib/x86_64-linux-gnu/libc.so.6", program] {
        if !Path::new(file).exists() {
            return Err(Lacks(format!("{file} of the machine that builds")).into());
        }
        scene.vouch(file, Rights::default())?;
    }
    Ok(program)
}

/// An ELF program of one segment that ends at once with a code.
pub(crate) fn tiny(code: u8) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    // mov edi, code; mov eax, 60; syscall
    let text = [0xbf, code, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let size = (64 + 56 + text.len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    let word = |file: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    let long = |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    // An executable for x86-64; the entry behind both headers.
    half(&mut file, &[2, 62]);
    word(&mut file, &[1]);
    long(&mut file, &[BASE + 64 + 56, 64, 0]);
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, 1, 0, 0, 0]);
    // One segment to load, readable and executable.
    word(&mut file, &[1, 5]);
    long(&mut file, &[0, BASE, BASE, size, size, 4096]);
    file.extend(text);
    file
}
