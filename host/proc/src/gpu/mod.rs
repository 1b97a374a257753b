//! Which processes keep a GPU busy: DRM's per-client counters, handles on NVIDIA's and AMD's compute devices, and
//! NVML through NVIDIA's own `nvidia-smi`, because a static program cannot load the library.

mod fdinfo;
mod kfd;
mod nvidia;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use davy_model::{GpuUse, ProcessKey};

use crate::procfs::{ProcFs, ProcessFolder};
use fdinfo::Client;

/// At most so many descriptors of one process are looked at.
const MAX_DESCRIPTORS: usize = 16_384;

/// At most so many DRM clients are remembered between polls; others have no utilisation.
const MAX_CLIENTS: usize = 16_384;

/// Follows the use of GPUs.
#[derive(Debug)]
pub struct Watch {
    proc: ProcFs,
    devices: PathBuf,
    kfd: PathBuf,
    nvidia: nvidia::Program,
    clients: HashMap<(String, u64), Seen>,
}

/// A DRM client at the last poll.
#[derive(Debug)]
struct Seen {
    at: Instant,
    client: Client,
}

/// What one process does on one device, while it is gathered.
#[derive(Debug, Default)]
struct Tally {
    engines: BTreeMap<String, u32>,
    measured: bool,
    memory: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch {
    /// A watch over this host.
    #[must_use]
    pub fn new() -> Self {
        let nvidia = nvidia::Program::find();
        Self::of(ProcFs::host().clone(), Path::new("/dev"), Path::new("/sys/class/kfd/kfd/proc"), nvidia)
    }

    fn of(proc: ProcFs, devices: &Path, kfd: &Path, nvidia: nvidia::Program) -> Self {
        Self { proc, devices: devices.to_owned(), kfd: kfd.to_owned(), nvidia, clients: HashMap::new() }
    }

    /// Whether the host has any device node of a GPU.
    #[must_use]
    pub fn has_devices(&self) -> bool {
        ["dri", "kfd", "nvidiactl", "nvidia0"].iter().any(|name| self.devices.join(name).exists())
    }

    /// Every process with a handle on a GPU, with its share of the time since the last poll where the driver tells
    /// it. Costs nothing on a host without a GPU.
    pub fn poll(&mut self) -> Vec<GpuUse> {
        if !self.has_devices() {
            return Vec::new();
        }
        self.poll_at(Instant::now())
    }

    fn poll_at(&mut self, now: Instant) -> Vec<GpuUse> {
        let mut tallies: BTreeMap<(ProcessKey, String), Tally> = BTreeMap::new();
        let mut seen = HashMap::with_capacity(self.clients.len());
        for pid in self.proc.pids() {
            let Some(folder) = self.proc.open(pid) else { continue };
            let Some((handles, clients)) = handles(&folder) else { continue };
            let Some(key) = folder.stat().map(|stat| self.proc.key_of(&stat)) else { continue };
            for device in handles {
                let tally = tallies.entry((key, device.clone())).or_default();
                if device == "/dev/kfd" {
                    tally.memory = kfd::memory(&self.kfd, pid);
                }
            }
            for client in clients {
                let tally = tallies.entry((key, client.device.clone())).or_default();
                let id = (client.device.clone(), client.id);
                // A client that was handed to another process shows in both; it is counted where it is met first.
                if !seen.contains_key(&id) && seen.len() < MAX_CLIENTS {
                    tally.add(&client, self.clients.get(&id), now);
                    seen.insert(id, Seen { at: now, client });
                }
            }
        }
        self.clients = seen;
        let mut uses: Vec<GpuUse> =
            tallies.into_iter().map(|((process, device), t)| t.into_use(process, device)).collect();
        for told in self.nvidia.poll() {
            if let Some(process) = self.proc.key(told.pid) {
                uses.retain(|u| u.process != process || !u.device.starts_with("/dev/nvidia"));
                uses.push(GpuUse {
                    process,
                    device: told.device,
                    busy_permille: told.busy_permille,
                    memory: told.memory,
                });
            }
        }
        uses
    }
}

impl Tally {
    fn add(&mut self, client: &Client, before: Option<&Seen>, now: Instant) {
        self.memory = self.memory.saturating_add(client.memory());
        let Some(before) = before else { return };
        let elapsed = now.saturating_duration_since(before.at);
        for (engine, permille) in client.busy_since(&before.client, elapsed) {
            self.measured = true;
            let sum = self.engines.entry(engine).or_default();
            *sum = sum.saturating_add(permille);
        }
    }

