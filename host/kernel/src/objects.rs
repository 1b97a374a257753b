//! The compiled programs, carried in the binary, and how they are opened, loaded and attached.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::{Link, MapCore, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel};
use zerocopy::IntoBytes;

use crate::abi::Settings;
use crate::error::{During, Error, Result};

/// libelf reads words in place, so the bytes must lie as a file's would in memory.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

macro_rules! objects {
    ($($(#[$meta:meta])* $name:ident = $file:literal;)*) => {
        $(
            $(#[$meta])*
            pub(crate) static $name: Source = Source {
                name: $file,
                bytes: {
                    static BYTES: &Aligned<[u8]> =
                        &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".bpf.o")));
                    &BYTES.0
                },
            };
        )*
    };
}

objects! {
    /// Processes.
    PROCESS = "process";
    /// The sweep over threads.
    SAMPLE = "sample";
    /// Flows.
    NETWORK = "network";
    /// Device nodes.
    DEVICES = "devices";
    /// System call counts.
    SYSCALLS = "syscalls";
    /// Closed destinations.
    BLOCK = "block";
    /// Security hooks.
    PROTECT = "protect";
    /// Which code may run.
    TRUST = "trust";
    /// Programs without a file.
    NAMELESS = "nameless";
    /// Who looks for open ports.
    SCANS = "scans";
    /// Who may connect to what.
    OUTBOUND = "outbound";
}

/// One compiled object.
pub(crate) struct Source {
    pub(crate) name: &'static str,
    pub(crate) bytes: &'static [u8],
}

impl Source {
    /// Opens the object without loading anything.
    pub(crate) fn open(&self) -> Result<OpenObject> {
        if self.bytes.is_empty() {
            return Err(Error::Unsupported(
                "this davy was built without kernel programs; install clang-16 and build it again".to_owned(),
            ));
        }
        quiet();
        let mut builder = ObjectBuilder::default();
        builder
            .name(format!("davy_{}", self.name))
            .during(|| format!("naming the {} programs", self.name))?;
        builder.open_memory(self.bytes).during(|| format!("opening the {} programs", self.name))
    }
}

/// Bytes of libbpf's complaints after which no more are kept, and lines kept of each: a verifier's log is long, and
/// ends with what matters.
const COMPLAINT: usize = 16 * 1024;
const LINES: usize = 12;

/// What libbpf complained of since the last load began; the verifier's log is part of it.
static COMPLAINTS: Mutex<String> = Mutex::new(String::new());

/// libbpf prints its warnings to stderr otherwise.
fn quiet() {
    libbpf_rs::set_print(Some((PrintLevel::Warn, |_, text| {
        tracing::debug!(target: "libbpf", "{}", text.trim_end());
        let mut kept = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < COMPLAINT {
            kept.extend(last_lines(&text).flat_map(|line| [line, "\n"]));
        }
    })));
}

fn last_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().skip(text.lines().count().saturating_sub(LINES))
}

/// The program that was refused and the verifier's last word on it, if libbpf told.
fn complaint(text: &str) -> Option<String> {
    let refused = text.lines().find_map(|line| line.strip_prefix("libbpf: prog '")?.split('\'').next());
    let verdict = text
        .lines()
        .take_while(|line| !line.starts_with("-- END PROG LOAD LOG"))
        .filter(|line| {
            !line.starts_with("processed ") && !line.starts_with("libbpf:") && !line.trim().is_empty()
        })
        .last();
    match (refused, verdict) {
        (Some(program), Some(verdict)) => Some(format!("{program}: {}", verdict.trim())),
        (Some(program), None) => Some(program.to_owned()),
        _ => None,
    }
}

/// Writes the constants that the programs read.
pub(crate) fn configure(object: &mut OpenObject, settings: &Settings) -> Result<()> {
    for mut map in object.maps_mut() {
        if map.name().to_string_lossy().ends_with(".rodata.settings") {
            return map
                .set_initial_value(settings.as_bytes())
                .during(|| "setting the programs' constants".to_owned());
        }
    }
    Ok(())
}

/// Makes the open object share maps of the same name.
pub(crate) fn share(object: &mut OpenObject, maps: &[MapHandle]) -> Result<()> {
    for mut map in object.maps_mut() {
        if let Some(shared) = maps.iter().find(|shared| shared.name() == map.name()) {
            map.reuse_fd(shared.as_fd()).during(|| format!("sharing the map {:?}", map.name()))?;
        }
    }
    Ok(())
}

