//! File systems that a sweep goes into, by the magic number that statfs(2) gives.

use std::os::fd::AsFd;

/// What the kernel makes up: nothing lies there.
const MADE_UP: [i64; 18] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x6265_6570, // configfs
    0x1980_0202, // mqueue
    0x6e73_6673, // nsfs
    0x4249_4e4d, // binfmt_misc
    0x0187,      // autofs
    0x6573_5543, // fusectl
    0xf97c_ff8c, // selinuxfs
];

/// What lies on other machines.
const REMOTE: [i64; 9] = [
    0x6969,      // nfs
    0xff53_4d42, // cifs
    0xfe53_4d42, // smb2
    0x0102_1997, // 9p
    0x00c3_6400, // ceph
    0x5346_414f, // afs
    0x7461_636f, // ocfs2
    0x0bd0_0bd0, // lustre
    0x6573_5546, // fuse: sshfs and its like; local ones among them are passed over too
];

/// Whether a folder's file system is passed over unless it is named.
pub(crate) fn passed_over(folder: impl AsFd) -> bool {
    // A folder whose file system cannot be told is gone into.
    let Ok(told) = rustix::fs::fstatfs(folder) else { return false };
    MADE_UP.contains(&told.f_type) || REMOTE.contains(&told.f_type)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;

    use super::*;

    #[test]
    fn proc_is_passed_over_and_the_root_is_not() {
        assert!(passed_over(File::open("/proc").unwrap()) && passed_over(File::open("/sys").unwrap()));
        assert!(!passed_over(File::open("/").unwrap()));
    }
}
