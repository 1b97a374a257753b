use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::debian_root::Recipe;
use crate::initramfs::unpack_module;
use crate::{Boot, Clock, DebianRoot, Emulator, Kernel, Machine, Series, Unbooted, davy, pack, store};

/// The console is the test's own; nobody logs in there.
const OPTIONS: &str =
    "systemd.mask=serial-getty@ttyS0.service systemd.mask=getty.target systemd.show_status=false";

/// The program that goes through steps and acts in them, in the machine.
pub const PROGRAM: &str = "/opt/davy-vm-service";

/// Machines that are made side by side take what they share out of the archive one after the other.
static STORE: Mutex<()> = Mutex::new(());

/// A Debian with systemd, in which a unit goes through steps and says on the console how each went.
pub struct SystemdMachine<'a> {
    /// Under which its files lie in the store.
    pub name: &'a str,
    /// What is installed in it.
    pub recipe: Recipe,
    /// Its kernel.
    pub series: Series,
    /// Kernel modules that its steps load from `/lib/modules`.
    pub modules: &'a [&'a str],
    /// In MiB: the root, twice while it is unpacked, and what runs in it.
    pub memory: u32,
    /// The boot and all steps, with an emulated CPU on a busy machine.
    pub limit: Duration,
    /// The program, as it was built; it lies at [`PROGRAM`].
    pub program: &'a Path,
    /// Which of its steps it goes through.
    pub steps: &'a str,
}

impl SystemdMachine<'_> {
    /// Makes it and lets it go through its steps. `lay_in` is given Davy's binary and the root folder whose files go
    /// over the Debian's.
    ///
    /// # Errors
    /// When something that it needs is not here, or it cannot be made. Steps that fail are a result.
    pub fn boot(&self, lay_in: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<Boot, Unbooted> {
        let store = store();
        let binary = davy().ok_or_else(|| {
            Unbooted::Missing("the release binary, target/release/davy (make build)".to_owned())
        })?;
        let shared = STORE.lock().unwrap_or_else(PoisonError::into_inner);
        let emulator = Emulator::obtain(&store)?;
        let kernel = Kernel::obtain(self.series, &store)?;
        let root = DebianRoot::obtain(&store, self.recipe)?;
        drop(shared);
        let image = self.image(&root, |folder| {
            // A folder `lib` would take the place of the link to `usr/lib`.
            for module in self.modules {
                let file =
                    kernel.module(module).with_context(|| format!("the kernel has no module {module}"))?;
                unpack_module(&file, &folder.join("usr/lib/modules"))?;
            }
            lay_in(&binary, folder)
        })?;
        let (clock, memory, options, limit) = (Clock::Host, self.memory, OPTIONS, self.limit);
        let (emulator, kernel) = (&emulator, &kernel.image);
        let booted = Machine { emulator, kernel, initramfs: &image, memory, options, clock, limit }.boot();
        // It lies in the machine's memory, or nobody wants it any more.
        let _ = fs::remove_file(&image);
        let boot = booted?;
        println!("{}: Linux {}, {} steps", self.name, boot.kernel, boot.outcomes.len());
        for line in &boot.console {
            println!("{line}");
        }
        for (step, (_, time)) in &boot.outcomes {
            println!("{step}: {:.1} s", time.as_secs_f64());
        }
        Ok(boot)
    }

    fn image(&self, root: &DebianRoot, lay_in: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let store = std::path::absolute(store())?;
        let folder = store.join(format!("{}.root", self.name));
        let _ = fs::remove_dir_all(&folder);
        let units = folder.join("etc/systemd/system");
        for place in [&units.join("multi-user.target.wants"), &folder.join("opt")] {
            fs::create_dir_all(place)?;
        }
        fs::copy(self.program, folder.join(PROGRAM.trim_start_matches('/')))?;
        fs::write(units.join("steps.service"), self.unit())?;
        symlink("../steps.service", units.join("multi-user.target.wants/steps.service"))?;
        lay_in(&folder)?;
        let more = store.join(format!("{}.more.cpio", self.name));
        let image = store.join(format!("{}.cpio", self.name));
        pack(&folder, &more)?;
        root.with(&more, &image)?;
        fs::remove_file(more)?;
        Ok(image)
    }

    fn unit(&self) -> String {
        format!(
            "[Unit]\nDescription=Goes through steps and says how each went\n\n\
             [Service]\nType=exec\nExecStart={PROGRAM} {}\n\
             StandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\n\n\
             [Install]\nWantedBy=multi-user.target\n",
            self.steps
        )
    }
}

/// What `make deb` makes of this binary, with a packaging revision if one is given.
///
/// # Errors
/// When the script fails.
pub fn package(binary: &Path, folder: &Path, revision: &str) -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/build-deb.sh");
    let binary = binary.canonicalize()?;
    let output = Command::new(script)
        .arg(binary)
        .env("DEB_DIR", folder)
        .env("DEB_REVISION", revision)
        .output()
        .context("starting packaging/build-deb.sh")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "no package: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(PathBuf::from(said.trim().lines().next_back().context("packaging/build-deb.sh names no package")?))
}