/// Sets which programs are loaded.
pub(crate) fn select(object: &mut OpenObject, wanted: impl Fn(&str) -> bool) {
    for mut program in object.progs_mut() {
        let load = wanted(&program.name().to_string_lossy());
        program.set_autoload(load);
    }
}

/// Loads the object. An error names the program that was refused, and the verifier's last word.
pub(crate) fn load(object: OpenObject, what: &str) -> Result<Object> {
    COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner).clear();
    object.load().map_err(|source| {
        let kept = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
        let why = complaint(&kept).map(|why| format!(" ({why})")).unwrap_or_default();
        Error::Bpf { operation: format!("loading the {what} programs{why}"), source }
    })
}

/// Attaches the loaded programs whose names are wanted, by their section names.
pub(crate) fn attach_named(object: &Object, wanted: impl Fn(&str) -> bool) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    for program in object.progs_mut().filter(|program| program.autoload()) {
        let name = program.name().to_string_lossy().into_owned();
        if wanted(&name) {
            links.push(program.attach().during(|| format!("attaching {name}"))?);
        }
    }
    Ok(links)
}

/// Attaches every loaded program of the tracing kinds; iterators run when they are read, and cgroup programs need
/// a cgroup.
pub(crate) fn attach_tracing(object: &Object) -> Result<Vec<Link>> {
    let tracing: Vec<String> = object
        .progs()
        .filter(|program| {
            ["tp_btf", "?tp_btf", "raw_tp"].iter().any(|kind| section(program).starts_with(kind))
        })
        .map(|program| program.name().to_string_lossy().into_owned())
        .collect();
    attach_named(object, |name| tracing.iter().any(|known| known == name))
}

/// Attaches the loaded cgroup programs to a cgroup.
pub(crate) fn attach_cgroup(object: &Object, directory: &Path) -> Result<Vec<Link>> {
    let cgroup = crate::cgroups::open(directory)?;
    let mut links = Vec::new();
    for program in object.progs_mut().filter(|program| program.autoload()) {
        if program.section().to_string_lossy().starts_with("cgroup") {
            let link = program.attach_cgroup(cgroup.as_fd().as_raw_fd());
            links.push(link.during(|| {
                format!("attaching {} to {}", program.name().to_string_lossy(), directory.display())
            })?);
        }
    }
    Ok(links)
}

fn section(program: &libbpf_rs::Program<'_>) -> String {
    program.section().to_string_lossy().into_owned()
}

/// A handle of its own to a map of a loaded object.
pub(crate) fn map(object: &Object, name: &str) -> Result<MapHandle> {
    let found = object.maps().find(|map| map.name() == name);
    let map = found.ok_or_else(|| Error::Unsupported(format!("the programs have no map {name}")))?;
    MapHandle::try_from(&map).during(|| format!("taking a handle to the map {name}"))
}

/// Whether the running kernel has a type of this name.
pub(crate) fn kernel_has_type(name: &str) -> bool {
    libbpf_rs::btf::Btf::from_vmlinux()
        .is_ok_and(|btf| btf.type_by_name::<libbpf_rs::btf::BtfType<'_>>(name).is_some())
}

/// Whether the running kernel has a function of this name that programs can be attached to.
pub(crate) fn kernel_has_function(name: &str) -> bool {
    libbpf_rs::btf::Btf::from_vmlinux()
        .is_ok_and(|btf| btf.type_by_name::<libbpf_rs::btf::types::Func<'_>>(name).is_some())
}

/// Where the kernel's type information lies.
pub(crate) fn kernel_types() -> &'static Path {
    Path::new("/sys/kernel/btf/vmlinux")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_word_is_found() {
        let text = "libbpf: prog 'block': BPF program load failed: Invalid argument\n\
                    libbpf: prog 'block': -- BEGIN PROG LOAD LOG --\n0: R1=ctx()\nunknown func x#9\n\
                    processed 3 insns\n-- END PROG LOAD LOG --\nlibbpf: prog 'block': failed to load: -22\n";
        assert_eq!(complaint(text).as_deref(), Some("block: unknown func x#9"));
        assert_eq!(complaint("libbpf: prog 'canary': failed to load: -1\n").as_deref(), Some("canary"));
        assert_eq!(complaint(""), None);
    }
}
