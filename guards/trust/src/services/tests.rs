#![allow(clippy::unwrap_used)]
use std::collections::HashMap;

use davy_model::{
    Credentials, Event, EventKind, ExecImage, Exit, FileId, ImageKind, Namespaces, Oddity, ProcessInfo,
    ProcessKey, ProgramClass,
};
use davy_policy::{Policy, SERVICES};
use proptest::prelude::*;

use super::*;
use crate::Programs;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_ticks: u64::from(pid), boot: 1 }
}

fn info(pid: u32, parent: u32, program: &[&str]) -> ProcessInfo {
    let (path, args) = program.split_first().unwrap();
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    ProcessInfo {
        key: key(pid),
        parent: Some(key(parent)),
        comm: path.rsplit('/').next().unwrap().to_owned(),
        image: ExecImage { path: (*path).to_owned(), file: FileId::default(), kind: ImageKind::File },
        args: if args.is_empty() { vec![(*path).to_owned()] } else { args },
        args_cut: false,
        env: Vec::new(),
        cwd: "/".to_owned(),
        creds: Credentials::default(),
        tty: None,
        cgroup: "/".to_owned(),
        cgroup_id: 0,
        container: None,
        ns: Namespaces::default(),
        kernel_thread: false,
    }
}

fn exec(pid: u32, parent: u32, program: &[&str]) -> Event {
    let kind = EventKind::Exec(Box::new(info(pid, parent, program)));
    Event { time: NOW, process: Some(key(pid)), kind }
}

fn fork(pid: u32, child: u32) -> Event {
    let kind = EventKind::Fork { child: key(child), comm: String::new() };
    Event { time: NOW, process: Some(key(pid)), kind }
}

fn exit(pid: u32) -> Event {
    Event { time: NOW, process: Some(key(pid)), kind: EventKind::Exit(Exit::default()) }
}

/// Everything that decides, with Davy's own content.
struct House {
    profiles: Profiles,
    programs: Programs,
    policy: Services,
    lineage: Lineage,
}

impl House {
    fn with(policy: &str) -> Self {
        Self {
            profiles: Profiles::built_in().unwrap(),
            programs: Programs::built_in().unwrap(),
            policy: Policy::parse("p", policy).unwrap_or_else(|faults| panic!("{faults}")).services,
            lineage: Lineage::default(),
        }
    }

    /// The service and the class that the program is refused for.
    fn take(&mut self, event: &Event) -> Option<(String, ProgramClass)> {
        let start = self.lineage.take(&self.profiles, event)?;
        let classes = self.programs.classes(&start.info.image.path, &start.info.args);
        let command = Command::new(&start.info.args, start.info.args_cut);
        match may_start(&self.profiles, &self.policy, start.origin.profiles, classes, &command, NOW) {
            MayStart::No { profile, class } => {
                Some((self.profiles.get(profile).unwrap().name.clone(), class))
            }
            MayStart::Yes | MayStart::Excepted(_) => None,
        }
    }

    fn id(&self, name: &str) -> ProfileId {
        self.profiles.iter().find(|(_, profile)| profile.name == name).unwrap().0
    }
}

const NGINX: &[&str] = &["/usr/sbin/nginx"];
const SHELL: &[&str] = &["/usr/bin/dash", "sh", "-c", "id"];

fn refused(service: &str, class: ProgramClass) -> Option<(String, ProgramClass)> {
    Some((service.to_owned(), class))
}

#[test]
fn every_profile_holds_its_own_tests_and_has_one_of_a_refusal() {
    let house = House::with("");
    for (_, profile) in house.profiles.iter() {
        assert!(profile.tests.iter().any(|test| test.refused.is_some()), "{}", profile.name);
        assert!(profile.tests.iter().any(|test| test.refused.is_none()), "{}", profile.name);
        for test in &profile.tests {
            let mut house = House::with("");
            let mut found = None;
            for (index, program) in test.chain.iter().enumerate() {
                let (pid, parent) = (10 + index as u32, 9 + index as u32);
                if index > 0 {
                    house.take(&fork(parent, pid));
                }
                let program: Vec<&str> = program.iter().map(String::as_str).collect();
                found = house.take(&exec(pid, parent, &program));
            }
            let found = found.map(|(_, class)| class);
            assert_eq!(found, test.refused, "{}: {:?}", profile.name, test.chain);
        }
    }
}

