//! A process tree drawn with lines.

use davy_model::TreeNode;

use crate::page::{Line, Role};
use crate::table::{Column, Table};

/// Deeper nodes than this are drawn at this depth: a hostile tree must not push its text off the screen.
const DEEPEST: u32 = 16;

/// The tree, a line for each process, given depth first.
pub(crate) fn lines(nodes: &[TreeNode], width: usize) -> Vec<Line> {
    let mut table = Table::new(2, &[Column::Left, Column::Fill, Column::Left]);
    let depths: Vec<u32> = nodes.iter().map(|node| node.depth).collect();
    for (at, node) in nodes.iter().enumerate() {
        let role = if node.suspect { Role::Alarm } else { Role::Plain };
        let name = Line::in_role(Role::Quiet, branch(&depths, at))
            .and(role, &node.comm)
            .and(Role::Quiet, format!(" {}", node.process.pid));
        let mut mark = if node.suspect { Line::in_role(Role::Alarm, "suspect") } else { Line::new() };
        if !node.alive {
            mark = mark.and(Role::Quiet, if node.suspect { ", gone" } else { "gone" });
        }
        table.row(vec![name, Line::of(&node.path), mark]);
    }
    table.lines(width)
}

/// The lines left of a node, of all nodes by their depths, given depth first: `│  └─ `.
pub(crate) fn branch(depths: &[u32], at: usize) -> String {
    let depth = depths[at].min(DEEPEST);
    let mut out = String::new();
    for level in 1..=depth {
        let more = depths[at + 1..]
            .iter()
            .map(|depth| (*depth).min(DEEPEST))
            .find(|d| *d <= level)
            .is_some_and(|d| d == level);
        out.push_str(match (level == depth, more) {
            (true, true) => "├─ ",
            (true, false) => "└─ ",
            (false, true) => "│  ",
            (false, false) => "   ",
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Page;
    use davy_model::ProcessKey;

    fn node(depth: u32, comm: &str, suspect: bool) -> TreeNode {
        TreeNode {
            depth,
            process: ProcessKey { pid: 10 + depth, start_ticks: 1, boot: 1 },
            comm: comm.to_owned(),
            path: format!("/usr/bin/{comm}"),
            suspect,
            alive: !suspect,
        }
    }

    #[test]
    fn draws_siblings_and_their_children() {
        let nodes =
            [node(0, "sshd", false), node(1, "bash", false), node(2, "xmr", true), node(1, "cron", false)];
        let mut page = Page::new();
        page.extend(lines(&nodes, 80));
        let expected = "  sshd 10       /usr/bin/sshd\n  \
                          ├─ bash 11    /usr/bin/bash\n  \
                          │  └─ xmr 12  /usr/bin/xmr   suspect, gone\n  \
                          └─ cron 11    /usr/bin/cron\n";
        assert_eq!(page.print(false), expected);
    }
}
