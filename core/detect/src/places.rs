//! What the place of a program's file says about it.

/// Folders that anyone may write to.
const SHARED: [&str; 8] = [
    "/tmp/",
    "/var/tmp/",
    "/dev/shm/",
    "/dev/mqueue/",
    "/run/user/",
    "/run/lock/",
    "/run/shm/",
    "/var/lock/",
];

/// Folders that web servers serve from, where uploads land.
const WEB: [&str; 4] = ["/var/www/", "/srv/www/", "/srv/http/", "/usr/share/nginx/html/"];

/// Hidden folders that programs of their users are at home in.
const HOMELY: [&str; 22] = [
    ".local",
    ".cargo",
    ".rustup",
    ".nvm",
    ".pyenv",
    ".rbenv",
    ".asdf",
    ".sdkman",
    ".npm",
    ".cache",
    ".config",
    ".vscode",
    ".vscode-server",
    ".cursor-server",
    ".dotnet",
    ".jdks",
    ".steam",
    ".bun",
    ".deno",
    ".go",
    ".linuxbrew",
    ".venv",
];

/// What is odd about a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing.
    Plain,
    /// A folder anyone may write to.
    Shared,
    /// A hidden folder.
    Hidden,
    /// A folder that a web server serves from.
    Web,
}

/// Judges a path.
pub(crate) fn place(path: &str) -> Place {
    if SHARED.iter().any(|folder| path.starts_with(folder)) {
        Place::Shared
    } else if hidden(path) {
        Place::Hidden
    } else if WEB.iter().any(|folder| path.starts_with(folder)) {
        Place::Web
    } else {
        Place::Plain
    }
}

fn hidden(path: &str) -> bool {
    path.starts_with('/')
        && path
            .split('/')
            .any(|part| part.starts_with('.') && part != "." && part != ".." && !HOMELY.contains(&part))
        && !path.split('/').any(|part| HOMELY.contains(&part))
}
