//! `davy completions` and `davy man`: what shells and manual readers are given.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;

use crate::answer::Answering;
use crate::failure::{Exit, Failure};
use crate::verbs::{self, Cli};

/// Completions for a shell, to standard output.
pub(crate) fn completions(asked: &verbs::Completions) -> Result<(), Failure> {
    let mut script = vec![];
    clap_complete::generate(asked.shell, &mut Cli::command(), "davy", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}

/// The manual page of `davy` to standard output, or those of all verbs into a folder.
pub(crate) fn manual(answering: &Answering, asked: &verbs::Man) -> Result<(), Failure> {
    let Some(dir) = &asked.dir else {
        let mut page = vec![];
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return Ok(io::stdout().lock().write_all(&page)?);
    };
    write_pages(dir).map_err(|e| {
        Failure::new(Exit::Failed, format!("cannot write manual pages to {}: {e}", dir.display()))
    })?;
    Ok(answering.sentence(&format!("Wrote the manual pages to {}.", dir.display()))?)
}

fn write_pages(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
