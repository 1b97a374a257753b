//! Where a story begins: the login, the request, the timer, the container or the service behind a process.

use davy_model::{ProcessKey, Timestamp};

use crate::detector::Detector;
use crate::flow_table::Flow;
use crate::odd_parent::serves;
use crate::process_table::Process;

const LOGINS: [&str; 7] = ["sshd", "sshd-session", "login", "dropbear", "telnetd", "in.telnetd", "getty"];
const TIMERS: [&str; 5] = ["cron", "crond", "anacron", "atd", "fcron"];
const RUNTIMES: [&str; 6] =
    ["containerd-shim", "containerd-shim-runc-v2", "conmon", "dockerd", "lxc-start", "systemd-nspawn"];
/// A request is taken for the cause of what a service starts within this time, in seconds.
const REQUEST_SECS: f64 = 30.0;

/// The first act of a story.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    /// The process below which the story plays.
    pub(crate) root: ProcessKey,
    /// When.
    pub(crate) time: Timestamp,
    /// In plain words.
    pub(crate) text: String,
    /// Who did it, or let it happen.
    pub(crate) process: Option<ProcessKey>,
    /// The technique it amounts to, when it is one.
    pub(crate) technique: Option<&'static str>,
}

impl Detector {
    /// Walks up from a process to where its story begins.
    pub(crate) fn beginning(&self, subject: &ProcessKey) -> Beginning {
        let Some(process) = self.processes.get(subject) else {
            return Beginning {
                root: *subject,
                time: Timestamp::default(),
                text: "a process that Davy no longer knows".to_owned(),
                process: None,
                technique: None,
            };
        };
        let mut root = process;
        let mut typed = false;
        for above in self.processes.ancestors(subject) {
            let name = above.file_name();
            if above.key.pid <= 1 || above.program.kernel_thread {
                break;
            }
            if LOGINS.contains(&name) {
                return self.login(root, above);
            }
            if TIMERS.contains(&name) {
                return told(
                    root,
                    above,
                    format!("a job of {} ({})", above.comm, above.key.pid),
                    Some("T1053.003"),
                );
            }
            if RUNTIMES.contains(&name) {
                let id = root.program.container.as_deref().unwrap_or("of unknown id");
                return told(root, above, format!("the start of container {id} by {}", above.comm), None);
            }
            if serves(above, &self.lists.names) {
                return self.request(root, above);
            }
            if typed {
                // Other commands of the same shell are other stories; only the login above is of interest.
                continue;
            }
            if above.program.cgroup != root.program.cgroup {
                break;
            }
            if interactive(above) {
                typed = true;
                continue;
            }
            root = above;
        }
        self.started(root, typed)
    }

    fn started(&self, root: &Process, typed: bool) -> Beginning {
        if typed {
            let terminal = root.program.tty.as_deref().unwrap_or("a terminal");
            return told(root, root, format!("a command on {terminal}"), None);
        }
        if root.executed.is_none() && root.history.is_empty() {
            let text =
                format!("{} ({}), which already ran when Davy began to watch", root.comm, root.key.pid);
            return told(root, root, text, None);
        }
        let unit = root
            .program
            .cgroup
            .rsplit('/')
            .next()
            .filter(|unit| unit.ends_with(".service") || unit.ends_with(".scope"));
        match unit {
            Some(unit) => told(root, root, format!("{unit}, which started {}", root.comm), None),
            None => told(root, root, format!("the start of {} ({})", root.comm, root.key.pid), None),
        }
    }

    fn login(&self, root: &Process, daemon: &Process) -> Beginning {
        let user = self.user(root.program.creds.login_uid.unwrap_or(root.program.creds.uid));
        let daemons: Vec<ProcessKey> = std::iter::once(daemon.key)
            .chain(
                self.processes
                    .ancestors(&daemon.key)
                    .filter(|a| LOGINS.contains(&a.file_name()))
                    .map(|a| a.key),
            )
            .collect();
        let from = self
            .flows
            .iter()
            .filter(|f| f.open.accepted && f.owner.is_some_and(|o| daemons.contains(&o)))
            .filter(|f| f.opened <= root.first.plus_secs(1.0))
            .max_by_key(|f| f.opened);
        let text = match from {
            Some(flow) => format!(
                "the login of {user} from {} by {} ({})",
                flow.open.remote.ip(),
                daemon.comm,
                daemon.key.pid
            ),
            None => format!("the login of {user} by {} ({})", daemon.comm, daemon.key.pid),
        };
        let time = from.map_or(root.first, |flow| flow.opened.min(root.first));
        Beginning { root: root.key, time, text, process: Some(daemon.key), technique: Some("T1078") }
    }

    fn request(&self, root: &Process, service: &Process) -> Beginning {
        let near = |flow: &&Flow| {
            let age = root.first.secs_since(flow.opened);
            flow.open.accepted
                && flow.opened <= root.first
                && (age <= REQUEST_SECS || root.first <= flow.last)
        };
        let own =
            self.flows.iter().filter(|f| f.owner == Some(service.key)).filter(near).max_by_key(|f| f.last);
        let Some(flow) = own else {
            let text = format!("{} ({}), which serves others", service.comm, service.key.pid);
            return told(root, service, text, Some("T1190"));
        };
        let what = flow.request.as_deref().unwrap_or("a request");
        let host = flow.name.as_ref().map(|name| format!(" to {name}")).unwrap_or_default();
        let text = format!(
            "{what} from {}{host}, served by {} ({})",
            flow.open.remote.ip(),
            service.comm,
            service.key.pid
        );
        Beginning {
            root: root.key,
            time: flow.opened,
            text,
            process: Some(service.key),
            technique: Some("T1190"),
        }
    }
}

fn told(root: &Process, by: &Process, text: String, technique: Option<&'static str>) -> Beginning {
    Beginning { root: root.key, time: root.first, text, process: Some(by.key), technique }
}

/// Whether a process is a shell that someone types into.
fn interactive(process: &Process) -> bool {
    let shell = matches!(process.file_name(), "bash" | "zsh" | "fish" | "dash" | "sh" | "ksh" | "busybox");
    let bare = process.program.args.len() <= 1
        || process.program.args.iter().skip(1).all(|a| a.starts_with("-l") || a == "-i");
    shell && process.program.tty.is_some() && bare
}
