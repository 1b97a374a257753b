//! The structure of ELF files: how they were made, and what no linker does.

use davy_model::ProgramFacts;
use object::elf::{
    EM_386, EM_AARCH64, EM_ARM, EM_MIPS, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64, ET_CORE, ET_DYN, ET_EXEC,
    ET_REL, FileHeader32, FileHeader64, PF_W, PF_X, PT_INTERP, PT_LOAD, SHT_SYMTAB,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{Endianness, StringTable};

use crate::entropy::entropy;
use crate::packer;

const MAGIC: &[u8; 4] = b"\x7fELF";

/// The most libraries, embedded files and oddities that are told.
const TOLD: usize = 32;

/// A table longer than this is not counted through.
const MOST_SYMBOLS: usize = 200_000;

/// The structure of an ELF file; `None` when it is none, or its header makes no sense.
#[must_use]
pub fn facts(bytes: &[u8]) -> Option<ProgramFacts> {
    match bytes.get(..5)? {
        [0x7f, b'E', b'L', b'F', 1] => read::<FileHeader32<Endianness>>(bytes),
        [0x7f, b'E', b'L', b'F', 2] => read::<FileHeader64<Endianness>>(bytes),
        _ => None,
    }
}

/// A part of the file that is loaded.
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) address: u64,
    pub(crate) memory: u64,
    pub(crate) flags: u32,
}

fn read<H: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> Option<ProgramFacts> {
    let header = H::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let headers = header.program_headers(endian, bytes).unwrap_or_default();
    let segments: Vec<Segment> = headers
        .iter()
        .filter(|h| h.p_type(endian) == PT_LOAD)
        .map(|h| Segment {
            offset: h.p_offset(endian).into(),
            size: h.p_filesz(endian).into(),
            address: h.p_vaddr(endian).into(),
            memory: h.p_memsz(endian).into(),
            flags: h.p_flags(endian),
        })
        .collect();
    let mut facts = ProgramFacts {
        machine: machine(header.e_machine(endian)),
        kind: kind(header.e_type(endian)),
        static_linked: headers.iter().all(|h| h.p_type(endian) != PT_INTERP),
        stripped: true,
        ..ProgramFacts::default()
    };
    imports(headers, endian, bytes, &segments, &mut facts);
    let mut sectioned = 0;
    if let Ok(sections) = header.sections(endian, bytes) {
        sectioned = sections.len();
        facts.stripped = sections.iter().all(|section| section.sh_type(endian) != SHT_SYMTAB);
        if let Ok(symbols) = sections.symbols(endian, bytes, object::elf::SHT_DYNSYM) {
            let undefined = symbols.iter().take(MOST_SYMBOLS).filter(|symbol| symbol.is_undefined(endian));
            facts.imports = undefined.count() as u32;
        }
        for section in sections.iter().filter(|s| s.sh_type(endian) != object::elf::SHT_NOBITS) {
            let (offset, size) = (section.sh_offset(endian).into(), section.sh_size(endian).into());
            if offset.checked_add(size).is_none_or(|end| end > bytes.len() as u64) {
                odd(&mut facts, "a section lies beyond the end of the file");
                break;
            }
        }
    } else {
        odd(&mut facts, "its section table cannot be read");
    }
    let entry = header.e_entry(endian).into();
    segment_oddities(&segments, entry, bytes.len() as u64, &mut facts);
    let executable = segments.iter().filter(|s| s.flags & PF_X != 0).max_by_key(|s| s.size);
    facts.entropy = executable.map_or(0.0, |s| entropy(slice(bytes, s.offset, s.size)));
    let table: u64 = header.e_phoff(endian).into();
    let after = table + u64::from(header.e_phentsize(endian)) * headers.len() as u64;
    facts.packer = packer::packer(bytes, &segments, after, sectioned, facts.entropy);
    facts.language = language(bytes).map(str::to_owned);
    facts.embedded = embedded(bytes);
    Some(facts)
}

