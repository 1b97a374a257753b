//! What this process holds of BPF, and whether the kernel still has it once it was let go.

use std::collections::BTreeSet;

use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};

use crate::error::{During, Result};

/// Programs, tables and links, by the kernel's ids, which it never gives twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    programs: BTreeSet<u32>,
    tables: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Held {
    /// All of which this process has a descriptor now.
    ///
    /// # Errors
    /// When /proc does not tell its descriptors.
    pub fn by_this_process() -> Result<Self> {
        let mut held = Self::default();
        let descriptors =
            std::fs::read_dir("/proc/self/fdinfo").during(|| "listing descriptors".to_owned())?;
        for descriptor in descriptors.flatten() {
            // One may be closed between the listing and the read.
            held.take(&std::fs::read_to_string(descriptor.path()).unwrap_or_default());
        }
        Ok(held)
    }

    /// Reads what proc(5) says of one descriptor.
    fn take(&mut self, info: &str) {
        let id = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        // A link's description names its program as well, which need not be this process's own.
        match (id("link_id:"), id("map_id:"), id("prog_id:")) {
            (Some(link), ..) => self.links.insert(link),
            (_, Some(table), _) => self.tables.insert(table),
            (_, _, Some(program)) => self.programs.insert(program),
            _ => false,
        };
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.programs.len() + self.tables.len() + self.links.len()
    }

    /// How many of them the kernel has now. It frees programs a moment after the last descriptor is closed. Where it does not
    /// let them be looked for (without root) there are none.
    #[must_use]
    pub fn left(&self) -> usize {
        if self.count() == 0 {
            return 0;
        }
        ProgInfoIter::default().filter(|program| self.programs.contains(&program.id)).count()
            + MapInfoIter::default().filter(|table| self.tables.contains(&table.id)).count()
            + LinkInfoIter::default().filter(|link| self.links.contains(&link.id)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_bpf_are_told_from_others() {
        let mut held = Held::default();
        held.take("pos:\t0\nflags:\t02000002\nprog_type:\t26\nprog_id:\t7\n");
        held.take("pos:\t0\nlink_type:\ttracing\nlink_id:\t3\nprog_tag:\tab\nprog_id:\t8\n");
        held.take("map_type:\t1\nmap_id:\t5\nfrozen:\t0\n");
        held.take("pos:\t0\nflags:\t0100000\nmnt_id:\t29\n");
        held.take("");
        let set = |id| BTreeSet::from([id]);
        assert_eq!(held, Held { programs: set(7), tables: set(5), links: set(3) });
        assert_eq!(held.count(), 3);
    }
}
