//! Memory that learning needed and nothing needs any more.
#![allow(unsafe_code)]

/// Gives free memory back to the kernel. Learning takes some 30 MB for a moment, in many small pieces that the allocator would
/// keep for as long as the agent runs.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number of bytes, touches free memory alone, and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
