//! `info/PACKAGE.list`: what a package brought, a path a line.

use crate::fault::{Fault, Faults, Read};
use crate::path::is_plain;

/// Reads a list. Paths are before diversions; files, folders and links look alike. The root folder is left out.
pub fn read_list<'a>(file: &str, text: &'a [u8]) -> Read<Vec<&'a [u8]>> {
    let mut entries = Vec::new();
    let mut faults = Faults::default();
    for (number, line) in text.split(|b| *b == b'\n').enumerate() {
        if line.is_empty() || line == b"/." || line == b"/" {
            continue;
        }
        if is_plain(line) {
            entries.push(line);
        } else {
            faults.push(Fault::quoting(file, number + 1, "an absolute path", line));
        }
    }
    Read { entries, faults }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_faults() {
        let text = b"/.\n/usr\n/usr/bin/\xff x\n/usr/../etc/shadow\nrelative\n/a//b\n/nul\0\n/last";
        let read = read_list("info/x.list", text);
        assert_eq!(read.entries, [&b"/usr"[..], b"/usr/bin/\xff x", b"/last"]);
        let lines: Vec<_> = read.faults.first().iter().map(|f| f.line).collect();
        assert_eq!(lines, [4, 5, 6, 7]);
        let fault = read.faults.first()[0].to_string();
        assert_eq!(fault, "info/x.list:4: expected an absolute path, found \"/usr/../etc/shadow\"");
    }
}
