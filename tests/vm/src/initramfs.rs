use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::archive::run;
use crate::unbooted::{Missing, not_started};

/// Where Debian's busybox-static puts its one program.
const BUSYBOX: &str = "/bin/busybox";

/// The commands that cases call by name.
const APPLETS: [&str; 16] = [
    "sh", "cat", "cp", "chmod", "dd", "echo", "false", "insmod", "kill", "ln", "mv", "rm", "sleep", "touch",
    "true", "sysctl",
];

/// Everything the machine has for a file system.
pub struct Initramfs {
    folder: PathBuf,
}

impl Initramfs {
    /// Lays out a root folder below `folder`: busybox, and `init` as the first program. Static programs only.
    ///
    /// # Errors
    /// When busybox is missing, or a file cannot be written.
    pub fn lay_out(folder: &Path, init: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(folder);
        for part in [
            "bin",
            "dev",
            "proc",
            "sys",
            "tmp",
            "run",
            "etc",
            "var/lib",
            "usr/sbin",
            "lib/modules",
            "lib64",
            "lib/x86_64-linux-gnu",
        ] {
            fs::create_dir_all(folder.join(part))?;
        }
        if !Path::new(BUSYBOX).exists() {
            bail!(Missing(format!("{BUSYBOX} (package busybox-static) is not installed")));
        }
        let made = Self { folder: folder.to_owned() };
        made.add(Path::new(BUSYBOX), "bin/busybox")?;
        for applet in APPLETS {
            symlink("busybox", folder.join("bin").join(applet))?;
        }
        made.add(init, "init")?;
        fs::write(folder.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nminer:x:1000:1000::/tmp:/bin/sh\n")?;
        Ok(made)
    }

    /// Takes a file in, executable.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn add(&self, file: &Path, inside: &str) -> Result<()> {
        let to = self.folder.join(inside);
        fs::copy(file, &to).with_context(|| format!("copying {} to {}", file.display(), to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Takes in everything below a folder, over what lies there, but for what `left_out` names (as patterns of tar).
    ///
    /// # Errors
    /// When tar is missing or fails.
    pub fn add_tree(&self, folder: &Path, left_out: &[&str]) -> Result<()> {
        let script =
            "from=$1 to=$2; shift 2; tar -C \"$from\" -c \"$@\" . | tar -C \"$to\" -x --no-same-owner";
        run(Command::new("bash")
            .args(["-eo", "pipefail", "-c", script, "add"])
            .args([folder, &self.folder])
            .args(left_out.iter().map(|pattern| format!("--exclude={pattern}"))))?;
        Ok(())
    }

    /// Writes a text file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let to = self.folder.join(inside);
        fs::write(&to, text).with_context(|| format!("writing {}", to.display()))
    }

    /// Reads a text file that was taken in.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(&self, inside: &str) -> Result<String> {
        let file = self.folder.join(inside);
        fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    }

    /// Every program and library that is in it now: its path as the guest has it, its size in bytes and its SHA-256
    /// in hexadecimal digits.
    ///
    /// # Errors
    /// When find or sha256sum is missing or fails.
    pub fn programs(&self) -> Result<Vec<(PathBuf, u64, String)>> {
        let script = "cd \"$1\" && find . -type f '(' -perm -100 -o -name '*.so*' ')' -exec sha256sum {} +";
        let sums = run(Command::new("bash").args(["-ec", script, "programs"]).arg(&self.folder))?;
        let program = |line: &str| {
            let (sum, path) = line.split_once("  ./").context("a line of sha256sum without a path")?;
            Ok((Path::new("/").join(path), fs::metadata(self.folder.join(path))?.len(), sum.to_owned()))
        };
        sums.lines().map(program).collect()
    }

    /// Takes a kernel module in, unpacked, as `lib/modules/NAME.ko`.
    ///
    /// # Errors
    /// When it cannot be read, unpacked or written.
    pub fn add_module(&self, module: &Path) -> Result<()> {
        unpack_module(module, &self.folder.join("lib/modules"))
    }

    /// Packs it all into `image`.
    ///
    /// # Errors
    /// When cpio is missing or fails.
    pub fn pack(self, image: &Path) -> Result<()> {
        pack(&self.folder, image)
    }
}

/// Lays a kernel module into a folder, unpacked, as `NAME.ko`.
pub(crate) fn unpack_module(module: &Path, folder: &Path) -> Result<()> {
    let name = module.file_name().and_then(|n| n.to_str()).context("a module without a name")?;
    fs::create_dir_all(folder)?;
    let inside = folder.join(name.trim_end_matches(".xz"));
    if name.ends_with(".xz") {
        let unpacked =
            Command::new("xz").arg("-dc").arg(module).output().map_err(|e| not_started("xz", e))?;
        ensure!(unpacked.status.success(), "xz cannot unpack {}", module.display());
        fs::write(inside, unpacked.stdout)?;
    } else {
        fs::copy(module, inside)?;
    }
    Ok(())
}

/// Packs a folder into `image`, everything in it root's. Not compressed: an emulated CPU unpacks more slowly than it
/// reads.
///
/// # Errors
/// When cpio is missing or fails.
pub fn pack(folder: &Path, image: &Path) -> Result<()> {
    // cpio(1) writes what the kernel reads (newc); the file names go in by a pipe.
    let script =
        "cd \"$1\" && find . -print0 | cpio --null --create --quiet --format=newc --owner=0:0 >\"$2\"";
    let image = std::path::absolute(image)?;
    run(Command::new("bash").args(["-eo", "pipefail", "-c", script, "pack"]).arg(folder).arg(image))?;
    Ok(())
}
