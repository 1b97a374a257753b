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
}

const fn group(case: &'static str, about: &'static str) -> Group {
    Group { case, about }
}

const GROUPS: &[Group] = &[
    group("unknown_programs_are_refused_in_their_scope", "Unknown programs"),
    group("unknown_programs_are_refused_by_every_name", "Names, links, mounts, chroots, namespaces"),
    group("changed_programs_are_refused", "Known programs, changed"),
    group("no_race_of_writer_and_exec_is_won", "Between the check and the use"),
    group("judging_is_never_passed_over", "While the judge is busy with other files"),
    group("nameless_programs_are_refused", "Programs without a name"),
    group("code_for_the_loader_is_judged", "What the dynamic loader is given"),
    group("unknown_scripts_are_refused", "What interpreters are given"),
    group("written_memory_is_not_executed", "Memory that is written and executed"),
    group("mapped_files_are_judged_when_made_executable", "Files made executable after they were mapped"),
    group("mapped_code_is_not_overwritten", "Files that are mapped as code, changed"),
    group("injection_is_refused", "Other processes' memory"),
    group("kernel_code_is_judged", "Code for the kernel"),
    group("trusted_writers_output_is_trusted", "In a compiler's or package manager's name"),
    group("package_managers_are_trusted_as_root", "In a package manager's name, by others than root"),
    group("another_file_system_is_judged_anew", "Another file system in the place of one that is known"),
    group("nothing_is_remembered_on_overlays", "Below an overlay"),
    group("overlays_of_users_are_refused", "Layers of container images, and overlays of users"),
    group("mounted_images_are_judged", "File systems in a file, as snaps are"),
    group("what_user_space_serves_is_refused", "File systems in user space"),
    group("blocked_programs_are_refused_although_vouched_for", "What is blocked or no longer approved"),
    group("services_start_no_shells", "Shells that a service starts ([services])"),
    group(
        "containers_are_not_bound_by_their_daemon",
        "Shells that a container's service starts ([services])",
    ),
    group("enforcement_outlives_the_agent", "With the agent killed, and with the next one"),
];

/// What came of it where the kernel takes no programs that judge, as an end-to-end test tried it.
struct Below {
    case: &'static str,
    what: &'static str,
    /// In the page's words, which the test holds against what it sees.
    came: &'static str,
    /// The test's file in tests/e2e/tests.
    by: &'static str,
}

const fn below(case: &'static str, what: &'static str, came: &'static str, by: &'static str) -> Below {
    Below { case, what, came, by }
}

const ENFORCED: &str = "enforced_below_lsm.rs";
const SERVICES: &str = "services.rs";

