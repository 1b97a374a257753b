//! What `davy run` says first and last.

use std::collections::BTreeSet;
use std::io::Write;

use davy_model::{Mode, Probe, ProtectionStatus, Tier};

use crate::Paths;

/// Says what is watched, by which tier, what is missing, and how to look. Written in one go; a terminal that is gone
/// is no reason to stop.
pub(crate) fn print(
    paths: &Paths,
    protections: &[ProtectionStatus],
    probes: &[Probe],
    temporary: Option<&str>,
) {
    let mut text = text(paths, protections, probes);
    if let Some(why) = temporary {
        text.insert_str(
            0,
            &format!("Nothing outlives a reboot, and no file is taken into quarantine: {why}\n\n"),
        );
    }
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Says that it is over, and what is left.
pub(crate) fn farewell(events: u64, left: &[String]) {
    let _ = std::io::stdout().lock().write_all(last_words(events, left).as_bytes());
}

fn last_words(events: u64, left: &[String]) -> String {
    let left = match left {
        [] => "Nothing of Davy is left in the kernel.".to_owned(),
        left => format!("Still there: {}.", left.join("; ")),
    };
    format!("\nStopped after {events} events. {left}\n")
}

fn text(paths: &Paths, protections: &[ProtectionStatus], probes: &[Probe]) -> String {
    let enforcing = protections.iter().filter(|p| p.mode == Mode::Enforce).count();
    let standing = protections.iter().filter(|p| p.tier.is_some()).count();
    let mut out = String::new();
    // Several capabilities may be missing for one reason; people are told it once.
    let missing: BTreeSet<&str> = probes.iter().filter(|p| !p.works).map(|p| p.reason.as_str()).collect();
    if protections.iter().all(|p| p.tier.is_none_or(|t| t == Tier::Poll)) {
        out.push_str(
            "Only the lowest tier holds here: Davy reads /proc and sees what lives long enough to be seen.\n",
        );
        for reason in missing {
            out.push_str(&format!("  missing    {reason}\n"));
        }
        out.push('\n');
    }
    out.push_str(&format!(
        "Davy watches this host: {standing} protections, {enforcing} enforce, {} observe.\n",
        standing - enforcing.min(standing)
    ));
    for p in protections {
        let tier = p.tier.map_or("-", tier_name);
        out.push_str(&format!("  {:<12} {:<8} {tier:<10} {}\n", p.name, mode_name(p.mode), p.note));
    }
    // The words that started it start the others too, whether it is installed or lies in a build folder.
    let davy = std::env::args().next().unwrap_or_else(|| "davy".to_owned());
    let base = paths.base.as_ref().map(|b| format!(" --base-dir {}", b.display())).unwrap_or_default();
    out.push_str("\nLook from another shell, as this user:\n");
    let verbs = [
        ("status", "what is protected, and why not better"),
        ("incidents", "what happened"),
        ("top", "who computes, and what speaks for mining"),
        ("drill", "harmless attacks against this very agent"),
    ];
    let calls = verbs.map(|(verb, what)| (format!("{davy}{base} {verb}"), what));
    let width = calls.iter().map(|(call, _)| call.len()).max().unwrap_or(0);
    for (call, what) in calls {
        out.push_str(&format!("  {call:<width$}  {what}\n"));
    }
    out.push_str("Ctrl-C stops it and leaves nothing behind.\n");
    out
}

const fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Poll => "poll",
        Tier::Signal => "signal",
        Tier::Permission => "permission",
        Tier::Lsm => "lsm",
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Observe => "observe",
        Mode::Enforce => "enforce",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said() {
        assert_eq!(last_words(3, &[]), "\nStopped after 3 events. Nothing of Davy is left in the kernel.\n");
        let left = ["2 programs".to_owned(), "the cgroup /a".to_owned()];
        assert_eq!(
            last_words(3, &left),
            "\nStopped after 3 events. Still there: 2 programs; the cgroup /a.\n"
        );
    }
}