fn imports<P: ProgramHeader<Endian = Endianness>>(
    headers: &[P],
    endian: Endianness,
    bytes: &[u8],
    segments: &[Segment],
    facts: &mut ProgramFacts,
) {
    let entries = headers.iter().find_map(|h| h.dynamic(endian, bytes).ok().flatten()).unwrap_or_default();
    let value = |tag| entries.iter().find(|e| e.tag(endian) == tag).map(|e| e.d_val(endian).into());
    let (Some(address), Some(size)) = (value(object::elf::DT_STRTAB), value(object::elf::DT_STRSZ)) else {
        return;
    };
    let inside = |s: &&Segment| address >= s.address && address - s.address < s.size;
    let Some(offset) = segments.iter().find(inside).map(|s| s.offset + (address - s.address)) else { return };
    let names = StringTable::new(bytes, offset, offset.saturating_add(size));
    for entry in entries.iter().filter(|e| e.tag(endian) == object::elf::DT_NEEDED).take(TOLD) {
        let place = u32::try_from(entry.d_val(endian).into()).unwrap_or(u32::MAX);
        if let Ok(name) = names.get(place) {
            facts.libraries.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    facts.static_linked &= facts.libraries.is_empty();
}

fn segment_oddities(segments: &[Segment], entry: u64, length: u64, facts: &mut ProgramFacts) {
    if facts.kind == "relocatable" || facts.kind == "core" {
        return;
    }
    if segments.is_empty() {
        odd(facts, "it has no segment to load");
    }
    if segments.iter().any(|s| s.flags & (PF_W | PF_X) == PF_W | PF_X) {
        odd(facts, "a segment is writable and executable");
    }
    if segments.iter().any(|s| s.offset.checked_add(s.size).is_none_or(|end| end > length)) {
        odd(facts, "a segment lies beyond the end of the file");
    }
    let holds = |s: &&Segment| entry >= s.address && entry - s.address < s.memory;
    match segments.iter().find(holds) {
        Some(segment) if segment.flags & PF_X == 0 => {
            odd(facts, "it begins in a segment that is not executable")
        }
        None if entry != 0 => odd(facts, "it begins outside its segments"),
        _ => {}
    }
    let loaded = segments.iter().map(|s| s.offset.saturating_add(s.size)).max().unwrap_or(0);
    if facts.stripped && length > loaded.saturating_mul(2).max(1 << 20) {
        odd(facts, "more than half of the file is never loaded");
    }
}

fn odd(facts: &mut ProgramFacts, what: &str) {
    if facts.oddities.len() < TOLD {
        facts.oddities.push(what.to_owned());
    }
}

/// What made it, by what each tool leaves even in stripped files. Go comes first: it often has a little C in it, as Rust does.
fn language(bytes: &[u8]) -> Option<&'static str> {
    if has_go_record(bytes) {
        return Some("Go");
    }
    const MARKS: [(&[u8], &str); 3] = [(b"/rustc/", "Rust"), (b"rustc version ", "Rust"), (b"GCC: (", "C")];
    MARKS.iter().find(|(mark, _)| find(bytes, mark).is_some()).map(|(_, language)| *language)
}

/// Go's record of how a program was built: aligned, with a size of pointers and flags behind its mark. The mark alone also
/// stands in programs that look for it.
fn has_go_record(bytes: &[u8]) -> bool {
    const MARK: &[u8; 14] = b"\xff Go buildinf:";
    memchr::memmem::find_iter(bytes, MARK).any(|at| {
        let behind = bytes.get(at + MARK.len()..at + MARK.len() + 2);
        at % 16 == 0 && matches!(behind, Some([0 | 4 | 8, 0..=3]))
    })
}

/// Where further ELF files begin: their mark with a header behind it that makes sense.
fn embedded(bytes: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    let mut at = MAGIC.len();
    while let Some(more) = bytes.get(at..).and_then(|rest| find(rest, MAGIC)) {
        at += more;
        let sane = bytes.get(at..at + 20).is_some_and(sane_header);
        if sane && found.len() < TOLD {
            found.push(at as u64);
        }
        at += MAGIC.len();
    }
    found
}

/// Class, byte order, version, padding, kind and machine of an ELF header.
fn sane_header(header: &[u8]) -> bool {
    let little = header[5] == 1;
    let number = |at: usize| {
        let pair = [header[at], header[at + 1]];
        if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
    };
    matches!((header[4], header[5], header[6]), (1 | 2, 1 | 2, 1))
        && header[9..16].iter().all(|byte| *byte == 0)
        && matches!(number(16), ET_REL..=ET_CORE)
        && number(18) != 0
}

pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, wanted)
}

pub(crate) fn slice(bytes: &[u8], offset: u64, size: u64) -> &[u8] {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let to = usize::try_from(offset.saturating_add(size)).unwrap_or(usize::MAX).min(bytes.len());
    &bytes[from..to]
}

fn machine(number: u16) -> String {
    let name = match number {
        EM_X86_64 => "x86_64",
        EM_386 => "i386",
        EM_AARCH64 => "aarch64",
        EM_ARM => "arm",
        EM_MIPS => "mips",
        EM_PPC64 => "powerpc64",
        EM_RISCV => "riscv",
        EM_S390 => "s390",
        other => return format!("machine {other}"),
    };
    name.to_owned()
}

fn kind(number: u16) -> String {
    let name = match number {
        ET_EXEC => "executable",
        ET_DYN => "shared object",
        ET_REL => "relocatable",
        ET_CORE => "core",
        other => return format!("type {other}"),
    };
    name.to_owned()
}
