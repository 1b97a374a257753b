//! Which files can be code.

/// How many first bytes of a file [`code_kind`] looks at.
pub const HEAD_BYTES: usize = 4;

/// Why a file can be code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CodeKind {
    /// It is an ELF object: a program, a library, a kernel module, a BPF object.
    Elf,
    /// It names an interpreter in its first line.
    Script,
    /// Its name is one that interpreters, the dynamic linker or the module loader load.
    Name,
    /// It may be executed, whatever it is.
    ExecutableBit,
}

/// Endings of what interpreters and virtual machines load.
const ENDINGS: [&str; 37] = [
    "py", "pyc", "pyo", "pyw", "pyz", "pl", "pm", "ph", "al", "rb", "js", "mjs", "cjs", "node", "php",
    "phtml", "phar", "inc", "jar", "war", "ear", "class", "jmod", "jsa", "sh", "bash", "zsh", "lua", "luac",
    "tcl", "awk", "gawk", "el", "elc", "scm", "exe", "dll",
];

/// Those of them that interpreters are told to run; the others are loaded by what they run.
const SCRIPTS: [&str; 16] = [
    "sh", "bash", "zsh", "py", "pyz", "pl", "php", "phar", "js", "mjs", "cjs", "rb", "lua", "tcl", "awk",
    "jar",
];

/// Endings that a kernel module may have behind `.ko`.
const PACKED: [&str; 3] = ["gz", "xz", "zst"];

/// Endings of what is data by any account: text, pictures, compiled messages, headers, static libraries.
const DATA: [&str; 40] = [
    "gz", "html", "htm", "h", "hpp", "hh", "hxx", "tcc", "mo", "po", "pot", "png", "svg", "svgz", "jpg",
    "jpeg", "gif", "ico", "xpm", "ttf", "otf", "pfb", "afm", "woff", "woff2", "txt", "md", "rst", "tex",
    "pdf", "json", "xml", "xsl", "css", "yaml", "yml", "conf", "desktop", "a", "page",
];

/// Whether the file's name says that it is data and its mode does not say otherwise. It need not be opened then, which
/// on a cold disk is a seek for each of tens of thousands of files. What hides as such a file and is loaded all the same
/// is code that nothing vouches for.
pub fn is_named_as_data(path: &[u8], mode: u32) -> bool {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let ending = name.rsplit(|b| *b == b'.').next().unwrap_or(name);
    mode & 0o111 == 0
        && ending.len() < name.len()
        && DATA.iter().any(|e| ending.eq_ignore_ascii_case(e.as_bytes()))
        && !has_name_of_code(path)
}

/// Whether interpreters are told to run files of such names.
pub fn is_named_as_script(path: &[u8]) -> bool {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let ending = name.rsplit(|b| *b == b'.').next().unwrap_or(name);
    ending.len() < name.len() && SCRIPTS.iter().any(|e| ending.eq_ignore_ascii_case(e.as_bytes()))
}

/// Why the file can be code, or `None` for data. `mode` is `st_mode`, `head` the first [`HEAD_BYTES`] of its content, or
/// fewer where it is shorter.
pub fn code_kind(path: &[u8], mode: u32, head: &[u8]) -> Option<CodeKind> {
    if head.starts_with(b"\x7fELF") {
        Some(CodeKind::Elf)
    } else if head.starts_with(b"#!") {
        Some(CodeKind::Script)
    } else if has_name_of_code(path) {
        Some(CodeKind::Name)
    } else if mode & 0o111 != 0 {
        Some(CodeKind::ExecutableBit)
    } else {
        None
    }
}

