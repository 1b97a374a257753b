//! One plain look at the busiest trees, for pipes and for terminals without cursor control.

use davy_wire::{BusyTree, TopView};

use crate::answer::Answering;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{amount, events};

/// The snapshot.
pub(crate) fn page(view: &TopView, answering: &Answering) -> Page {
    let mut page = Page::new();
    page.push(Line::in_role(Role::Strong, answering.clock.moment(view.time)).and(
        Role::Plain,
        format!(
            "  {}, {} events/s",
            amount::of(view.cpus.into(), "CPU", "CPUs"),
            amount::count(view.event_rate.max(0.0).round() as u64)
        ),
    ));
    if view.trees.is_empty() {
        page.push(Line::of("Nothing computes."));
    } else {
        page.extend(trees(&view.trees).lines(answering.width));
    }
    if !view.blocked.is_empty() {
        page.gap();
        page.extend(
            Line::in_role(Role::Quiet, "blocked: ")
                .and(Role::Plain, view.blocked.join(", "))
                .wrap(answering.width),
        );
    }
    page
}

fn trees(trees: &[BusyTree]) -> Table {
    use Column::{Fill, Left, Right};
    let mut table = Table::new(0, &[Right, Right, Right, Left, Right, Left, Fill]);
    table.headings(&["cpu", "threads", "mining", "program", "pid", "user", "evidence and connections"]);
    for tree in trees {
        let (role, sure) = certainty(tree);
        table.row(vec![
            Line::of(format!("{:.2}", tree.cpu)),
            Line::of(tree.threads.to_string()),
            Line::in_role(role, sure),
            Line::in_role(Role::Strong, &tree.comm),
            Line::of(tree.root.pid.to_string()),
            Line::of(&tree.user),
            Line::of(remarks(tree)),
        ]);
    }
    table
}

/// How sure it is that a tree mines, and the role to show it in.
pub(crate) fn certainty(tree: &BusyTree) -> (Role, String) {
    let role = match tree.confidence {
        p if p >= 0.9 => Role::Alarm,
        p if p >= 0.1 => Role::Warning,
        _ => Role::Quiet,
    };
    (role, amount::percent(tree.confidence))
}

fn remarks(tree: &BusyTree) -> String {
    let stopped = tree.stopped.then(|| "stopped".to_owned());
    let flows = tree.flows.iter().take(3).map(|f| format!("to {} ({})", f.remote, events::volume(&f.volume)));
    let all: Vec<String> =
        stopped.into_iter().chain(tree.evidence.iter().take(3).cloned()).chain(flows).collect();
    if all.is_empty() { tree.path.clone() } else { all.join("; ") }
}
