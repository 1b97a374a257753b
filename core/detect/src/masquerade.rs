//! Processes that pretend to be another program.

use davy_model::{Evidence, ImageKind, ProcessInfo, ProcessKey, Signal, Timestamp};

use crate::campaign::shortened;
use crate::flow_watch::Noted;
use crate::known_names::KnownNames;
use crate::ledger::{Particulars, Topic, evidence};
use crate::places::{Place, place};
use crate::process_table::base_name;
use crate::weights::{
    HIDDEN, NAME_ARGS, NAME_KERNEL_THREAD, NAME_LOOKALIKE, NAME_PADDED, NAME_SERVICE, PLACE_HIDDEN,
    PLACE_SHARED, PRELOADED,
};

/// Programs that run others' text and bear its name.
const INTERPRETERS: [&str; 12] =
    ["python", "perl", "ruby", "node", "php", "bash", "dash", "sh", "busybox", "java", "lua", "ld-linux"];

/// A process that somebody took pains to keep out of /proc's sight.
pub(crate) fn hidden(time: Timestamp, key: ProcessKey, how: &str) -> Noted {
    let text = format!("is hidden from ps and top: {how}");
    ("hidden", evidence(time, Signal::Masquerade, HIDDEN, text).of(key).technique("T1564.001"))
}

/// What a program's names and place say when it is executed, found running or renamed.
pub(crate) fn look(
    time: Timestamp,
    info: &ProcessInfo,
    comm: &str,
    names: &KnownNames,
    noted: &mut Vec<Noted>,
) {
    if info.kernel_thread || info.image.path.is_empty() {
        return;
    }
    let path = info.image.path.as_str();
    let file = base_name(path);
    let argument = info.args.first().map_or("", String::as_str);
    let shown = shown_name(argument);
    let mut add = |topic: Topic, weight: f32, technique: &str, text: String| {
        let found: Evidence =
            evidence(time, Signal::Masquerade, weight, text).of(info.key).technique(technique);
        noted.push((topic, found));
    };
    let from = whence(info);
    if let Some(name) = kernel_thread_name(comm, argument, names) {
        add(
            "name/kernel",
            NAME_KERNEL_THREAD,
            "T1036.004",
            format!("calls itself {name} like a kernel thread, and runs {from}"),
        );
    } else if let Some((name, weight)) = stolen_name(info, comm, shown, file, names) {
        add("name/service", weight, "T1036.005", format!("calls itself {name}, and is not: it runs {from}"));
    }
    let outside = !names.is_system(path);
    if outside
        && let Some((name, like)) = [comm, file].into_iter().find_map(|n| Some((n, names.lookalike(n)?)))
    {
        add(
            "name/lookalike",
            NAME_LOOKALIKE,
            "T1036.005",
            format!("calls itself {name}, one letter away from {like}, and runs {from}"),
        );
    }
    if [comm, shown].into_iter().any(padded) {
        add(
            "name/padded",
            NAME_PADDED,
            "T1036.006",
            format!("its name {shown:?} holds spaces or signs that do not show, and it runs {from}"),
        );
    }
    let preloaded =
        info.env.iter().find(|(name, value)| name == "LD_PRELOAD" && place(value) != Place::Plain);
    if let Some((_, library)) = preloaded {
        let text = format!("loads {} before all other libraries", shortened(library, 120));
        add("preload", PRELOADED, "T1574.006", text);
    }
    match place(path) {
        Place::Shared => {
            add("place", PLACE_SHARED, "T1036.005", format!("runs {from}, where anyone may write"))
        }
        Place::Hidden => add("place", PLACE_HIDDEN, "T1564.001", format!("runs {from}, a hidden place")),
        Place::Web | Place::Plain => {}
    }
}

/// Where a program runs from, for people.
pub(crate) fn whence(info: &ProcessInfo) -> String {
    match info.image.kind {
        ImageKind::Memfd => "from memory, without a file".to_owned(),
        ImageKind::Deleted => {
            format!("from {}, which is deleted", info.image.path.trim_end_matches(" (deleted)"))
        }
        ImageKind::File => format!("from {}", info.image.path),
    }
}

/// The first argument as people read it: a login shell's dash, a path and a title's further words taken off.
fn shown_name(argument: &str) -> &str {
    let argument = argument.strip_prefix('-').unwrap_or(argument);
    let word = argument.split_once(": ").map_or(argument, |(name, _)| name);
    if word.starts_with('/') { base_name(word) } else { word }
}

fn kernel_thread_name<'a>(comm: &'a str, argument: &'a str, names: &KnownNames) -> Option<&'a str> {
    let bracketed = |s: &str| s.len() > 2 && s.starts_with('[') && s.trim_end().ends_with(']');
    if bracketed(argument) && names.is_kernel_thread(argument.trim_end()) {
        return Some(argument);
    }
    if bracketed(comm) && names.is_kernel_thread(comm.trim_end()) {
        return Some(comm);
    }
    // Without brackets only names that no user's program bears by chance.
    [comm, argument].into_iter().find(|name| {
        let own = name.starts_with("rcu_")
            || name.starts_with("jbd2/")
            || (name.starts_with('k') && name.len() >= 5);
        own && names.is_kernel_thread(name)
    })
}