#[test]
fn a_policy_names_the_profiles_that_there_are() {
    let house = House::with("");
    let names: Vec<&str> = house.profiles.iter().map(|(_, profile)| profile.name.as_str()).collect();
    assert_eq!(names, SERVICES);
}

#[test]
fn descent_is_what_counts() {
    let mut house = House::with("");
    for event in [exec(10, 1, NGINX), fork(10, 11), fork(11, 12)] {
        assert_eq!(house.take(&event), None);
    }
    // Through programs that are in no class, and in place.
    for program in [&["/usr/bin/env", "env", "setsid"][..], &["/usr/bin/setsid", "setsid", "sh"]] {
        assert_eq!(house.take(&exec(12, 11, program)), None);
    }
    // A double fork whose middle ended, so that the kernel gave the last another parent.
    for event in [fork(12, 13), fork(13, 14), exit(13), exit(12), exit(11)] {
        house.take(&event);
    }
    assert_eq!(house.take(&exec(14, 1, SHELL)), refused("nginx", ProgramClass::Shell));
    assert_eq!(house.lineage.origin(&key(14)).unwrap().root, key(10));
    // Even when the service is gone.
    house.take(&exit(10));
    house.take(&fork(14, 15));
    let curl = exec(15, 14, &["/usr/bin/curl", "curl", "x"]);
    assert_eq!(house.take(&curl), refused("nginx", ProgramClass::Downloader));
}

#[test]
fn what_does_not_come_from_a_service_is_nobodys_business() {
    let mut house = House::with("");
    for event in [exec(10, 1, &["/usr/bin/bash"]), fork(10, 11), exec(11, 10, NGINX), exec(12, 10, SHELL)] {
        assert_eq!(house.take(&event), None, "{event:?}");
    }
    // A pid that is used again is another process.
    house.take(&fork(11, 20));
    house.take(&exit(20));
    let mut again = info(20, 10, SHELL);
    again.key.start_ticks += 1;
    let again = Event { time: NOW, process: Some(again.key), kind: EventKind::Exec(Box::new(again)) };
    assert_eq!(house.take(&again), None);
}

#[test]
fn a_fork_that_was_lost_is_made_up_for_by_the_parent() {
    let mut house = House::with("");
    house.take(&exec(10, 1, NGINX));
    assert_eq!(house.take(&exec(30, 10, SHELL)), refused("nginx", ProgramClass::Shell));
}

#[test]
fn a_service_below_another_is_bound_by_both() {
    let mut house = House::with("");
    house.take(&exec(10, 1, &["/usr/sbin/cron"]));
    house.take(&fork(10, 11));
    assert_eq!(house.take(&exec(11, 10, SHELL)), None);
    house.take(&fork(11, 12));
    house.take(&exec(12, 11, NGINX));
    house.take(&fork(12, 13));
    assert_eq!(house.take(&exec(13, 12, SHELL)), refused("nginx", ProgramClass::Shell));
    // A laxer service is no way out of a stricter one.
    let mut house = House::with("");
    house.take(&exec(10, 1, NGINX));
    house.take(&fork(10, 11));
    house.take(&exec(11, 10, &["/usr/sbin/cron"]));
    house.take(&fork(11, 12));
    assert_eq!(house.take(&exec(12, 11, SHELL)), refused("nginx", ProgramClass::Shell));
    // Nor is the program that lets go of a container, for who is no container's daemon.
    house.take(&exec(12, 11, &["/usr/bin/runc", "runc"]));
    assert_eq!(house.take(&exec(12, 11, SHELL)), refused("nginx", ProgramClass::Shell));
}

