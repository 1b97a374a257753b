//! The table of bypasses: what was tried to make code run that nobody vouches for, and what came of it on which kernel.
//! `tests/debian.rs` holds docs/reference/bypasses.md against what its machines say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::report::Answer;

/// Where the table lies, below the workspace.
pub const PAGE: &str = "docs/reference/bypasses.md";

/// A case that tries bypasses.
struct Group {
    /// Its name.
    case: &'static str,
    /// What all of them have in common.
    about: &'static str,
    /// What comes of them where the kernel takes no programs that judge.
    below: Below,
}

/// What was tried in the tiers below `lsm`, by `tests/e2e/tests/enforced_below_lsm.rs`.
#[derive(Clone, Copy)]
enum Below {
    /// It is asked for and refused.
    Asked,
    /// It has no path to ask for and is ended.
    Ended,
    /// It is ended once it was seen, by `tests/e2e/tests/services.rs`.
    EndedLater,
    /// Nothing of it.
    NotTried,
}

impl Below {
    const fn words(self) -> &'static str {
        match self {
            Self::Asked => {
                "`permission` tier: the plain forms are refused on mounts that are asked about; the others are not tried there."
            }
            Self::Ended => {
                "`signal` tier: ended before the first instruction; from a deleted file, refused in the `permission` tier."
            }
            Self::EndedLater => "`signal` tier: ended once it was seen, a moment after it began.",
            Self::NotTried => "Tiers below: not tried. Programs that ran are told afterwards.",
        }
    }
}

const fn group(case: &'static str, about: &'static str, below: Below) -> Group {
    Group { case, about, below }
}

const GROUPS: &[Group] = {
    use Below::{Asked, Ended, EndedLater, NotTried};
    &[
        group("unknown_programs_are_refused_in_their_scope", "Unknown programs", Asked),
        group(
            "unknown_programs_are_refused_by_every_name",
            "Names, links, mounts, chroots, namespaces",
            NotTried,
        ),
        group("changed_programs_are_refused", "Known programs, changed", Asked),
        group("no_race_of_writer_and_exec_is_won", "Between the check and the use", NotTried),
        group("judging_is_never_passed_over", "While the judge is busy with other files", NotTried),
        group("nameless_programs_are_refused", "Programs without a name", Ended),
        group("code_for_the_loader_is_judged", "What the dynamic loader is given", Asked),
        group("unknown_scripts_are_refused", "What interpreters are given", Asked),
        group("written_memory_is_not_executed", "Memory that is written and executed", NotTried),
        group(
            "mapped_files_are_judged_when_made_executable",
            "Files made executable after they were mapped",
            NotTried,
        ),
        group("mapped_code_is_not_overwritten", "Files that are mapped as code, changed", NotTried),
        group("injection_is_refused", "Other processes' memory", NotTried),
        group("kernel_code_is_judged", "Code for the kernel", NotTried),
        group("trusted_writers_output_is_trusted", "In a compiler's or package manager's name", NotTried),
        group(
            "package_managers_are_trusted_as_root",
            "In a package manager's name, by others than root",
            NotTried,
        ),
        group(
            "another_file_system_is_judged_anew",
            "Another file system in the place of one that is known",
            NotTried,
        ),
        group("nothing_is_remembered_on_overlays", "Below an overlay", NotTried),
        group("overlays_of_users_are_refused", "Layers of container images, and overlays of users", NotTried),
        group("mounted_images_are_judged", "File systems in a file, as snaps are", NotTried),
        group("what_user_space_serves_is_refused", "File systems in user space", NotTried),
        group(
            "blocked_programs_are_refused_although_vouched_for",
            "What is blocked or no longer approved",
            NotTried,
        ),
        group("services_start_no_shells", "Shells that a service starts ([services])", EndedLater),
        group(
            "containers_are_not_bound_by_their_daemon",
            "Shells that a container's service starts ([services])",
            NotTried,
        ),
        group("enforcement_outlives_the_agent", "With the agent killed, and with the next one", NotTried),
    ]
};

/// What must be tried, as it was asked for, and by what it is.
const ASKED: &[(&str, &str)] = &[
    ("container image layers", "an unknown program in an image's layer"),
    ("snap-like mounts", "an unknown program in a mounted image"),
    ("FUSE", "a known program served by FUSE"),
    ("chroots", "an unknown program in a chroot"),
    ("user namespaces", "an unknown program in a user namespace"),
    ("bwrap", "an unknown program in namespaces as bwrap makes them, on a mount of its own"),
    ("memfd", "a memfd"),
    ("/proc/self/fd", "an unknown program by /proc/self/fd"),
    ("io_uring", "writing by an io_uring"),
    ("bind mounts", "an unknown program mounted over a known one"),
    ("hardlinks", "writing through a hard link"),
    ("rename races", "renaming and exchanging files while one is executed again and again"),
    ("writes between check and use", "writing into a file while it is executed again and again"),
    ("ld.so ./x", "an unknown program by the loader"),
    ("ld.so /proc/self/fd/N", "a memfd by the loader"),
    ("LD_PRELOAD", "an unknown library by LD_PRELOAD"),
    ("dlopen", "an unknown library, mapped as dlopen does"),
    ("deleted execution", "a deleted file"),
    ("O_TMPFILE execution", "an O_TMPFILE"),
    ("modules", "an unknown module"),
    ("BPF objects", "a BPF program"),
    ("python x.py", "an unknown script as an argument"),
    ("scripts by shebang", "an unknown script"),
    ("stdin and pipes", "an unknown script through a pipe"),
    ("-c", "commands given to an interpreter as an argument"),
];

