use crate::cpus::in_mask;

/// What Davy uses of `/proc/PID/status` or `/proc/PID/task/TID/status` (proc_pid_status(5)). What a line does not
/// say is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Real and effective user id.
    pub uid: (u32, u32),
    /// Real group id.
    pub gid: u32,
    /// Effective capabilities, one bit each.
    pub caps: u64,
    /// CPUs in the affinity mask, which may name more than are online.
    pub allowed_cpus: u32,
    /// Switches it asked for.
    pub voluntary_switches: u64,
    /// Switches forced on it.
    pub involuntary_switches: u64,
    /// Resident bytes.
    pub resident: u64,
    /// Bytes of explicit huge pages.
    pub hugetlb: u64,
}

/// Reads a status file. The name in its first line is escaped by the kernel, so that no process can write a line here.
#[must_use]
pub fn parse_status(text: &[u8]) -> Status {
    let mut status = Status::default();
    for line in text.split(|b| *b == b'\n') {
        let Some((name, value)) = std::str::from_utf8(line).ok().and_then(|l| l.split_once(':')) else {
            continue;
        };
        let value = value.trim();
        let mut words = value.split_ascii_whitespace();
        let mut id = || words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
        match name {
            "Uid" => status.uid = (id(), id()),
            "Gid" => status.gid = id(),
            "CapEff" => status.caps = u64::from_str_radix(value, 16).unwrap_or(0),
            "Cpus_allowed" => status.allowed_cpus = in_mask(value),
            "voluntary_ctxt_switches" => status.voluntary_switches = value.parse().unwrap_or(0),
            "nonvoluntary_ctxt_switches" => status.involuntary_switches = value.parse().unwrap_or(0),
            "VmRSS" => status.resident = kilobytes(value),
            "HugetlbPages" => status.hugetlb = kilobytes(value),
            _ => {}
        }
    }
    status
}

/// Bytes of a value such as `1608 kB`.
pub(crate) fn kilobytes(value: &str) -> u64 {
    let number = value.split_ascii_whitespace().next().and_then(|w| w.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_status_of_the_kernel_is_read() {
        let text = b"Name:\tx\\nUid:\t7\nUid:\t1000\t1001\t1002\t1003\nGid:\t5\t6\t7\t8\nCapEff:\t000001fffeffffff\n\
            VmRSS:\t    1608 kB\nHugetlbPages:\t       2048 kB\nCpus_allowed:\tff,0000000f\nSeccomp:\t0\n\
            voluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        let expected = Status {
            uid: (1000, 1001),
            gid: 5,
            caps: 0x1ff_feff_ffff,
            allowed_cpus: 12,
            voluntary_switches: 12,
            involuntary_switches: 3,
            resident: 1608 * 1024,
            hugetlb: 2048 * 1024,
        };
        assert_eq!(parse_status(text), expected);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse_status(&bytes);
        }

        #[test]
        fn no_value_makes_it_panic(value in "\\PC{0,40}") {
            for name in ["Uid", "Gid", "CapEff", "Cpus_allowed", "VmRSS", "HugetlbPages"] {
                let _ = parse_status(format!("{name}:\t{value}\n").as_bytes());
            }
        }
    }
}
