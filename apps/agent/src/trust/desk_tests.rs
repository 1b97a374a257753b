#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use anyhow::Result;
use davy_trust::Rights;
use tempfile::TempDir;

use super::super::gate::{Binding, Said};
use super::*;

const A: Sha256 = Sha256([1; 32]);
const B: Sha256 = Sha256([2; 32]);
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// What the kernel would hold.
#[derive(Default)]
struct Held {
    said: BTreeMap<Sha256, (bool, Rights)>,
    bound: Option<Binding>,
    /// Whether it knows only scripts that it was given to read.
    blind: bool,
    /// How many contents it holds at most, where it is bounded.
    room: Option<usize>,
    /// Inodes of what it was given to read.
    read: Vec<u64>,
}

#[derive(Clone, Default)]
struct FakeGate(Arc<Mutex<Held>>);

impl Gate for FakeGate {
    fn say(&self, said: &[Said]) -> Result<()> {
        let mut held = lock(&self.0);
        for (digest, what) in said {
            let full =
                held.room.is_some_and(|room| held.said.len() >= room && !held.said.contains_key(digest));
            match what {
                Some(_) if full => anyhow::bail!("the table of digests is full"),
                Some(what) => drop(held.said.insert(*digest, *what)),
                None => drop(held.said.remove(digest)),
            }
        }
        Ok(())
    }

    fn held(&self) -> Vec<Sha256> {
        lock(&self.0).said.keys().copied().collect()
    }

    fn wants_scripts_ahead(&self) -> bool {
        lock(&self.0).blind
    }

    fn read(&self, file: &std::fs::File) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        lock(&self.0).read.push(file.metadata()?.ino());
        Ok(())
    }

    fn tells_all(&self) -> bool {
        true
    }

    fn stage(&self, _: &str, _: Option<&Path>) -> Result<()> {
        Ok(())
    }

    fn can_refuse(&self, _: CodeKind) -> bool {
        true
    }

    fn bind(&self, binding: &Binding) -> Result<()> {
        lock(&self.0).bound = Some(binding.clone());
        Ok(())
    }
}

impl FakeGate {
    fn allows(&self, digest: Sha256) -> Option<bool> {
        lock(&self.0).said.get(&digest).map(|(allowed, _)| *allowed)
    }

    fn mode(&self, kind: CodeKind) -> Mode {
        of(self.bound().inside, kind)
    }

    fn bound(&self) -> Binding {
        lock(&self.0).bound.clone().unwrap()
    }
}

fn of(modes: super::super::gate::Modes, kind: CodeKind) -> Mode {
    modes.iter().find(|(known, _)| *known == kind).map(|(_, mode)| *mode).unwrap()
}

fn desk(folder: &TempDir, gate: &FakeGate) -> TrustDesk {
    let (file, manifests) = (folder.path().join("trust.json"), folder.path().join("trust"));
    TrustDesk::new(file, manifests, Some(Box::new(gate.clone())), NOW)
}

fn policy(text: &str) -> Policy {
    Policy::parse("p.toml", text).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A policy that does not wait for packages.
fn without_packages(more: &str) -> Policy {
    policy(&format!("[trust]\nmode = \"enforce\"\nsources = [\"learned\"]\n{more}"))
}

fn sighting(digest: Sha256, odd: Vec<davy_model::Oddity>) -> Sighting {
    Sighting {
        time: NOW,
        digest,
        path: "/opt/run".to_owned(),
        kind: CodeKind::Exec,
        user: None,
        by: None,
        refused: true,
        odd,
        because: String::new(),
    }
}

#[test]
fn lists_reach_the_kernel_and_leave_it_with_the_policy() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    let lists = format!(
        "[[trust.allow]]\nsha256 = \"{A}\"\nreason = \"ours\"\n[[trust.block]]\nsha256 = \"{B}\"\nreason = \"bad\"\n"
    );
    desk.configure(&without_packages(&lists), NOW);
    assert_eq!((gate.allows(A), gate.allows(B)), (Some(true), Some(false)));
    assert_eq!(gate.mode(CodeKind::Exec), Mode::Enforce);
    desk.configure(&without_packages(""), NOW);
    assert_eq!((gate.allows(A), gate.allows(B)), (None, None));
}

#[test]
fn an_approval_is_told_survives_a_restart_and_ends_with_its_time() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let first = desk(&folder, &gate);
    first.configure(&without_packages(""), NOW);
    assert!(first.see(sighting(A, Vec::new())));
    let id = first.pending(10)[0].id;
    first.approve(id, Some(NOW.plus_secs(60.0)), NOW).unwrap();
    assert!(first.pending(10).is_empty());
    assert_eq!(gate.allows(A), Some(true));
    drop(first);

    let gate = FakeGate::default();
    let next = desk(&folder, &gate);
    next.configure(&without_packages(""), NOW);
    assert_eq!(gate.allows(A), Some(true));
    next.tend(NOW.plus_secs(61.0));
    assert_eq!(gate.allows(A), None);
    assert!(next.withdraw(A, NOW.plus_secs(61.0)).is_err(), "nothing is left to be withdrawn");
}