    fn into_use(self, process: ProcessKey, device: String) -> GpuUse {
        // The busiest engine tells: mining keeps one of them full, whichever it is.
        let busiest = self.engines.values().copied().max().unwrap_or(0).min(1000) as u16;
        GpuUse { process, device, busy_permille: self.measured.then_some(busiest), memory: self.memory }
    }
}

/// Device nodes a process holds that tell nothing more, and its DRM clients; `None` when it has neither.
fn handles(folder: &ProcessFolder) -> Option<(Vec<String>, Vec<Client>)> {
    let (mut nodes, mut clients) = (Vec::new(), Vec::new());
    for fd in folder.numbers("fd", MAX_DESCRIPTORS) {
        let Some(link) = folder.link(&format!("fd/{fd}")) else { continue };
        if link.starts_with("/dev/dri/") {
            let text = folder.text(&format!("fdinfo/{fd}"), 16 * 1024).unwrap_or_default();
            match fdinfo::parse(&text, &link) {
                Some(client) => clients.push(client),
                None => nodes.push(link),
            }
        } else if is_compute(&link) {
            nodes.push(link);
        }
    }
    nodes.sort_unstable();
    nodes.dedup();
    (!nodes.is_empty() || !clients.is_empty()).then_some((nodes, clients))
}

/// NVIDIA's device nodes by number (the control nodes are opened by whoever only asks), and AMD's compute node.
fn is_compute(link: &str) -> bool {
    let numbered = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    link == "/dev/kfd" || link.strip_prefix("/dev/nvidia").is_some_and(numbered)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    fn host_with_client(root: &Path, busy_ns: u64) {
        let process = root.join("proc/42");
        std::fs::create_dir_all(process.join("fd")).unwrap();
        std::fs::create_dir_all(process.join("fdinfo")).unwrap();
        let stat = "42 (x) S 1 0 0 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0";
        std::fs::write(process.join("stat"), stat).unwrap();
        for (fd, target) in
            [(3, "/dev/dri/renderD128"), (4, "/dev/nvidia0"), (5, "/dev/nvidiactl"), (6, "/dev/kfd")]
        {
            let _ = symlink(target, process.join(format!("fd/{fd}")));
        }
        let info = format!(
            "pos:\t0\ndrm-driver:\tamdgpu\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t7\n\
             drm-engine-gfx:\t0 ns\ndrm-engine-compute:\t{busy_ns} ns\ndrm-memory-vram:\t2048 KiB\n"
        );
        std::fs::write(process.join("fdinfo/3"), info).unwrap();
    }

    #[test]
    fn a_client_that_computes_is_busy() {
        let root = tempfile::tempdir().unwrap();
        let kfd = root.path().join("kfd");
        std::fs::create_dir_all(kfd.join("42")).unwrap();
        std::fs::write(kfd.join("42/vram_1234"), "4096\n").unwrap();
        host_with_client(root.path(), 1_000_000_000);
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let proc = ProcFs::at(&root.path().join("proc")).unwrap();
        let mut watch = Watch::of(proc, &root.path().join("dev"), &kfd, nvidia::Program::none());
        assert!(watch.poll().is_empty(), "no device node, no GPU");
        let start = Instant::now();
        let first = watch.poll_at(start);
        let of = |uses: &[GpuUse], device: &str| uses.iter().find(|u| u.device == device).cloned().unwrap();
        assert_eq!(of(&first, "0000:03:00.0").busy_permille, None);
        assert_eq!(of(&first, "0000:03:00.0").memory, 2048 * 1024);
        assert_eq!(of(&first, "/dev/kfd").memory, 4096);
        assert_eq!(of(&first, "/dev/nvidia0").busy_permille, None);
        assert_eq!(first.len(), 3);
        host_with_client(root.path(), 2_900_000_000);
        let second = watch.poll_at(start + Duration::from_secs(2));
        assert_eq!(of(&second, "0000:03:00.0").busy_permille, Some(950));
        assert_eq!(of(&second, "0000:03:00.0").process.start_ticks, 99);
    }
}
