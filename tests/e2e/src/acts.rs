//! Which of an incident's actions a test means.

use std::path::Path;

use davy_model::Action;

/// Ends the tree of this process.
pub fn kills(pid: u32) -> impl Fn(&Action) -> bool {
    move |action| matches!(action, Action::Kill { root, .. } if root.pid == pid)
}

/// Freezes the tree of this process.
pub fn freezes(pid: u32) -> impl Fn(&Action) -> bool {
    move |action| matches!(action, Action::Freeze { root, .. } if root.pid == pid)
}

/// Takes this file into quarantine.
pub fn puts_away(program: &Path) -> impl Fn(&Action) -> bool {
    let program = program.display().to_string();
    move |action| matches!(action, Action::Quarantine { path, .. } if *path == program)
}
