#![allow(unsafe_code)]
//! The C interface of the reference implementation (randomx.h), which the `randomx-rs` crate builds and links.
//! Called directly, because that crate fills a dataset on one thread only and lets no cache cross threads.

use std::ffi::{c_int, c_uint, c_ulong, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use randomx_rs::RandomXFlag;

// Opaque types of randomx.h.
#[repr(C)]
struct RawCache([u8; 0]);
#[repr(C)]
struct RawDataset([u8; 0]);
#[repr(C)]
struct RawMachine([u8; 0]);

// SAFETY: the declarations agree with randomx.h; `randomx_flags` is a C enumeration, hence an int.
unsafe extern "C" {
    fn randomx_alloc_cache(flags: c_int) -> *mut RawCache;
    fn randomx_init_cache(cache: *mut RawCache, key: *const c_void, size: usize);
    fn randomx_release_cache(cache: *mut RawCache);
    fn randomx_alloc_dataset(flags: c_int) -> *mut RawDataset;
    fn randomx_dataset_item_count() -> c_ulong;
    fn randomx_init_dataset(dataset: *mut RawDataset, cache: *mut RawCache, start: c_ulong, count: c_ulong);
    fn randomx_release_dataset(dataset: *mut RawDataset);
    fn randomx_create_vm(flags: c_int, cache: *mut RawCache, dataset: *mut RawDataset) -> *mut RawMachine;
    fn randomx_destroy_vm(machine: *mut RawMachine);
    fn randomx_calculate_hash(
        machine: *mut RawMachine,
        input: *const c_void,
        size: usize,
        output: *mut c_void,
    );
}

struct Memory {
    cache: NonNull<RawCache>,
    dataset: Option<NonNull<RawDataset>>,
}

// SAFETY: after `Shared::new` the library only reads cache and dataset, and any thread may release them.
unsafe impl Send for Memory {}
// SAFETY: as above; randomx.h allows one cache and dataset for any number of machines at once.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: both came from their alloc functions and no machine is left, since each holds this memory.
        unsafe {
            if let Some(dataset) = self.dataset {
                randomx_release_dataset(dataset.as_ptr());
            }
            randomx_release_cache(self.cache.as_ptr());
        }
    }
}

/// Cache and, in fast mode, dataset for one key.
pub(crate) struct Shared {
    memory: Arc<Memory>,
    flags: c_uint,
}

impl Shared {
    /// Fills the cache (256 MiB, about a second) and in fast mode the dataset (2080 MiB) with `threads` threads.
    pub(crate) fn new(key: &[u8], fast: bool, threads: u32) -> Result<Self> {
        let flags = RandomXFlag::get_recommended_flags() | RandomXFlag::FLAG_JIT;
        // SAFETY: takes flags, returns null or a cache.
        let cache = NonNull::new(unsafe { randomx_alloc_cache(flags.bits() as c_int) })
            .context("no memory for RandomX's cache")?;
        let mut memory = Memory { cache, dataset: None };
        // SAFETY: the cache is live and `key` is readable for its length.
        unsafe { randomx_init_cache(cache.as_ptr(), key.as_ptr().cast(), key.len()) };
        let mut flags = flags.bits();
        if fast {
            // SAFETY: takes flags, returns null or a dataset.
            let dataset = NonNull::new(unsafe { randomx_alloc_dataset(0) })
                .context("no memory for RandomX's dataset")?;
            memory.dataset = Some(dataset);
            flags |= RandomXFlag::FLAG_FULL_MEM.bits();
            fill(&memory, dataset, threads);
        }
        Ok(Self { memory: Arc::new(memory), flags })
    }

    /// A virtual machine for one thread.
    pub(crate) fn machine(&self) -> Result<Machine> {
        let dataset = self.memory.dataset.map_or(ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: cache and dataset are live and filled, and the machine keeps them so.
        let raw = unsafe { randomx_create_vm(self.flags as c_int, self.memory.cache.as_ptr(), dataset) };
        let raw = NonNull::new(raw).context("RandomX made no machine")?;
        Ok(Machine { raw, _memory: Arc::clone(&self.memory) })
    }
}

fn fill(memory: &Memory, dataset: NonNull<RawDataset>, threads: u32) {
    // SAFETY: a constant of the library.
    let items = unsafe { randomx_dataset_item_count() };
    let part = items.div_ceil(c_ulong::from(threads));
    let (cache, dataset) = (memory.cache.as_ptr() as usize, dataset.as_ptr() as usize);
    thread::scope(|scope| {
        for start in (0..items).step_by(part as usize) {
            let count = part.min(items - start);
            scope.spawn(move || {
                // SAFETY: both live until the scope ends; the threads' ranges do not overlap, which is how
                // randomx.h says to fill a dataset on several threads.
                unsafe { randomx_init_dataset(dataset as *mut _, cache as *mut _, start, count) };
            });
        }
    });
}

/// One thread's virtual machine with its scratchpad of 2 MiB.
pub(crate) struct Machine {
    raw: NonNull<RawMachine>,
    _memory: Arc<Memory>,
}

// SAFETY: a machine has no ties to the thread that made it; randomx.h only forbids its use by two threads at once,
// which `&mut` in `hash` excludes.
unsafe impl Send for Machine {}

impl Machine {
    pub(crate) fn hash(&mut self, input: &[u8]) -> [u8; 32] {
        let mut output = [0_u8; 32];
        // SAFETY: the machine is live and used by `&mut` alone; input is readable for its length and output holds
        // RANDOMX_HASH_SIZE, 32 bytes.
        unsafe {
            randomx_calculate_hash(
                self.raw.as_ptr(),
                input.as_ptr().cast(),
                input.len(),
                output.as_mut_ptr().cast(),
            );
        }
        output
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: made by randomx_create_vm and destroyed once.
        unsafe { randomx_destroy_vm(self.raw.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first test vector of the reference implementation's own suite (src/tests/tests.cpp).
    #[test]
    fn the_reference_vector_comes_out() {
        let shared = Shared::new(b"test key 000", false, 1).expect("memory for the cache");
        let hash = shared.machine().expect("a machine").hash(b"This is a test");
        assert_eq!(hex::encode(hash), "639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f");
    }
}
