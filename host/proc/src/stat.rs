/// The flag of kernel threads in field 9 (`PF_KTHREAD`, include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Clock ticks a second in every number /proc gives to user space (USER_HZ, 100 on every architecture Linux has here).
pub(crate) const NANOS_PER_TICK: u64 = 10_000_000;

/// What Davy uses of `/proc/PID/stat` or `/proc/PID/task/TID/stat` (proc_pid_stat(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Process or thread id.
    pub pid: u32,
    /// Short name; bytes that are not UTF-8 are replaced.
    pub comm: String,
    /// State letter.
    pub state: u8,
    /// The parent's pid; zero for none.
    pub parent: u32,
    /// Controlling terminal as a device number; zero for none.
    pub tty: u32,
    /// CPU time in user and kernel mode, in clock ticks of 10 ms.
    pub cpu_ticks: u64,
    /// Nice value.
    pub nice: i32,
    /// Threads of the process.
    pub threads: u32,
    /// Start in clock ticks since boot.
    pub start_ticks: u64,
    /// Scheduling policy (sched(7)).
    pub policy: u32,
    /// Whether it is a kernel thread.
    pub kernel_thread: bool,
    /// A number that changes at every exec of a position-independent or randomised program, made of the addresses of
    /// its code and stack; zero for a reader who may not know them.
    pub layout: u64,
}

/// Reads a stat line; `None` when it is not one.
///
/// The short name stands in round brackets and may hold anything, also `) (` and newlines: it reaches from the first
/// opening to the last closing bracket.
#[must_use]
pub fn parse_stat(line: &[u8]) -> Option<Stat> {
    let open = line.iter().position(|b| *b == b'(')?;
    let close = line.iter().rposition(|b| *b == b')').filter(|close| *close > open)?;
    let pid = std::str::from_utf8(&line[..open]).ok()?.trim().parse().ok()?;
    let comm = String::from_utf8_lossy(&line[open + 1..close]).into_owned();
    let rest = std::str::from_utf8(&line[close + 1..]).ok()?;
    // Field 3 of the manual page is the first here.
    let mut fields = [""; 50];
    for (place, word) in fields.iter_mut().zip(rest.split_ascii_whitespace()) {
        *place = word;
    }
    let number = |field: usize| fields[field - 3].parse::<u64>().unwrap_or(0);
    let small = |field: usize| u32::try_from(number(field)).unwrap_or(0);
    let start_ticks = fields[22 - 3].parse().ok()?;
    Some(Stat {
        pid,
        comm,
        state: fields[0].bytes().next()?,
        parent: small(4),
        tty: fields[7 - 3].parse::<i32>().map_or(0, i32::cast_unsigned),
        cpu_ticks: number(14).saturating_add(number(15)),
        nice: fields[19 - 3].parse().unwrap_or(0),
        threads: small(20),
        start_ticks,
        policy: small(41),
        kernel_thread: number(9) & KERNEL_THREAD != 0,
        layout: layout(number(26), number(28)),
    })
}

/// Start of code and of stack; the kernel gives 0 or 1 to those who may not know.
fn layout(code: u64, stack: u64) -> u64 {
    if code <= 1 && stack <= 1 { 0 } else { code.rotate_left(24) ^ stack }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const REAL: &str = "(cat) R 13029 13029 9484 34816 -1 4194304 99 0 0 0 7 3 0 0 20 -5 4 0 103397 3133440 373 \
        18446744073709551615 94884401352704 94884401372585 140723743335776 0 0 0 0 0 0 0 0 0 17 0 0 5 0 0 0 \
        94884401388592 94884401390208 94885438984192 140723743341266 140723743341304 140723743341304 \
        140723743342571 0\n";

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let stat = parse_stat(format!("13035 {REAL}").as_bytes()).unwrap();
        assert_eq!((stat.pid, stat.comm.as_str(), stat.state, stat.parent), (13035, "cat", b'R', 13029));
        assert_eq!((stat.tty, stat.cpu_ticks, stat.nice, stat.threads), (34816, 10, -5, 4));
        assert_eq!((stat.start_ticks, stat.policy, stat.kernel_thread), (103_397, 5, false));
        assert_ne!(stat.layout, 0);
    }

    #[test]
    fn a_name_may_hold_brackets_and_newlines() {
        for name in [") R 1 1 (", "a b", "()", "\n", "(((", ")))", "\u{1b}[2J", ""] {
            let line = format!("9 {}", REAL.replace("(cat)", &format!("({name})")));
            let stat = parse_stat(line.as_bytes()).unwrap();
            assert_eq!((stat.comm.as_str(), stat.parent), (name, 13029));
        }
    }

    #[test]
    fn kernel_threads_are_told_by_their_flag() {
        let line = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 0 0 0";
        assert!(parse_stat(line.as_bytes()).unwrap().kernel_thread);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse_stat(&bytes);
        }

        #[test]
        fn any_name_is_found_again(name in "[^\u{0}]{0,15}", pid in 1u32..4_194_304) {
            let line = format!("{pid} {}", REAL.replace("(cat)", &format!("({name})")));
            let stat = parse_stat(line.as_bytes()).unwrap();
            prop_assert_eq!(stat.pid, pid);
            prop_assert_eq!(stat.comm, name);
            prop_assert_eq!(stat.start_ticks, 103_397);
        }
    }
}
