use davy_model::{
    CodeAct, Credentials, Event, EventKind, ExecImage, FileId, ImageKind, Namespaces, ProcessInfo, Timestamp,
};

use super::{Decoder, read};
use crate::abi;
use crate::cgroups::container;

/// Variables by which another program's code gets into a process: the loader's, and interpreters' start-up files.
const VARIABLES: [&str; 11] = [
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "GCONV_PATH",
    "BASH_ENV",
    "ENV",
    "NODE_OPTIONS",
    "PYTHONSTARTUP",
    "PYTHONPATH",
    "PERL5OPT",
    "JAVA_TOOL_OPTIONS",
];

/// The longest environment that is read again from /proc when the kernel program's bound cut it, in bytes.
const ENVIRONMENT_BOUND: u64 = 1 << 17;

/// No audit id was set (`AUDIT_UID_UNSET`, `AUDIT_SID_UNSET`).
const UNSET: u32 = u32::MAX;

impl Decoder {
    pub(super) fn exec(&mut self, bytes: &[u8], time: Timestamp, out: &mut Vec<Event>) -> Option<()> {
        let record: abi::Exec = read(bytes)?;
        let mut tail = bytes.get(size_of::<abi::Exec>()..)?;
        let mut take = |length: u16| {
            let (part, rest) = tail.split_at_checked(usize::from(length))?;
            tail = rest;
            Some(part)
        };
        let args = take(record.args_len)?;
        let environment = take(record.env_len)?;
        let exe = take(record.exe_len)?;
        let cwd = take(record.cwd_len)?;

        let key = self.key(record.head.pid, record.head.start);
        let cgroup = self.cgroups.path(record.cgroup, record.head.pid);
        let image = image(&record, exe);
        let nameless = image.kind != ImageKind::File;
        let memfd = image.kind == ImageKind::Memfd;
        let info = ProcessInfo {
            key,
            parent: (record.parent != 0).then(|| self.key(record.parent, record.parent_start)),
            comm: short_name(&record.comm),
            image,
            args: strings(args).collect(),
            args_cut: record.args_cut != 0,
            env: variables(&record, environment),
            cwd: path(cwd, record.cwd_cut != 0),
            creds: credentials(&record),
            tty: Some(short_name(&record.tty)).filter(|name| !name.is_empty()).map(|name| terminal(&name)),
            container: container(&cgroup),
            cgroup,
            cgroup_id: record.cgroup,
            ns: Namespaces {
                pid: record.ns_pid.into(),
                mnt: record.ns_mnt.into(),
                net: record.ns_net.into(),
                user: record.ns_user.into(),
            },
            kernel_thread: false,
        };
        out.push(Event { time, process: Some(key), kind: EventKind::Exec(Box::new(info)) });
        if nameless {
            let act = CodeAct::NamelessExec { memfd };
            out.push(Event { time, process: Some(key), kind: EventKind::Code(act) });
        }
        Some(())
    }
}

fn image(record: &abi::Exec, exe: &[u8]) -> ExecImage {
    let path = path(exe, record.exe_cut != 0);
    // The kernel's own tmpfs holds memfds and System V shared memory; only the first can be executed by name.
    let kind = match (record.memfd != 0, record.nlink) {
        (true, _) => ImageKind::Memfd,
        (false, 0) => ImageKind::Deleted,
        _ => ImageKind::File,
    };
    ExecImage { path, file: FileId { dev: device(record.dev), ino: record.ino }, kind }
}

/// `st_dev` from the kernel's own device number, which has 20 bits of minor.
pub(crate) fn device(kernel: u32) -> u64 {
    let (major, minor) = (u64::from(kernel >> 20), u64::from(kernel & 0xf_ffff));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn credentials(record: &abi::Exec) -> Credentials {
    let audit = |id: u32| (record.has_audit != 0 && id != UNSET).then_some(id);
    Credentials {
        uid: record.uid,
        euid: record.euid,
        gid: record.gid,
        caps: record.caps,
        login_uid: audit(record.login_uid),
        session: audit(record.session),
    }
}

/// The variables of interest. When the kernel program's bound cut the environment, the process is asked as well, so
/// that stuffing the environment hides nothing from a process that lives.
fn variables(record: &abi::Exec, environment: &[u8]) -> Vec<(String, String)> {
    let mut found = of_interest(environment);
    if record.env_cut != 0 {
        use std::io::Read;
        let mut whole = Vec::new();
        let path = format!("/proc/{}/environ", record.head.pid);
        if let Ok(file) = std::fs::File::open(path)
            && file.take(ENVIRONMENT_BOUND).read_to_end(&mut whole).is_ok()
            && whole.starts_with(&environment[..environment.len().min(64)])
        {
            found = of_interest(&whole);
        }
    }
    found
}

fn of_interest(environment: &[u8]) -> Vec<(String, String)> {
    environment
        .split(|&byte| byte == 0)
        .filter_map(|entry| {
            let at = entry.iter().position(|&byte| byte == b'=')?;
            let name = VARIABLES.iter().find(|name| name.as_bytes() == &entry[..at])?;
            let value = &entry[at + 1..];
            Some(((*name).to_owned(), String::from_utf8_lossy(&value[..value.len().min(1024)]).into_owned()))
        })
        .take(16)
        .collect()
}

/// Strings that each end in a NUL; the last may have lost its own to the bound.
fn strings(bytes: &[u8]) -> impl Iterator<Item = String> {
    let whole = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let parts = (!bytes.is_empty()).then(|| whole.split(|&byte| byte == 0));
    parts.into_iter().flatten().map(|part| String::from_utf8_lossy(part).into_owned())
}

/// A path from its components, leaf first.
fn path(components: &[u8], cut: bool) -> String {
    let mut parts: Vec<String> = strings(components).collect();
    parts.reverse();
    let joined = parts.join("/");
    if cut { format!("(...)/{joined}") } else { format!("/{}", joined.trim_start_matches('/')) }
}

/// `pts0` as the driver calls it is `pts/0` to people.
fn terminal(name: &str) -> String {
    match name.strip_prefix("pts") {
        Some(number) if number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty() => {
            format!("pts/{number}")
        }
        _ => name.to_owned(),
    }
}

/// A name in a field of fixed length, ended by a NUL if it is shorter.
pub(crate) fn short_name(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_make_a_path() {
        assert_eq!(path(b"sh\0bin\0usr\0", false), "/usr/bin/sh");
        assert_eq!(path(b"", false), "/");
        assert_eq!(path(b"memfd:x\0", false), "/memfd:x");
        assert_eq!(path(b"b\0a\0", true), "(...)/a/b");
    }

    #[test]
    fn empty_arguments_are_kept() {
        assert_eq!(strings(b"sh\0\0-c\0").collect::<Vec<_>>(), ["sh", "", "-c"]);
        assert_eq!(strings(b"").count(), 0);
        assert_eq!(strings(b"\0").collect::<Vec<_>>(), [""]);
        assert_eq!(strings(b"cut of").collect::<Vec<_>>(), ["cut of"]);
    }

    #[test]
    fn only_variables_of_interest_are_kept() {
        let found = of_interest(b"HOME=/root\0LD_PRELOAD=/tmp/x.so\0XLD_PRELOAD=1\0LD_PRELOAD\0");
        assert_eq!(found, [("LD_PRELOAD".to_owned(), "/tmp/x.so".to_owned())]);
    }

    #[test]
    fn terminals_have_their_device_names() {
        assert_eq!(terminal("pts3"), "pts/3");
        assert_eq!(terminal("ttyS0"), "ttyS0");
    }
}
