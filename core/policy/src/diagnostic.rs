use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// The stable code of a fault. A code keeps its meaning for ever; docs/reference/policy.md explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Code {
    /// The text is not TOML.
    #[serde(rename = "P0001")]
    Syntax,
    /// There is no such key or section.
    #[serde(rename = "P0002")]
    UnknownKey,
    /// A value of another type is expected.
    #[serde(rename = "P0003")]
    WrongType,
    /// The value is not one of those that can be.
    #[serde(rename = "P0004")]
    NotOneOf,
    /// The value lies outside its bounds.
    #[serde(rename = "P0005")]
    OutOfBounds,
    /// A duration or a size cannot be read.
    #[serde(rename = "P0006")]
    Quantity,
    /// A key that must be there is missing.
    #[serde(rename = "P0007")]
    Missing,
    /// The protection cannot enforce in this version.
    #[serde(rename = "P0008")]
    CannotEnforce,
    /// A program is to be allowed by its path.
    #[serde(rename = "P0009")]
    AllowedByPath,
    /// What a program is known by is incomplete or contradicts itself.
    #[serde(rename = "P0010")]
    Identity,
    /// A cgroup path is not one.
    #[serde(rename = "P0011")]
    Cgroup,
    /// A digest is not one.
    #[serde(rename = "P0012")]
    Digest,
    /// A date is not one.
    #[serde(rename = "P0013")]
    Date,
    /// A list file lies outside the configuration folder.
    #[serde(rename = "P0014")]
    OutsideFolder,
    /// The same thing is given twice.
    #[serde(rename = "P0015")]
    Twice,
    /// A text is empty, too long, or has characters that do not belong.
    #[serde(rename = "P0016")]
    Text,
    /// The policy is too large.
    #[serde(rename = "P0017")]
    TooLarge,
    /// A folder's path is not absolute, or not written in full.
    #[serde(rename = "P0018")]
    Folder,
    /// A port or a range of ports is not one.
    #[serde(rename = "P0019")]
    Port,
    /// An address, a network, or the name of a group is not one.
    #[serde(rename = "P0020")]
    Source,
    /// A destination of a connection is not one.
    #[serde(rename = "P0021")]
    Destination,
    /// An entry asks for what cannot be decided where it would have to be.
    #[serde(rename = "P0022")]
    Undecidable,
}

impl Code {
    /// All codes, in order.
    pub const ALL: [Self; 22] = [
        Self::Syntax,
        Self::UnknownKey,
        Self::WrongType,
        Self::NotOneOf,
        Self::OutOfBounds,
        Self::Quantity,
        Self::Missing,
        Self::CannotEnforce,
        Self::AllowedByPath,
        Self::Identity,
        Self::Cgroup,
        Self::Digest,
        Self::Date,
        Self::OutsideFolder,
        Self::Twice,
        Self::Text,
        Self::TooLarge,
        Self::Folder,
        Self::Port,
        Self::Source,
        Self::Destination,
        Self::Undecidable,
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{:04}", *self as u8 + 1)
    }
}

/// One fault of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Which kind of fault.
    pub code: Code,
    /// What is wrong, in one line.
    pub message: String,
    /// The file's name.
    pub file: String,
    /// Line, counted from one.
    pub line: u32,
    /// Column in characters, counted from one.
    pub column: u32,
    /// Bytes of the text that the fault is about.
    pub span: Range<usize>,
    /// What stands at the caret: the values that are expected.
    pub expected: String,
    /// What to do about it; empty when the message says it all.
    pub help: String,
}

/// All faults of one policy text, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    pub(crate) text: String,
    pub(crate) faults: Vec<Diagnostic>,
    pub(crate) left_out: usize,
}

impl Diagnostics {
    /// The faults; at most a hundred.
    #[must_use]
    pub fn faults(&self) -> &[Diagnostic] {
        &self.faults
    }

    /// How many faults beyond the bound were left out.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// For a terminal: each fault with its line and a caret. `colour` says whether to use ANSI colours.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(120);
        let mut out = String::new();
        for fault in &self.faults {
            let id = fault.code.to_string();
            let snippet = Snippet::source(self.text.as_str())
                .path(fault.file.as_str())
                .annotation(AnnotationKind::Primary.span(fault.span.clone()).label(fault.expected.as_str()));
            let title = Level::ERROR.primary_title(fault.message.as_str()).id(id);
            let mut group = title.element(snippet);
            if !fault.help.is_empty() {
                group = group.element(Level::HELP.message(fault.help.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        if self.left_out > 0 {
            out.push_str(&format!("and {} more faults\n", self.left_out));
        }
        out
    }

    /// For programs: an array with one object a fault.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self.faults)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}
