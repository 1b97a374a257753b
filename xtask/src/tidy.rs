//! The rules of the house. Each module is one rule: it looks at the whole [`House`] and says what breaks it.

mod direction;
mod length;
mod manifests;
mod promises;
mod purity;
mod rooms;
mod unsafety;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::house::House;

/// Something that breaks a rule, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The file or room, with a line where there is one.
    place: String,
    /// What is wrong, and what to do.
    message: String,
}

impl Fault {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// What an inspection found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What breaks a rule.
    pub(crate) faults: Vec<Fault>,
    /// What does not yet.
    pub(crate) advice: Vec<Fault>,
    /// How many promises in the documents are bound to a test.
    pub(crate) promises: usize,
}

/// Checks every rule.
pub(crate) fn inspect(house: &House) -> Report {
    let mut report = Report::default();
    direction::check(house, &mut report);
    purity::check(house, &mut report);
    unsafety::check(house, &mut report);
    manifests::check(house, &mut report);
    rooms::check(house, &mut report);
    length::check(house, &mut report);
    promises::check(house, &mut report);
    report
}
