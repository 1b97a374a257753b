#![allow(unsafe_code)]

use rustix::process::{Gid, Signal, Uid, geteuid, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::Error;

/// The user and group that own nothing (`nobody`, `nogroup`).
const NOBODY: u32 = 65_534;

/// Closes whatever was inherited beside the three standard descriptors. Everything Davy opens is closed at exec; this is for
/// what its own parent may have left open.
pub(crate) fn close_inherited() {
    // SAFETY: closes descriptors by number only, of which this process has opened none above 2 yet; no memory is touched.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// Becomes nobody, when it is root, and gives up every capability. Says whether it is without privileges now.
pub(crate) fn become_nobody() -> Result<bool, Error> {
    if geteuid().is_root() {
        let failed = |source| Error::User { uid: NOBODY, source };
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[]).map_err(failed)?;
        set_thread_res_gid(gid, gid, gid).map_err(failed)?;
        set_thread_res_uid(uid, uid, uid).map_err(failed)?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let without = set_capabilities(None, none).is_ok();
    // The kernel forgets this with a change of user, so it is asked for after. The end of its input ends a worker too.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    Ok(without && !geteuid().is_root())
}
