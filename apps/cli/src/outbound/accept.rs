//! `davy outbound learn --accept`: what is proposed goes into the policy's file.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use davy_agent::Paths;
use davy_model::Timestamp;
use davy_net::outbound::{Proposed, Row, replay, to_toml};
use davy_policy::Policy;
use davy_trust::host::write_whole;
use serde_json::json;

use crate::answer::Answering;
use crate::failure::{Exit, Failure};
use crate::policy::raw;
use crate::{amount, document};

/// A policy's text, and what is to be added to it.
#[derive(Debug)]
struct Addition {
    before: String,
    added: String,
    taken: Vec<Proposed>,
    /// What people have to look at first.
    left: Vec<Proposed>,
}

/// Adds entries for what the policy in the file does not allow yet, and shows what was added.
pub(super) fn run(
    paths: &Paths,
    answering: &Answering,
    rows: &[Row<'_>],
    resolvers: &[IpAddr],
) -> Result<(), Failure> {
    // What the name leads to is replaced, and not the name.
    let file = std::fs::canonicalize(paths.policy()).unwrap_or_else(|_| paths.policy());
    let name = file.display().to_string();
    let before = read(&file)?;
    let addition = addition(&name, before, rows, resolvers, answering.clock.now())?;
    if !addition.taken.is_empty() {
        write(&file, &addition)?;
    }
    if answering.json {
        let entries = |entries: &[Proposed]| entries.iter().map(document::raw).collect::<Vec<_>>();
        return Ok(answering.document(&json!({
            "file": name, "added": entries(&addition.taken), "left": entries(&addition.left) }))?);
    }
    raw(&addition.diff(&name), false)?;
    let taken = amount::of(addition.taken.len() as u64, "entry", "entries");
    let left = match addition.left.len() as u64 {
        0 => String::new(),
        n => format!("; {} left out, davy outbound learn shows why", amount::of(n, "odd one", "odd ones")),
    };
    answering.next(&match addition.taken.len() {
        0 => format!("nothing to add to {name}{left}"),
        _ => format!("{taken} added to {name}{left}\nthey hold after davy policy reload"),
    });
    Ok(())
}

fn read(file: &Path) -> Result<String, Failure> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(failed("read", file, &error)),
    }
}