const BELOW: &[Below] = &[
    below("unknown_programs_are_refused_in_their_scope", "an unknown program", "refused", ENFORCED),
    below(
        "unknown_programs_are_refused_by_every_name",
        "an unknown program by a symbolic link",
        "refused",
        ENFORCED,
    ),
    below(
        "unknown_programs_are_refused_by_every_name",
        "an unknown program by another hard link",
        "refused",
        ENFORCED,
    ),
    below("changed_programs_are_refused", "an altered copy", "refused", ENFORCED),
    below("changed_programs_are_refused", "writing into the same file", "refused", ENFORCED),
    below("changed_programs_are_refused", "renaming over it", "refused", ENFORCED),
    below("nameless_programs_are_refused", "a memfd", "ended", ENFORCED),
    below("nameless_programs_are_refused", "a deleted file", "refused or ended", ENFORCED),
    below("code_for_the_loader_is_judged", "an unknown program by the loader", "refused", ENFORCED),
    below("code_for_the_loader_is_judged", "an unknown library by LD_PRELOAD", "refused", ENFORCED),
    below("unknown_scripts_are_refused", "an unknown script", "refused", ENFORCED),
    below("unknown_scripts_are_refused", "an unknown script as an argument", "refused", ENFORCED),
    below("unknown_scripts_are_refused", "an unknown script by a relative name", "refused", ENFORCED),
    below("unknown_scripts_are_refused", "an unknown script by a link", "refused", ENFORCED),
    below("unknown_scripts_are_refused", "an unknown script on standard input", "**runs**", ENFORCED),
    below("unknown_scripts_are_refused", "an unknown script through a pipe", "**runs**", ENFORCED),
    below(
        "unknown_scripts_are_refused",
        "commands given to an interpreter as an argument",
        "**runs**",
        ENFORCED,
    ),
    below("services_start_no_shells", "a shell", "ended later", SERVICES),
    below("services_start_no_shells", "a shell through env", "ended later", SERVICES),
    below("services_start_no_shells", "a shell in a session of its own", "ended later", SERVICES),
];

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
    if let Some(lost) = BELOW.iter().find(|below| !order.contains(&(below.case, below.what))) {
        return Err(format!("tried below lsm alone: {} of {}", lost.what, lost.case));
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

The last column is what a test in tests/e2e/tests sees where the kernel takes no programs that judge: *refused* by permission
events, on mounts that are asked about; *ended* before the first instruction; *ended later*, once it was seen. limits.md says what
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
        write!(page, "\n## {}\n\nTest: `{}`", group.about, group.case)?;
        if let Some(below) = BELOW.iter().find(|below| below.case == group.case) {
            write!(page, ", and below lsm `{}`", below.by)?;
        }
        writeln!(page, ".\n")?;
        write!(page, "| tried |")?;
        kernels.iter().try_for_each(|(kernel, _)| write!(page, " lsm, Linux {kernel} |"))?;
        writeln!(page, " below lsm |\n|---|{}", "---|".repeat(kernels.len() + 1))?;
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
            let below = BELOW.iter().find(|below| (below.case, below.what) == *row);
            writeln!(page, " {} |", below.map_or("not tried", |below| below.came))?;
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

    /// What the published page says was tried: on Linux 6.1, and on 6.12.
    fn published(page: &str) -> [Vec<(String, String, Answer)>; 2] {
        let mut tried = [Vec::new(), Vec::new()];
        let mut case = "";
        for line in page.lines() {
            if let Some(named) = line.strip_prefix("Test: `") {
                case = named.split('`').next().unwrap_or_default();
            }
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, what, on_6_1, on_6_12, _, _] = cells[..] else { continue };
            for (on, answer) in tried.iter_mut().zip([on_6_1, on_6_12]) {
                match answer {
                    "refused" => on.push((case.to_owned(), what.to_owned(), Answer::Refused)),
                    "**runs**" => on.push((case.to_owned(), what.to_owned(), Answer::Runs)),
                    _ => {}
                }
            }
        }
        tried
    }

    fn written() -> String {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PAGE);
        std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{PAGE}: {error}"))
    }

    #[test]
    fn the_page_is_as_it_is_made() {
        let written = written();
        let [on_6_1, on_6_12] = published(&written);
        let page = super::page(&[("6.1", &on_6_1), ("6.12", &on_6_12)]).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(page, written);
    }

    #[test]
    fn what_was_tried_below_lsm_is_named_in_its_test() {
        for below in BELOW {
            let file = format!("{}/../e2e/tests/{}", env!("CARGO_MANIFEST_DIR"), below.by);
            let test = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(test.contains(&format!("\"{}\"", below.what)), "{file} does not try {}", below.what);
        }
    }

    #[test]
    fn what_was_asked_for_must_have_been_tried() {
        let [mut on_6_1, on_6_12] = published(&written());
        let (_, asked) = ASKED[0];
        let refused = |on: &Tried| super::page(&[("6.1", on)]).expect_err("something is wrong");
        on_6_1.retain(|(_, what, _)| what != asked);
        assert_eq!(refused(&on_6_1), format!("not tried: {}", ASKED[0].0));
        // One kernel is enough.
        let page = super::page(&[("6.1", &on_6_1), ("6.12", &on_6_12)]).unwrap_or_else(|why| panic!("{why}"));
        assert!(page.contains(&format!("| {asked} | not tried | refused | not tried |\n")), "{page}");
        assert!(refused(&[("other".to_owned(), String::new(), Answer::Runs)]).contains("no place for them"));
        let mut lost = on_6_12;
        lost.retain(|(_, what, _)| what != "renaming over it");
        assert!(refused(&lost).contains("tried below lsm alone: renaming over it"));
    }
}