fn has_name_of_code(path: &[u8]) -> bool {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    // What precedes the first dot is no ending, as it is none in a file that is called `py`.
    let mut parts = name.split(|b| *b == b'.').skip(1).peekable();
    let mut last: &[u8] = b"";
    let mut before: &[u8] = b"";
    while let Some(part) = parts.next() {
        // A library's version follows its ending: libz.so.1.2.
        if part == b"so" && parts.peek().is_none_or(|next| next.first().is_some_and(u8::is_ascii_digit)) {
            return true;
        }
        before = last;
        last = part;
    }
    let is = |ending: &str| last.eq_ignore_ascii_case(ending.as_bytes());
    last == b"ko" || (before == b"ko" && PACKED.iter().any(|e| is(e))) || ENDINGS.iter().any(|e| is(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_or_is_loaded_is_code() {
        for (path, mode, head, kind) in [
            ("/usr/bin/ls", 0o100755, &b"\x7fELF"[..], Some(CodeKind::Elf)),
            ("/usr/share/doc/x", 0o100644, b"\x7fELF", Some(CodeKind::Elf)),
            ("/usr/bin/ldd", 0o100755, b"#!/b", Some(CodeKind::Script)),
            ("/usr/share/x/example", 0o100644, b"#! /", Some(CodeKind::Script)),
            ("/usr/lib/libz.so", 0o100644, b"/* G", Some(CodeKind::Name)),
            ("/usr/lib/libz.so.1.2.13", 0o100644, b"", Some(CodeKind::Name)),
            ("/lib/modules/6.1/a.ko", 0o100644, b"", Some(CodeKind::Name)),
            ("/lib/modules/6.1/a.ko.xz", 0o100644, b"\xfd7zX", Some(CodeKind::Name)),
            ("/lib/modules/6.1/a.ko.txt", 0o100644, b"", None),
            ("/usr/lib/python3/os.py", 0o100644, b"r\"\"\"", Some(CodeKind::Name)),
            ("/srv/UPLOAD.PHP", 0o100644, b"<?ph", Some(CodeKind::Name)),
            ("/usr/share/java/a.b.jar", 0o100644, b"PK\x03\x04", Some(CodeKind::Name)),
            ("/usr/bin/odd", 0o100750, b"", Some(CodeKind::ExecutableBit)),
            ("/usr/share/man/man1/ls.1.gz", 0o100644, b"\x1f\x8b\x08\x00", None),
            ("/etc/passwd", 0o100644, b"root", None),
            ("/usr/share/so", 0o100644, b"", None),
            ("/usr/share/x.so.conf", 0o100644, b"", None),
            ("/home/u/.sh", 0o100644, b"", Some(CodeKind::Name)),
            ("", 0, b"", None),
        ] {
            assert_eq!(code_kind(path.as_bytes(), mode, head), kind, "{path}");
        }
    }

    #[test]
    fn what_interpreters_are_told_to_run_is_told_from_what_they_load() {
        for (path, script) in [
            ("/usr/share/x/run.sh", true),
            ("/srv/UPLOAD.PHP", true),
            ("/usr/share/java/a.b.jar", true),
            ("/usr/share/perl5/Debconf/Log.pm", false),
            ("/usr/lib/python3/__pycache__/os.cpython-311.pyc", false),
            ("/home/u/sh", false),
            ("", false),
        ] {
            assert_eq!(is_named_as_script(path.as_bytes()), script, "{path}");
        }
    }

    #[test]
    fn only_what_neither_name_nor_mode_call_code_is_left_unopened() {
        for (path, mode, data) in [
            ("/usr/share/man/man1/ls.1.gz", 0o100644, true),
            ("/usr/share/man/man1/ls.1.gz", 0o100755, false),
            ("/lib/modules/6.1/a.ko.gz", 0o100644, false),
            ("/usr/share/x/LOGO.PNG", 0o100644, true),
            ("/usr/share/x/png", 0o100644, false),
            ("/usr/lib/bpf/x.o", 0o100644, false),
            ("/usr/lib/x.py", 0o100644, false),
        ] {
            assert_eq!(is_named_as_data(path.as_bytes(), mode), data, "{path}");
        }
    }
}