#[test]
fn what_is_on_the_block_list_cannot_be_approved() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    desk.configure(&without_packages(&format!("[[trust.block]]\nsha256 = \"{A}\"\nreason = \"bad\"\n")), NOW);
    desk.see(sighting(A, Vec::new()));
    let refused = desk.approve(desk.pending(1)[0].id, None, NOW).unwrap_err();
    assert!(refused.contains("bad (p.toml:4)"), "{refused}");
}

#[test]
fn a_content_is_approved_before_it_ever_ran() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    desk.configure(&without_packages(&format!("[[trust.block]]\nsha256 = \"{B}\"\nreason = \"bad\"\n")), NOW);
    desk.see(sighting(A, Vec::new()));
    desk.approve_content(A, "/opt/app/run", Some(NOW.plus_secs(60.0)), NOW).unwrap();
    assert!(desk.pending(10).is_empty(), "it waits no longer");
    assert_eq!(gate.allows(A), Some(true));
    assert!(desk.approve_content(B, "/opt/app/bad", None, NOW).unwrap_err().contains("bad (p.toml"));
    assert!(desk.withdraw(A, NOW).is_ok());
    assert_eq!(gate.allows(A), None);
}

#[test]
fn accepting_leaves_what_is_odd_and_can_be_taken_back() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    desk.configure(&without_packages(""), NOW);
    desk.see(sighting(A, Vec::new()));
    desk.see(sighting(B, vec![davy_model::Oddity::Hidden]));
    desk.accept(NOW).unwrap();
    assert_eq!((gate.allows(A), gate.allows(B)), (Some(true), None));
    assert_eq!(desk.pending(10).len(), 1);
    desk.withdraw(A, NOW).unwrap();
    assert_eq!(gate.allows(A), None);
}

#[test]
fn before_packages_are_learned_nothing_is_refused_unless_the_kernel_still_knows() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let enforce = policy("[trust]\nmode = \"enforce\"\n");
    let first = desk(&folder, &gate);
    first.configure(&enforce, NOW);
    assert_eq!(gate.mode(CodeKind::Exec), Mode::Off);
    assert!(first.rehearse("/x", None, NOW.plus_secs(9.0), NOW).is_err());
    // What an agent before this one left in the kernel stays, and goes on being enforced.
    gate.say(&[(A, Some((true, Rights::default())))]).unwrap();
    let next = desk(&folder, &gate);
    next.configure(&enforce, NOW);
    assert_eq!((gate.mode(CodeKind::Exec), gate.allows(A)), (Mode::Enforce, Some(true)));
}

#[test]
fn held_back_nothing_is_refused_and_rehearsals_end() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    desk.configure(&without_packages(""), NOW);
    desk.hold_back(HeldBack { trust: true, ..HeldBack::default() }, Vec::new(), NOW);
    assert_eq!(gate.mode(CodeKind::Library), Mode::Off);
    desk.hold_back(HeldBack::default(), Vec::new(), NOW);
    assert_eq!(gate.mode(CodeKind::Library), Mode::Enforce);
    desk.rehearse("/drill", None, NOW.plus_secs(60.0), NOW).unwrap();
    assert_eq!(gate.bound().rehearsed, ["/drill"]);
    desk.tend(NOW.plus_secs(61.0));
    assert!(gate.bound().rehearsed.is_empty());
}

#[test]
fn what_there_is_no_room_for_is_not_said_to_be_approved() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    lock(&desk.inner).book = Book::with_room_for(1);
    desk.configure(&without_packages(""), NOW);
    desk.approve_content(A, "/opt/a", None, NOW).unwrap();
    desk.see(sighting(B, Vec::new()));
    let refused = desk.approve(desk.pending(1)[0].id, None, NOW).unwrap_err();
    assert!(refused.contains("/opt/run does not run") && refused.contains("room for no more"), "{refused}");
    let refused = desk.accept(NOW).unwrap_err();
    assert!(refused.contains("0 learned") && refused.contains("1 do not run"), "{refused}");
    assert_eq!((gate.allows(B), desk.pending(10).len()), (None, 1), "it waits on");
    let faults = desk.summary(NOW).faults;
    assert!(
        faults.iter().any(|fault| fault.starts_with("2 words for contents were not taken")),
        "{faults:?}"
    );
    // Nor what the kernel has no room for.
    desk.withdraw(A, NOW).unwrap();
    lock(&gate.0).room = Some(0);
    let refused = desk.approve(desk.pending(1)[0].id, None, NOW).unwrap_err();
    assert!(refused.contains("the table of digests is full"), "{refused}");
    assert_eq!(desk.pending(10).len(), 1);
}

