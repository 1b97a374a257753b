//! What services started that their profiles do not have, by command, until the administrator has seen to it.

use std::fmt::Write;

use davy_model::{Oddity, ProgramClass, ServiceStart, Timestamp};
use serde::{Deserialize, Serialize};

use super::Command;

/// The most commands that are kept; beyond it the one that was seen longest ago gives way.
const MAX_KEPT: usize = 1024;

/// The most users named for one command.
const MAX_USERS: usize = 8;

/// Once that a service started something.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'s> {
    /// When.
    pub time: Timestamp,
    /// The name of the service's profile.
    pub service: &'s str,
    /// What it is.
    pub class: ProgramClass,
    /// The program's path.
    pub path: &'s str,
    /// The whole command.
    pub command: &'s Command,
    /// As which user.
    pub user: Option<&'s str>,
}

/// Everything that was seen and is not allowed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Learned {
    kept: Vec<ServiceStart>,
}

impl Learned {
    /// Takes it down.
    pub fn see(&mut self, seen: Seen<'_>) {
        let shape = seen.command.shape();
        let odd = oddities(seen.path, seen.command, shape.is_some());
        let command = shape.unwrap_or_else(|| seen.command.shown());
        let same = |start: &ServiceStart| {
            (start.service.as_str(), start.class, &start.command) == (seen.service, seen.class, &command)
        };
        let start = match self.kept.iter().position(same) {
            Some(place) => &mut self.kept[place],
            None => {
                if self.kept.len() >= MAX_KEPT {
                    let longest_ago = self.kept.iter().enumerate().min_by_key(|(_, start)| start.last);
                    if let Some((place, _)) = longest_ago {
                        self.kept.swap_remove(place);
                    }
                }
                self.kept.push(ServiceStart {
                    service: seen.service.to_owned(),
                    class: seen.class,
                    path: String::new(),
                    command,
                    first: seen.time,
                    last: seen.time,
                    count: 0,
                    users: Vec::new(),
                    odd,
                });
                let last = self.kept.len() - 1;
                &mut self.kept[last]
            }
        };
        start.count += 1;
        start.last = start.last.max(seen.time);
        seen.path.clone_into(&mut start.path);
        if let Some(user) = seen.user
            && start.users.len() < MAX_USERS
            && !start.users.iter().any(|known| known == user)
        {
            start.users.push(user.to_owned());
        }
    }

    /// Forgets what is allowed now.
    pub fn settle(&mut self, allowed: impl Fn(&ServiceStart) -> bool) {
        self.kept.retain(|start| !allowed(start));
    }

    /// What was seen: the odd first, then by service and command.
    #[must_use]
    pub fn all(&self) -> Vec<ServiceStart> {
        let mut all = self.kept.clone();
        all.sort_by(|a, b| {
            let key =
                |s: &ServiceStart| (std::cmp::Reverse(s.odd.len()), s.service.clone(), s.command.clone());
            key(a).cmp(&key(b))
        });
        all
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// As entries for the policy. What is odd stands there as comments: allowing it takes a hand.
    #[must_use]
    pub fn to_toml(starts: &[ServiceStart]) -> String {
        let mut text = String::new();
        let (odd, plain): (Vec<_>, Vec<_>) = starts.iter().partition(|start| !start.odd.is_empty());
        for start in plain {
            entry(&mut text, start, "");
        }
        if !odd.is_empty() {
            text.push_str("# Odd: look at these before you allow them.\n");
        }
        for start in odd {
            let why: Vec<&str> = start.odd.iter().map(|odd| Oddity::words(*odd)).collect();
            let _ = writeln!(text, "# {}", why.join("; "));
            entry(&mut text, start, "# ");
        }
        text
    }
}

fn entry(text: &mut String, start: &ServiceStart, before: &str) {
    let users =
        if start.users.is_empty() { String::new() } else { format!(" as {}", start.users.join(", ")) };
    let quoted = |text: &str| toml::Value::from(text.replace(char::is_control, "?"));
    let reason = format!("learned: {} started it{users} {} times", start.service, start.count);
    let _ = writeln!(text, "{before}[[services.allow]]\n{before}service = {}", quoted(&start.service));
    let _ = writeln!(text, "{before}class = \"{}\"", start.class.name());
    let _ = writeln!(text, "{before}command = {}", quoted(&start.command));
    let _ = writeln!(text, "{before}reason = {}\n", quoted(&reason));
}

/// Parts of a command that a site's own work seldom has, and an intruder's mostly.
const LOUD: [&str; 8] = ["/dev/tcp/", "/dev/udp/", "|sh", "| sh", "|bash", "| bash", "/tmp/", "/dev/shm/"];

/// The same as whole words: how one looks around, fetches, and stays.
const LOUD_WORDS: [&str; 14] = [
    "id", "whoami", "uname", "hostname", "passwd", "curl", "wget", "base64", "chmod", "nohup", "crontab",
    "mkfifo", "nc", "bash",
];

fn oddities(path: &str, command: &Command, has_shape: bool) -> Vec<Oddity> {
    let mut odd = crate::oddities(path, None, false, false);
    odd.retain(|odd| *odd != Oddity::Unpackaged);
    let shown = command.shown();
    let mut words = shown.split(|c: char| !c.is_ascii_alphanumeric());
    if LOUD.iter().any(|part| shown.contains(part)) || words.any(|word| LOUD_WORDS.contains(&word)) {
        odd.push(Oddity::Loud);
    }
    if !has_shape {
        odd.push(Oddity::Shapeless);
    }
    odd
}
