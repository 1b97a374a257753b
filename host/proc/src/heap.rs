//! How this process keeps its memory.
#![allow(unsafe_code)]

/// Keeps all memory in one heap. With one for every few threads, as glibc has it, each keeps the most that its threads ever
/// needed: some 15 MB more in an agent that learned what packages vouch for. To be called before there are threads.
pub fn keep_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two numbers and sets a parameter of the allocator; no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