/// A well-known name on something that is not that program, with the weight of it.
fn stolen_name<'a>(
    info: &'a ProcessInfo,
    comm: &'a str,
    shown: &'a str,
    file: &'a str,
    names: &KnownNames,
) -> Option<(&'a str, f32)> {
    let path = info.image.path.as_str();
    let nameless = info.image.kind == ImageKind::Memfd;
    if !nameless && names.is_system(path) {
        // The system's own interpreter under a service's name: scripts bear names, but seldom a daemon's own.
        let interprets = INTERPRETERS.iter().any(|i| file.starts_with(i));
        let claims = info.args.first().is_some_and(|a| !a.starts_with('/'))
            && shown != file
            && names.is_service(shown)
            && !names.is_service(file);
        return (interprets && claims).then_some((shown, NAME_ARGS));
    }
    let name = [comm, shown, file].into_iter().find(|n| names.knows(n))?;
    if !nameless && names.in_place(name, path) == Some(true) {
        return None;
    }
    // People build nginx and redis in their homes and images; nobody installs them where anyone may write.
    let odd = nameless || info.image.kind == ImageKind::Deleted || place(path) != Place::Plain;
    // A file that bears another name than the process was not built as that program.
    let renamed = file != name && !file.starts_with(name);
    match (odd, renamed) {
        (true, _) | (_, true) => Some((name, NAME_SERVICE)),
        _ => (info.container.is_none()).then_some((name, NAME_ARGS)),
    }
}

/// Whether a name looks like another by spaces at its ends or signs that do not show.
fn padded(name: &str) -> bool {
    let ends = |c: char| c == ' ' || c == '\u{a0}';
    let invisible = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
    };
    let core = name.trim_end_matches('\n');
    !core.is_empty() && (core.starts_with(ends) || core.ends_with(ends) || core.chars().any(invisible))
}

#[cfg(test)]
mod tests {
    use davy_model::{ExecImage, ProcessKey};

    use super::*;

    fn bits(comm: &str, path: &str, kind: ImageKind, args: &[&str]) -> f32 {
        let info = ProcessInfo {
            key: ProcessKey { pid: 9, start_ticks: 1, boot: 1 },
            parent: None,
            comm: comm.to_owned(),
            image: ExecImage { path: path.to_owned(), kind, ..ExecImage::default() },
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            args_cut: false,
            env: Vec::new(),
            cwd: String::new(),
            creds: davy_model::Credentials::default(),
            tty: None,
            cgroup: String::new(),
            cgroup_id: 0,
            container: None,
            ns: davy_model::Namespaces::default(),
            kernel_thread: false,
        };
        let mut noted = Vec::new();
        look(Timestamp::default(), &info, comm, &KnownNames::builtin(), &mut noted);
        noted.iter().map(|(_, e)| e.weight).sum()
    }

    #[test]
    fn disguises() {
        use ImageKind::{Deleted, File, Memfd};
        for (comm, path, kind, args, least) in [
            ("kworker/u8:2", "/tmp/x", File, &["x"][..], 6.0),
            ("kswapd0", "/usr/bin/kswapd0", File, &["kswapd0"], 6.0),
            ("x", "/root/x", File, &["[kworker/0:1]"], 6.0),
            ("x", "/root/x", File, &["[kthreadd] "], 6.0),
            ("nginx", "/tmp/nginx", File, &["nginx: worker process"], 4.5),
            ("nginx", "/memfd:nginx (deleted)", Memfd, &["nginx"], 4.5),
            ("sshd", "/home/u/.x/sshd", File, &["sshd"], 4.5),
            ("systemd", "/home/u/build/abc", File, &["systemd"], 4.5),
            ("x", "/srv/data/x (deleted)", Deleted, &["sshd: root@pts/0"], 4.5),
            ("sytsemd", "/home/u/sytsemd", File, &["sytsemd"], 3.0),
            ("ngіnx", "/home/u/x", File, &["x"], 3.0),
            ("nginx ", "/home/u/x", File, &["nginx "], 3.0),
            ("python3", "/usr/bin/python3.11", File, &["sshd", "-D"], 0.0),
            ("httpd", "/usr/bin/perl", File, &["httpd"], 2.0),
        ] {
            let got = bits(comm, path, kind, args);
            assert!(got >= least, "{comm} {path} {args:?}: {got}");
        }
    }

    #[test]
    fn honest_programs() {
        use ImageKind::{Deleted, File};
        for (comm, path, kind, args) in [
            ("nginx", "/usr/sbin/nginx", File, &["nginx: master process /usr/sbin/nginx"][..]),
            ("nginx", "/usr/sbin/nginx (deleted)", Deleted, &["nginx: worker process"]),
            ("sshd", "/usr/sbin/sshd", File, &["sshd: root@pts/0"]),
            ("bash", "/usr/bin/bash", File, &["-bash"]),
            ("md5sum", "/usr/bin/md5sum", File, &["md5sum"]),
            ("migration", "/app/migration", File, &["migration"]),
            ("loop", "/home/u/loop", File, &["./loop"]),
            ("irqbalance", "/usr/sbin/irqbalance", File, &["/usr/sbin/irqbalance"]),
            ("kubectl", "/usr/local/bin/kubectl", File, &["kubectl"]),
            ("kubelet", "/usr/bin/kubelet", File, &["kubelet"]),
            (
                "fail2ban-server",
                "/usr/bin/python3.11",
                File,
                &["/usr/bin/python3", "/usr/bin/fail2ban-server"],
            ),
            ("rustc", "/root/.rustup/toolchains/x/bin/rustc", File, &["rustc"]),
            ("coredns", "/coredns", File, &["/coredns"]),
            ("(sd-pam)", "/usr/lib/systemd/systemd", File, &["(sd-pam)"]),
            ("nginx2", "/home/u/nginx2", File, &["nginx2"]),
            ("postgres", "/usr/lib/postgresql/15/bin/postgres", File, &["postgres: writer"]),
            ("runc:[2:INIT]", "/usr/bin/runc", File, &["runc", "init"]),
        ] {
            let got = bits(comm, path, kind, args);
            assert!(got < 2.0, "{comm} {path} {args:?}: {got}");
        }
    }
}