#[test]
fn whoever_has_much_written_leaves_room_for_what_is_approved() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    desk.configure(&policy("[trust]\nmode = \"enforce\"\nsources = [\"writers\"]\n"), NOW);
    let content = |number: u32| {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        Sha256(digest)
    };
    for number in 0..20_000_u32 {
        desk.written(content(number), "cc1", "/tmp/a", NOW.plus_secs(f64::from(number) / 100.0));
    }
    assert!(lock(&gate.0).said.len() <= 16_384, "the kernel holds no more than the book");
    assert_eq!((gate.allows(content(0)), gate.allows(content(19_999))), (None, Some(true)));
    let faults = desk.summary(NOW).faults;
    assert!(faults.iter().any(|fault| fault.contains("were forgotten before their time")), "{faults:?}");
    desk.approve_content(A, "/opt/a", None, NOW).unwrap();
    assert_eq!(gate.allows(A), Some(true));
}

#[test]
fn whoever_asks_does_not_wait_for_the_disk() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = Arc::new(desk(&folder, &gate));
    desk.configure(&without_packages(""), NOW);
    // A disk that takes no bytes until somebody reads them.
    let beside = folder.path().join("trust.new");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &beside, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    desk.see(sighting(A, Vec::new()));
    let tending = Arc::clone(&desk);
    let writer = std::thread::spawn(move || tending.tend(NOW));
    let (sender, answered) = std::sync::mpsc::channel();
    let asking = Arc::clone(&desk);
    std::thread::spawn(move || {
        // From then on it is being written down.
        while lock(&asking.inner).dirty {
            std::thread::yield_now();
        }
        sender.send(asking.pending(10).len())
    });
    let answer = answered.recv_timeout(std::time::Duration::from_secs(30));
    std::fs::read(&beside).unwrap();
    writer.join().unwrap();
    assert_eq!(answer, Ok(1), "the disk is not waited for");
    // What could not be written is tried again.
    std::fs::remove_file(&beside).unwrap();
    desk.tend(NOW);
    assert_eq!(Memory::load(&folder.path().join("trust.json")).unwrap().pendings.len(), 1);
}

#[test]
fn scripts_and_modules_follow_their_own_settings() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    desk.configure(&policy("[trust]\nmode = \"enforce\"\nsources = []\nscripts = false\n"), NOW);
    assert_eq!((gate.mode(CodeKind::Script), gate.mode(CodeKind::Module)), (Mode::Off, Mode::Enforce));
}

#[test]
fn the_kernel_observes_only_when_it_is_asked_to() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    let judges = desk.kernel_judges();
    let modes = |text: &str| {
        desk.configure(&policy(text), NOW);
        let bound = gate.bound();
        (of(bound.inside, CodeKind::Exec), of(bound.outside, CodeKind::Exec), judges.load(Ordering::Relaxed))
    };
    let scope = "[scope]\ncgroups = [\"/a\"]\n[trust]\nsources = []\n";
    assert_eq!(modes(""), (Mode::Off, Mode::Off, false));
    assert_eq!(modes("[trust]\nkernel = true\n"), (Mode::Observe, Mode::Observe, true));
    assert_eq!(modes(&format!("{scope}mode = \"enforce\"\n")), (Mode::Enforce, Mode::Off, false));
    let both = format!("{scope}mode = \"enforce\"\nkernel = true\n");
    assert_eq!(modes(&both), (Mode::Enforce, Mode::Observe, true));
    assert_eq!(modes("[trust]\nmode = \"off\"\nkernel = true\n"), (Mode::Off, Mode::Off, false));
}

#[test]
fn services_are_refused_where_the_policy_enforces_and_nowhere_else() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    let policy = |services: &str| {
        policy(&format!("[scope]\ncgroups = [\"/a\"]\n[trust]\nsources = [\"learned\"]\n{services}"))
    };
    let modes = |gate: &FakeGate| {
        let bound = gate.bound();
        (of(bound.inside, CodeKind::Service), of(bound.outside, CodeKind::Service))
    };
    let forbidden =
        |gate: &FakeGate| gate.bound().forbidden.iter().filter(|classes| !classes.is_empty()).count();
    desk.configure(&policy(""), NOW);
    assert_eq!((modes(&gate), forbidden(&gate)), ((Mode::Off, Mode::Off), 0));
    desk.configure(&policy("[services]\nmode = \"enforce\"\n"), NOW);
    assert_eq!(modes(&gate), (Mode::Enforce, Mode::Off));
    assert_eq!(forbidden(&gate), davy_policy::SERVICES.len());
    assert_eq!(gate.mode(CodeKind::Exec), Mode::Off, "code is another protection's");
    let one = "[services]\n[[services.profile]]\nname = \"redis\"\nmode = \"enforce\"\n";
    desk.configure(&policy(one), NOW);
    assert_eq!((modes(&gate).0, forbidden(&gate)), (Mode::Enforce, 1));
    desk.hold_back(HeldBack { services: true, ..HeldBack::default() }, Vec::new(), NOW);
    assert_eq!(modes(&gate), (Mode::Off, Mode::Off), "it fell back");
    desk.hold_back(HeldBack::default(), Vec::new(), NOW);
    assert_eq!(modes(&gate).0, Mode::Enforce);
}

