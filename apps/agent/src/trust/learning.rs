//! How far learning the package manager's database is.

use davy_pkgdb::{Progress, Summary};

/// How far it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Learning {
    state: State,
    /// What went wrong as a whole.
    pub(super) fault: Option<String>,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Before,
    At(Progress),
    Over(String),
    Without,
}

impl Learning {
    /// So far.
    pub(super) fn at(progress: Progress) -> Self {
        Self { state: State::At(progress), fault: None }
    }

    /// Done.
    pub(super) fn over(summary: &Summary, seconds: f64) -> Self {
        let words =
            format!("{} packages, {} files of code read in {seconds:.1} s", summary.packages, summary.hashed);
        Self { state: State::Over(words), fault: None }
    }

    /// There is no package manager here, or its database cannot be read.
    pub(super) fn without(fault: Option<String>) -> Self {
        Self { state: State::Without, fault }
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match &self.state {
            State::Before => "packages are about to be read".to_owned(),
            State::At(progress) => format!(
                "reading packages: {} so far, {} files of code, {} MiB",
                progress.packages,
                progress.files,
                progress.bytes >> 20
            ),
            State::Over(words) => words.clone(),
            State::Without => "no package manager's database is known here".to_owned(),
        }
    }
}
