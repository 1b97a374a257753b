//! A disk whose power can be cut: a file system in a file, mounted where no other process sees it. What the file holds at any
//! moment is what a disk would hold, because the kernel writes to it only what was made to last, or what it felt like.

#![allow(dead_code, unreachable_pub, missing_docs, unsafe_code, clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountPropagationFlags, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Nothing is written but on demand for as long as a test takes, and a rename does not write what was renamed.
const OPTIONS: &str = "loop,commit=300,data=writeback,noauto_da_alloc,barrier=1";

pub struct Disk {
    image: PathBuf,
    point: PathBuf,
}

impl Disk {
    /// A fresh file system, mounted at `folder/disk` for this thread and its children alone. `None`, loudly, where the host has
    /// no loop devices to give.
    pub fn make(folder: &Path) -> Option<Self> {
        let disk = Self { image: folder.join("image"), point: folder.join("disk") };
        match disk.try_make() {
            Ok(()) => Some(disk),
            Err(why) => {
                println!("SKIPPED: a loop-mounted ext4 of the test's own is missing: {why}");
                None
            }
        }
    }

    fn try_make(&self) -> Result<(), String> {
        // SAFETY: this thread shares no memory and no descriptors less than before; its mounts alone become its own.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
            .map_err(|e| format!("unshare: {e}"))?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(|e| format!("private mounts: {e}"))?;
        fs::create_dir(&self.point).map_err(|e| e.to_string())?;
        fs::File::create(&self.image).and_then(|file| file.set_len(16 << 20)).map_err(|e| e.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&self.image))?;
        self.mount(&self.image)
    }

    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Makes all that was done so far last.
    pub fn settle(&self) {
        rustix::fs::syncfs(fs::File::open(&self.point).unwrap()).unwrap();
    }

    /// What an administrator finds after the power was cut now and came back: `look` sees it at the same place.
    pub fn after_power_loss<T>(&self, look: impl FnOnce() -> T) -> T {
        let copy = self.image.with_extension("after");
        fs::copy(&self.image, &copy).unwrap();
        self.mount(&copy).unwrap();
        let seen = look();
        self.unmount();
        fs::remove_file(&copy).unwrap();
        seen
    }

    fn mount(&self, image: &Path) -> Result<(), String> {
        run(Command::new("mount").args(["-t", "ext4", "-o", OPTIONS]).arg(image).arg(&self.point))
    }

    fn unmount(&self) {
        // A child that another test starts just then holds what is open here until its own exec.
        let begin = Instant::now();
        while let Err(error) = run(Command::new("umount").arg(&self.point)) {
            assert!(begin.elapsed() < Duration::from_secs(5), "{error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(&self.point));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{:?}: {said}", command.get_program())) }
}