fn addition(
    name: &str,
    before: String,
    rows: &[Row<'_>],
    resolvers: &[IpAddr],
    now: Timestamp,
) -> Result<Addition, Failure> {
    let parse = |text: &str, hint: &str| {
        Policy::parse(name, text)
            .map_err(|faults| Failure::new(Exit::PolicyFaults, faults.to_string()).hint(hint))
    };
    let policy = parse(&before, "nothing was written; davy policy check shows the same")?;
    let missing = replay(&policy, rows.iter().copied(), resolvers, now).missing;
    let (taken, left): (Vec<Proposed>, Vec<Proposed>) = missing.into_iter().partition(Proposed::stands);
    let gap = match before.as_bytes() {
        [] => "",
        [.., b'\n'] => "\n",
        _ => "\n\n",
    };
    let added = match taken.as_slice() {
        [] => String::new(),
        taken => format!("{gap}{}\n", to_toml(taken).trim_end()),
    };
    let mut after = parse(
        &format!("{before}{added}"),
        "nothing was written: entries are added as tables `[[outbound.allow]]` at the end, and there can be 512 of them; davy \
         outbound learn prints them, to be put in by hand",
    )?;
    after.outbound.allow.truncate(policy.outbound.allow.len());
    if after.to_toml() != policy.to_toml() {
        let message =
            format!("what would be added to {name} would change what stands there; nothing was written");
        let hint = "davy outbound learn prints it, to be put in by hand";
        return Err(Failure::new(Exit::Failed, message).hint(hint));
    }
    Ok(Addition { before, added, taken, left })
}

/// Puts it there, unless somebody wrote to the file meanwhile.
fn write(file: &Path, addition: &Addition) -> Result<(), Failure> {
    if read(file)? != addition.before {
        let message = format!("{} was changed meanwhile, and nothing was written to it", file.display());
        return Err(Failure::new(Exit::Failed, message).hint("ask again"));
    }
    let text = format!("{}{}", addition.before, addition.added);
    write_whole(text.as_bytes(), file).map_err(|error| failed("write", file, &error))
}

fn failed(what: &str, file: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot {what} the policy {}: {error}", file.display());
    match error.kind() {
        ErrorKind::PermissionDenied => {
            Failure::new(Exit::Forbidden, message).hint("sudo davy outbound learn --accept")
        }
        _ => Failure::new(Exit::Failed, message),
    }
}

impl Addition {
    /// As diff(1) shows it.
    fn diff(&self, name: &str) -> String {
        if self.added.is_empty() {
            return String::new();
        }
        let at = self.before.lines().count();
        // A last line without an end gets one, which is no line of its own.
        let ended = self.before.is_empty() || self.before.ends_with('\n');
        let added = if ended { self.added.as_str() } else { &self.added[1..] };
        let lines: String = added.lines().map(|line| format!("+{line}\n")).collect();
        format!("--- {name}\n+++ {name}\n@@ -{at},0 +{},{} @@\n{lines}", at + 1, added.lines().count())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_model::{Connection, FileId, Heading, Peer, Place, Talker, Transport};

    use super::*;

    fn row(service: Option<&str>, address: &str) -> Connection {
        let address = address.parse().unwrap();
        let talker = Talker {
            program: "/usr/bin/curl".to_owned(),
            file: FileId::default(),
            service: service.map(str::to_owned),
            container: None,
            uid: Some(0),
        };
        Connection {
            id: 1,
            talker,
            direction: Heading::Outbound,
            transport: Transport::Tcp,
            port: 443,
            peer: Peer::Address(address),
            named_by: None,
            addresses: vec![address],
            more_addresses: false,
            place: Some(Place::Outside),
            tls: false,
            requests: Vec::new(),
            connections: 3,
            open: 0,
            sent_bytes: 0,
            received_bytes: 0,
            first: Timestamp(1),
            last: Timestamp(2),
        }
    }

    /// What a service did, and what is odd: what root did outside of any.
    fn add(before: &str) -> Result<Addition, Failure> {
        let rows = [row(Some("web.service"), "203.0.113.7"), row(None, "203.0.113.8")];
        let rows: Vec<Row<'_>> = rows.iter().map(|row| (row, Some("root"))).collect();
        addition("davy.toml", before.to_owned(), &rows, &[], Timestamp::from_secs(1_800_000_000))
    }

    #[test]
    fn what_is_missing_is_added_once_and_the_rest_stays() {
        let before = "# ours\n[outbound]\nmode = \"observe\"";
        let first = add(before).unwrap();
        assert_eq!((first.taken.len(), first.left.len()), (1, 1));
        let diff = first.diff("davy.toml");
        let expected = "--- davy.toml\n+++ davy.toml\n@@ -3,0 +4,8 @@\n+\n+# web.service -> 203.0.113.7:443\n\
                        +[[outbound.allow]]\n+service = \"web.service\"\n+to = [\"203.0.113.7\"]\n+ports = [443]\n\
                        +protocol = \"tcp\"\n+reason = \"learned: curl, 3 times\"\n";
        assert_eq!(diff, expected);
        let again = add(&format!("{}{}", first.before, first.added)).unwrap();
        assert_eq!((again.taken.len(), again.left.len()), (0, 1));
        assert_eq!((again.added.as_str(), again.diff("x").as_str()), ("", ""));
        assert!(add("").unwrap().added.starts_with("# web.service"));
    }

    #[test]
    fn what_cannot_be_added_to_is_left_alone() {
        let faulty = add("[outbound]\nmode = \"fierce\"\n").unwrap_err();
        assert_eq!(faulty.exit, Exit::PolicyFaults);
        let inline =
            "outbound = { mode = \"observe\", allow = [{ to = [\"192.0.2.1\"], reason = \"r\" }] }\n";
        let refused = add(inline).unwrap_err();
        assert!(refused.hint.unwrap().contains("nothing was written"), "{}", refused.message);
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_is_not_overwritten() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("davy.toml");
        let (ours, theirs) = ("[outbound]\nmode = \"observe\"\n", "[outbound]\nmode = \"off\"\n");
        std::fs::write(&file, theirs).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let addition = add(ours).unwrap();
        let refused = write(&file, &addition).unwrap_err();
        assert!(refused.message.contains("changed meanwhile"), "{}", refused.message);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), theirs);
        std::fs::write(&file, ours).unwrap();
        write(&file, &addition).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{ours}{}", addition.added));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    }
}