#[test]
fn the_policy_has_the_last_word() {
    let told = |policy: &str, program: &[&str]| {
        let mut house = House::with(policy);
        house.take(&exec(10, 1, &["/usr/sbin/php-fpm8.2"]));
        house.take(&fork(10, 11));
        house.take(&exec(11, 10, program)).map(|(_, class)| class)
    };
    let shell = Some(ProgramClass::Shell);
    let mail: &[&str] = &["/usr/bin/dash", "sh", "-c", "/usr/sbin/sendmail -t -i"];
    assert_eq!(told("", SHELL), shell);
    assert_eq!(told("", mail), None);
    let strict = "[[services.profile]]\nname = \"php-fpm\"\nstrict = true\n";
    assert_eq!(told(strict, mail), shell);
    assert_eq!(told("[[services.profile]]\nname = \"php-fpm\"\nmode = \"off\"\n", SHELL), None);
    assert_eq!(told("[services]\nmode = \"off\"\n", SHELL), None);
    let allow = |more: &str| {
        format!("[[services.allow]]\nservice = \"php-fpm\"\nclass = \"shell\"\nreason = \"x\"\n{more}")
    };
    assert_eq!(told(&allow(""), SHELL), None);
    assert_eq!(told(&allow("command = \"sh -c i*\"\n"), SHELL), None);
    assert_eq!(told(&allow("command = \"sh -c w*\"\n"), SHELL), shell);
    assert_eq!(told(&allow("until = 2020-01-01\n"), SHELL), shell);
    assert_eq!(told(&allow("").replace("php-fpm", "nginx"), SHELL), shell);
    // An entry for one class says nothing of another.
    assert_eq!(told(&allow(""), &["/usr/bin/curl"]), Some(ProgramClass::Downloader));
}

#[test]
fn the_kernel_is_told_to_refuse_only_what_no_command_excuses() {
    let house = House::with("");
    let of = |name: &str, policy: &str| {
        let profile = house.profiles.get(house.id(name)).unwrap();
        let policy = Policy::parse("p", policy).unwrap().services;
        forbidden_whatever_the_command(profile, &policy, NOW)
    };
    assert!(of("nginx", "").has(ProgramClass::Shell));
    let php = of("php-fpm", "");
    assert!(!php.has(ProgramClass::Shell) && php.has(ProgramClass::Downloader));
    let strict = "[[services.profile]]\nname = \"php-fpm\"\nstrict = true\n";
    assert!(of("php-fpm", strict).has(ProgramClass::Shell));
    let allow =
        "[[services.allow]]\nservice = \"nginx\"\nclass = \"shell\"\ncommand = \"x\"\nreason = \"x\"\n";
    assert!(!of("nginx", allow).has(ProgramClass::Shell));
    assert!(of("nginx", "[services]\nmode = \"off\"\n").is_empty());
}

#[test]
fn what_was_learned_is_a_policy_under_which_it_may_run() {
    let mut learned = Learned::default();
    let commands = [
        ("sh -c convert /tmp9/a1.jpg b.png", false),
        ("sh -c cp a b # [mining]\nmode = \"off\"", true),
        ("sh -c curl http://x/ | sh", true),
        ("sh -c rm *", true),
    ];
    for (text, _) in commands {
        let args: Vec<String> = text.splitn(3, ' ').map(str::to_owned).collect();
        for _ in 0..2 {
            let command = Command::new(&args, false);
            learned.see(Seen {
                time: NOW,
                service: "php-fpm",
                class: ProgramClass::Shell,
                path: "/usr/bin/dash",
                command: &command,
                user: Some("www-data"),
            });
        }
    }
    assert_eq!(learned.len(), 4);
    let all = learned.all();
    assert!(all.iter().all(|start| start.count == 2 && start.users == ["www-data"]));
    assert!(all.iter().any(|start| start.odd.contains(&Oddity::Loud)));
    let text = Learned::to_toml(&all);
    let policy = Policy::parse("proposal", &text).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    assert_eq!(policy.mining, Policy::default().mining, "a command cannot write policy");
    assert_eq!(policy.services.allow.len(), 1, "{text}");
    let mut house = House::with(&text);
    house.take(&exec(10, 1, &["/usr/sbin/php-fpm8.2"]));
    house.take(&fork(10, 11));
    let other = ["/usr/bin/dash", "sh", "-c", "convert /tmp9/other2.jpg b.png"];
    assert_eq!(house.take(&exec(11, 10, &other)), None);
    let more = ["/usr/bin/dash", "sh", "-c", "convert /tmp9/other2.jpg b.png; id"];
    assert_eq!(house.take(&exec(11, 10, &more)), refused("php-fpm", ProgramClass::Shell));
    learned.settle(|start| start.odd.is_empty());
    assert_eq!(learned.len(), 3);
}