/// What no machine here can try, and what is known of it.
const UNTRIED: &[(&str, &str)] = &[
    (
        "NFS, btrfs and other file systems on which nothing is remembered",
        "read at every exec like files on an overlay, by the same code; no test mounts them",
    ),
    (
        "writing to the disk or image below a mounted file system",
        "not seen: what is remembered of its files stays (limits.md)",
    ),
    (
        "a compiler or package manager that is told to write any bytes",
        "trusted: its word is as good as whoever may run it (limits.md)",
    ),
];

/// What was tried on one kernel: case, what, and what came of it.
pub type Tried = [(String, String, Answer)];

/// The page, from what was tried on each kernel (its series, such as `6.1`).
///
/// # Errors
/// What is missing: a case without a group, or something that was asked for and not tried.
pub fn page(kernels: &[(&str, &Tried)]) -> Result<String, String> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    let mut answers: BTreeMap<(&str, &str), BTreeMap<&str, Answer>> = BTreeMap::new();
    let mut homeless = BTreeSet::new();
    for (kernel, tried) in kernels {
        for (case, what, answer) in *tried {
            if !GROUPS.iter().any(|group| group.case == case) {
                homeless.insert(case.as_str());
            }
            if !answers.contains_key(&(case.as_str(), what.as_str())) {
                order.push((case, what));
            }
            answers.entry((case, what)).or_default().insert(kernel, *answer);
        }
    }
    if !homeless.is_empty() {
        return Err(format!("these cases try bypasses, and the table has no place for them: {homeless:?}"));
    }
    let untried: Vec<&str> = ASKED
        .iter()
        .filter(|(_, by)| !order.iter().any(|(_, what)| what == by))
        .map(|(asked, _)| *asked)
        .collect();
    if !untried.is_empty() {
        return Err(format!("not tried: {}", untried.join(", ")));
    }
    let mut page = HEAD.to_owned();
    // Writing to a string cannot fail.
    let _ = write_table(&mut page, kernels, &order, &answers);
    Ok(page)
}

const HEAD: &str = "\
# Bypasses

What was tried to make code run that nobody vouches for, and what came of it. Made by the tests that try it: the virtual
machines run each on stock Debian kernels, once in a cgroup that trust enforces in and once outside of it, where it works;
`cargo test -p davy-test-vm --test debian bypasses` fails when this page says something else than they do
(`DAVY_BLESS=1` writes it anew). *Refused* means before the first instruction. What *runs* is a published limit; see
[limits.md](../concepts/limits.md) for what would close it.

Each table says below its name what was tried where the kernel takes no programs that judge; docs/concepts/limits.md says what
those tiers cannot see.
";

fn write_table(
    page: &mut String,
    kernels: &[(&str, &Tried)],
    order: &[(&str, &str)],
    answers: &BTreeMap<(&str, &str), BTreeMap<&str, Answer>>,
) -> std::fmt::Result {
    for group in GROUPS {
        let mut rows = order.iter().filter(|(case, _)| *case == group.case).peekable();
        if rows.peek().is_none() {
            continue;
        }
        writeln!(page, "\n## {}\n\nTest: `{}`. {}\n", group.about, group.case, group.below.words())?;
        write!(page, "| tried |")?;
        kernels.iter().try_for_each(|(kernel, _)| write!(page, " lsm, Linux {kernel} |"))?;
        writeln!(page, "\n|---|{}", "---|".repeat(kernels.len()))?;
        for row in rows {
            write!(page, "| {} |", row.1)?;
            for (kernel, _) in kernels {
                let word = match answers.get(row).and_then(|by| by.get(kernel)) {
                    Some(Answer::Refused) => "refused",
                    Some(Answer::Runs) => "**runs**",
                    None => "not tried",
                };
                write!(page, " {word} |")?;
            }
            writeln!(page)?;
        }
    }
    writeln!(page, "\n## Not tried\n\n| what | what is known of it |\n|---|---|")?;
    UNTRIED.iter().try_for_each(|(what, known)| writeln!(page, "| {what} | {known} |"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::NAMES;

    #[test]
    fn every_group_is_a_case() {
        for group in GROUPS {
            assert!(NAMES.contains(&group.case), "{}", group.case);
        }
    }

    #[test]
    fn what_was_asked_for_must_have_been_tried() {
        let case = "changed_programs_are_refused";
        let all: Vec<_> =
            ASKED.iter().map(|(_, by)| (case.to_owned(), (*by).to_owned(), Answer::Refused)).collect();
        let page = super::page(&[("6.1", &all), ("6.12", &all[1..])]).unwrap_or_else(|why| panic!("{why}"));
        assert!(page.contains("| a memfd | refused | refused |\n"), "{page}");
        assert!(page.contains(&format!("| {} | refused | not tried |", ASKED[0].1)), "{page}");
        let missing = super::page(&[("6.1", &all[1..])]).expect_err("one was not tried");
        assert_eq!(missing, format!("not tried: {}", ASKED[0].0));
        assert!(super::page(&[("6.1", &[("other".to_owned(), String::new(), Answer::Runs)])]).is_err());
    }
}
