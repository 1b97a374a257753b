//! AMD's compute driver: `/sys/class/kfd/kfd/proc/PID/vram_<gpu>` (the kernel's amdkfd).

use std::path::Path;

/// At most so many files of one process are looked at.
const MAX_FILES: usize = 256;

/// Bytes of device memory a process holds over all GPUs.
pub(super) fn memory(root: &Path, pid: u32) -> u64 {
    let Ok(files) = std::fs::read_dir(root.join(pid.to_string())) else { return 0 };
    let held = files
        .map_while(Result::ok)
        .take(MAX_FILES)
        .filter(|file| file.file_name().to_string_lossy().starts_with("vram_"))
        .filter_map(|file| std::fs::read_to_string(file.path()).ok()?.trim().parse::<u64>().ok());
    held.fold(0, u64::saturating_add)
}
