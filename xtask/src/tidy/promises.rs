//! What the documents promise is proven by a test.
//!
//! A promise names its proof in an HTML comment, `<!-- proven-by: path/to/file.rs::test_name -->`, which readers
//! do not see. A paragraph that says `**Promise` must carry one, and so must each item of README.md, which lists what
//! Davy does; every one named must exist as a test.

use super::{Fault, Report};
use crate::house::{House, TextFile};

const MARK: &str = "<!-- proven-by:";

/// The document whose list items are promises.
const LISTS: &str = "README.md";

pub(super) fn check(house: &House, report: &mut Report) {
    for file in house.files.iter().filter(|f| f.ending() == "md") {
        for (number, line) in prose(&file.text) {
            for comment in line.split(MARK).skip(1) {
                let place = format!("{}:{number}", file.path);
                let Some((proofs, _)) = comment.split_once("-->") else {
                    report.faults.push(Fault::new(place, "a proven-by comment does not end on its line"));
                    continue;
                };
                for proof in proofs.split(',').map(str::trim) {
                    match missing(house, proof) {
                        None => report.promises += 1,
                        Some(why) => report.faults.push(Fault::new(&place, why)),
                    }
                }
            }
        }
        let paragraphs = paragraphs(&file.text);
        let promised = paragraphs.iter().filter(|(_, paragraph)| paragraph.contains("**Promise")).cloned();
        let listed = paragraphs.iter().filter(|_| file.path == LISTS).flat_map(items);
        for (number, promise) in promised.chain(listed) {
            if !promise.contains(MARK) {
                report.faults.push(Fault::new(
                    format!("{}:{number}", file.path),
                    format!("promises without proof: add `{MARK} path/to/file.rs::test_name -->`"),
                ));
            }
        }
    }
}

/// Why `proof` proves nothing; `None` when it names a test.
fn missing(house: &House, proof: &str) -> Option<String> {
    let Some((path, name)) = proof.split_once("::") else {
        return Some(format!("`{proof}` is not of the form path/to/file.rs::test_name"));
    };
    let Some(file) = house.file(path) else {
        return Some(format!("proven by {path}, which does not exist"));
    };
    let test = name.rsplit("::").next().unwrap_or(name);
    (!has_test(file, test))
        .then(|| format!("proven by {path}::{name}, but there is no such test in that file"))
}

/// Whether `file` holds a test function of this name, or (for harnesses that make their tests from data) a case
/// whose name is written out as a string.
fn has_test(file: &TextFile, name: &str) -> bool {
    let lines: Vec<&str> = file.text.lines().collect();
    let function = format!("fn {name}(");
    let case = format!("\"{name}\"");
    let in_proptest = file.text.contains("proptest!");
    lines.iter().enumerate().any(|(i, line)| {
        let code = line.trim_start();
        if code.starts_with("//") {
            return false;
        }
        // Attributes and comments stand right above their function; anything else belongs to the one before.
        let mut above = lines[..i].iter().rev().map(|l| l.trim_start());
        let mut is_test = || {
            above
                .by_ref()
                .take_while(|l| l.starts_with("#[") || l.starts_with("//"))
                .any(|l| l.contains("test"))
        };
        code.contains(&function) && (in_proptest || is_test()) || code.contains(&case)
    })
}

/// The lines outside of fenced code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(i, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((i + 1, line))
    })
}

/// Runs of prose lines without an empty one between, each with the number of its first line.
fn paragraphs(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut last = 0;
    for (number, line) in prose(text).filter(|(_, line)| !line.trim().is_empty()) {
        match found.last_mut() {
            Some((_, paragraph)) if number == last + 1 => {
                paragraph.push('\n');
                paragraph.push_str(line);
            }
            _ => found.push((number, line.to_owned())),
        }
        last = number;
    }
    found
}

/// The items of a list in a paragraph, each with what follows up to the next.
fn items((first, paragraph): &(usize, String)) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (number, line) in (*first..).zip(paragraph.lines()) {
        if line.starts_with("- ") {
            found.push((number, String::new()));
        }
        if let Some((_, item)) = found.last_mut() {
            item.push_str(line);
        }
    }
    found
}
