use super::set::{Element, Interval, SetKind};
use super::{Attributes, FAMILY, Rule, SUBSYSTEM, message};

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// From how many bytes of elements on a new message begins. The length of one has sixteen bits, and no element is a kilobyte long.
const ENOUGH: usize = 48 * 1024;

/// Changes that hold together or not at all.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    table: &'static str,
    /// What each message does and what it needs of the kernel, by its sequence number.
    acts: Vec<(String, &'static str)>,
    /// Where the last message's flags are.
    last: usize,
    sets: u32,
}

impl Batch {
    /// Changes of this table.
    pub(crate) fn of(table: &'static str) -> Self {
        let mut batch = Self { bytes: Vec::new(), table, acts: Vec::new(), last: 0, sets: 0 };
        batch.message(BATCH_BEGIN, 0, SUBSYSTEM, "begin a change".to_owned(), "", |_| {});
        batch
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        resource: u16,
        act: String,
        needs: &'static str,
        fill: impl FnOnce(&mut Attributes),
    ) {
        let sequence = u32::try_from(self.acts.len()).unwrap_or(u32::MAX);
        self.acts.push((act, needs));
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        self.last = self.bytes.len() + 6;
        let family = if resource == 0 { FAMILY } else { 0 };
        self.bytes.extend(header(kind, flags | REQUEST, sequence, family, resource, attributes.written()));
    }

    fn change(
        &mut self,
        kind: u16,
        flags: u16,
        act: String,
        needs: &'static str,
        fill: impl FnOnce(&mut Attributes),
    ) {
        self.message(SUBSYSTEM << 8 | kind, flags, 0, act, needs, fill);
    }

    /// Makes the table, or leaves it as it is.
    pub(crate) fn table(&mut self) -> &mut Self {
        let table = self.table;
        self.change(message::NEW_TABLE, CREATE, format!("make the table {table}"), "", |a| {
            a.text(1, table).number(2, 0);
        });
        self
    }

    /// Takes the table away with all that is in it, whether it is there or not.
    pub(crate) fn drop_table(&mut self) -> &mut Self {
        self.table();
        let table = self.table;
        self.change(message::DELETE_TABLE, 0, format!("remove the table {table}"), "", |a| {
            a.text(1, table);
        });
        self
    }

    /// Makes a chain that others jump to.
    pub(crate) fn chain(&mut self, name: &str) -> &mut Self {
        let table = self.table;
        self.change(message::NEW_CHAIN, CREATE, format!("make the chain {name}"), "", |a| {
            a.text(1, table).text(3, name);
        });
        self
    }

    /// Makes a chain that sees what arrives, before anybody decides where it goes.
    pub(crate) fn entry(&mut self, name: &str, priority: i32) -> &mut Self {
        let table = self.table;
        self.change(message::NEW_CHAIN, CREATE, format!("make the chain {name}"), "", |a| {
            a.text(1, table).text(3, name);
            a.nested(4, |hook| {
                hook.number(1, 0).bytes(2, &priority.to_be_bytes());
            });
            a.number(5, 1).text(7, "filter");
        });
        self
    }

    /// Adds a rule at the end of a chain.
    pub(crate) fn rule(&mut self, chain: &str, rule: Rule) -> &mut Self {
        let table = self.table;
        let act = format!("add the rule \"{}\"", rule.words);
        self.change(message::NEW_RULE, CREATE | APPEND, act, rule.needs, |a| {
            a.text(1, table).text(2, chain);
            a.nested(4, |list| rule.write(list));
        });
        self
    }

    /// Makes a set.
    pub(crate) fn set(&mut self, name: &str, kind: SetKind) -> &mut Self {
        let table = self.table;
        self.sets += 1;
        let id = self.sets;
        self.change(message::NEW_SET, CREATE, format!("make the set {name}"), kind.needs(), |a| {
            a.text(1, table).text(2, name);
            kind.write(a);
            a.number(10, id);
        });
        self
    }

    /// Takes everything out of a set.
    pub(crate) fn empty(&mut self, set: &str) -> &mut Self {
        let table = self.table;
        self.change(message::DELETE_ELEMENTS, 0, format!("empty the set {set}"), "", |a| {
            a.text(1, table).text(2, set);
        });
        self
    }

    /// Adds elements to a set.
    pub(crate) fn add(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(message::NEW_ELEMENTS, CREATE, format!("add to the set {set}"), set, elements)
    }

    /// Takes elements out of a set, of which every one must be there.
    pub(crate) fn take(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(message::DELETE_ELEMENTS, 0, format!("take out of the set {set}"), set, elements)
    }

    /// Adds intervals to a set. They must not overlap.
    pub(crate) fn add_intervals(&mut self, set: &str, intervals: &[Interval]) -> &mut Self {
        let elements: Vec<Element> = intervals.iter().flat_map(Interval::ends).collect();
        self.add(set, &elements)
    }

    fn elements(&mut self, kind: u16, flags: u16, act: String, set: &str, elements: &[Element]) -> &mut Self {
        let table = self.table;
        let mut waiting = elements.iter().peekable();
        while waiting.peek().is_some() {
            self.change(kind, flags, act.clone(), "", |a| {
                a.text(1, table).text(2, set);
                a.nested(3, |list| {
                    while list.written().len() < ENOUGH
                        && let Some(element) = waiting.next()
                    {
                        element.write(list);
                    }
                });
            });
        }
        self
    }

    /// The bytes to send, and what each message was about. The last change is to be acknowledged, so that it is known when the
    /// kernel has said everything.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<(String, &'static str)>) {
        let flags = u16::from_ne_bytes([self.bytes[self.last], self.bytes[self.last + 1]]) | ACKNOWLEDGE;
        self.bytes[self.last..self.last + 2].copy_from_slice(&flags.to_ne_bytes());
        self.message(BATCH_END, 0, SUBSYSTEM, "end a change".to_owned(), "", |_| {});
        (self.bytes, self.acts)
    }
}

/// A message: `struct nlmsghdr`, `struct nfgenmsg`, attributes.
pub(super) fn header(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    attributes: &[u8],
) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(20 + attributes.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}