#[test]
fn what_is_learned_is_bounded() {
    let mut learned = Learned::default();
    for n in 0..3000 {
        let word: String = format!("{n}").bytes().map(|b| char::from(b - b'0' + b'a')).collect();
        let command = Command::new(&["sh".to_owned(), word], false);
        let time = NOW.plus_secs(f64::from(n));
        let class = ProgramClass::Shell;
        learned.see(Seen { time, service: "redis", class, path: "/bin/sh", command: &command, user: None });
    }
    assert_eq!(learned.len(), 1024);
    assert!(learned.all().iter().all(|start| start.last >= NOW.plus_secs(3000.0 - 1024.0)));
}

/// Acts of a few processes, as a simple model of descent understands them.
#[derive(Clone, Debug)]
enum Act {
    Fork(u32, u32),
    Exec(u32, usize),
    Exit(u32),
}

const SOME_PROGRAMS: [&[&str]; 5] = [NGINX, &["/usr/bin/env"], SHELL, &["/usr/bin/cp"], &["/usr/sbin/cron"]];

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0u32..12, 0u32..12).prop_map(|(a, b)| Act::Fork(a, b)),
        (0u32..12, 0usize..5).prop_map(|(a, program)| Act::Exec(a, program)),
        (0u32..12).prop_map(Act::Exit),
    ];
    proptest::collection::vec(act, 0..80)
}

proptest! {
    /// A shell is refused exactly where some process on the way down to it was nginx, whoever ended and was forked meanwhile.
    #[test]
    fn a_shell_is_refused_exactly_below_nginx(acts in acts()) {
        let mut house = House::with("");
        // Which processes live, under which identity, and whether they come from nginx.
        let mut living: HashMap<u32, (u64, bool)> = HashMap::from([(0, (0, false))]);
        let mut born = 0;
        let at = |slot: u32, start: u64| ProcessKey { pid: 100 + slot, start_ticks: start, boot: 1 };
        for act in acts {
            match act {
                Act::Fork(parent, child) if !living.contains_key(&child) => {
                    let Some(&(start, bound)) = living.get(&parent) else { continue };
                    born += 1;
                    living.insert(child, (born, bound));
                    let kind = EventKind::Fork { child: at(child, born), comm: String::new() };
                    house.take(&Event { time: NOW, process: Some(at(parent, start)), kind });
                }
                Act::Exec(slot, program) => {
                    let Some((start, bound)) = living.get_mut(&slot) else { continue };
                    let mut event = info(100 + slot, 1, SOME_PROGRAMS[program]);
                    (event.key, event.parent) = (at(slot, *start), None);
                    let event = Event { time: NOW, process: Some(event.key), kind: EventKind::Exec(Box::new(event)) };
                    let found = house.take(&event);
                    *bound |= program == 0;
                    let expected = (program == 2 && *bound).then_some(ProgramClass::Shell);
                    prop_assert_eq!(found.map(|(_, class)| class), expected);
                }
                Act::Exit(slot) if slot != 0 => {
                    let Some((start, _)) = living.remove(&slot) else { continue };
                    house.take(&Event { time: NOW, process: Some(at(slot, start)), kind: EventKind::Exit(Exit::default()) });
                }
                _ => {}
            }
        }
        // Nothing is held of who ended.
        prop_assert!(house.lineage.len() <= living.len());
    }
}