#[test]
fn what_fell_back_in_one_service_holds_everywhere_else() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    desk.configure(
        &policy(
            "[scope]\ncgroups = [\"/a\"]\n[trust]\nmode = \"enforce\"\nsources = []\n[fileless]\nmode = \"enforce\"\n",
        ),
        NOW,
    );
    let there = |held_back: HeldBack| vec![("/a/web.service".to_owned(), held_back)];
    desk.hold_back(HeldBack::default(), there(HeldBack { trust: true, ..HeldBack::default() }), NOW);
    let bound = gate.bound();
    for (cgroup, kind, refused) in [
        ("/a/web.service/x", CodeKind::Exec, false),
        ("/a/web.service/x", CodeKind::Library, false),
        ("/a/web.service", CodeKind::Nameless, true),
        ("/a/db.service", CodeKind::Exec, true),
        ("/a", CodeKind::Exec, true),
        ("/b", CodeKind::Exec, false),
    ] {
        assert_eq!(bound.refuses(cgroup, kind), refused, "{cgroup} {kind:?}");
    }
    desk.hold_back(HeldBack::default(), Vec::new(), NOW);
    assert!(gate.bound().refuses("/a/web.service", CodeKind::Exec));
}

#[test]
fn a_list_of_the_policy_alone_is_not_enough_to_refuse_everything_else() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    let lists =
        format!("[trust]\nmode = \"enforce\"\n[[trust.allow]]\nsha256 = \"{A}\"\nreason = \"ours\"\n");
    desk.configure(&policy(&lists), NOW);
    assert_eq!((gate.allows(A), gate.mode(CodeKind::Exec)), (Some(true), Mode::Off));
}

#[test]
fn where_scripts_must_be_known_beforehand_they_are_read_before_anything_is_refused() {
    use std::os::unix::fs::MetadataExt;
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    lock(&gate.0).blind = true;
    let script = folder.path().join("run.sh");
    std::fs::write(&script, "true\n").unwrap();
    let inode = std::fs::metadata(&script).unwrap().ino();
    let first = desk(&folder, &gate);
    first.configure(&without_packages(""), NOW);
    assert_eq!(gate.mode(CodeKind::Exec), Mode::Off);
    first.scripts_were_read(NOW);
    assert_eq!(gate.mode(CodeKind::Exec), Mode::Enforce);
    // One that is accepted is read at once, so that it runs the next time.
    let path = script.display().to_string();
    first.see(Sighting { path, kind: CodeKind::Script, ..sighting(A, Vec::new()) });
    first.accept(NOW).unwrap();
    assert_eq!(lock(&gate.0).read, [inode]);
    assert_eq!(first.scripts(), [script]);
}

#[test]
fn code_without_a_file_is_bound_by_two_protections_and_the_stronger_holds() {
    let (folder, gate) = (TempDir::new().unwrap(), FakeGate::default());
    let desk = desk(&folder, &gate);
    let modes = |text: &str| {
        desk.configure(&policy(text), NOW);
        [CodeKind::Exec, CodeKind::Nameless, CodeKind::Memory].map(|kind| gate.mode(kind))
    };
    use Mode::{Enforce, Off};
    // No package vouches for it, so that it is not waited for.
    assert_eq!(modes("[fileless]\nmode = \"enforce\"\n"), [Off, Enforce, Off]);
    assert_eq!(modes("[trust]\nmode = \"enforce\"\nsources = []\n"), [Enforce, Enforce, Off]);
    assert_eq!(modes("[trust]\nmode = \"off\"\n[fileless]\nmode = \"enforce\"\n"), [Off, Enforce, Off]);
    assert_eq!(desk.refuses_by(CodeKind::Nameless), "fileless");
    assert_eq!(desk.refuses_by(CodeKind::Exec), "trust");
    // Which programs compile in memory is known when packages are.
    assert_eq!(modes("[fileless]\nmode = \"enforce\"\nwritten_memory = true\n"), [Off, Enforce, Off]);
    desk.hold_back(HeldBack { fileless: true, ..HeldBack::default() }, Vec::new(), NOW);
    assert_eq!(gate.mode(CodeKind::Nameless), Off);
}
