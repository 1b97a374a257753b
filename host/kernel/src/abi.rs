//! The records that the kernel programs write, as `bpf/include/abi.h` lays them out.
//!
//! Every field is naturally aligned and there is no padding, so a record is read from bytes without `unsafe`. A
//! test compares sizes and offsets with the type information that the C compiler left in the objects.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version that every record carries; user space and programs are built together, so others are refused.
pub(crate) const VERSION: u16 = 1;

/// Defines a record with what reading it from bytes needs, and lists its layout for the comparison with C.
macro_rules! records {
    ($($(#[$meta:meta])* struct $name:ident as $c:literal { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
            pub(crate) struct $name { $(pub(crate) $field: $type,)* }
        )*

        /// Name in C, size in bytes, and offset of each field.
        #[cfg(test)]
        pub(crate) const LAYOUTS: &[(&str, usize, &[(&str, usize)])] = &[
            $(($c, size_of::<$name>(), &[$((stringify!($field), std::mem::offset_of!($name, $field)),)*]),)*
        ];
    };
}

records! {
    /// Begins every record.
    struct Head as "record_head" { kind: u16, version: u16, pid: u32, time: u64, start: u64, }
    /// A birth.
    struct Fork as "fork_record" { head: Head, child_start: u64, child: u32, reserved: u32, comm: [u8; 16], }
    /// A program; strings follow.
    struct Exec as "exec_record" {
        head: Head, parent_start: u64, caps: u64, cgroup: u64, ino: u64, parent: u32, dev: u32, uid: u32, euid: u32,
        gid: u32, login_uid: u32, session: u32, ns_pid: u32, ns_mnt: u32, ns_net: u32, ns_user: u32, nlink: u32,
        args_len: u16, env_len: u16, exe_len: u16, cwd_len: u16, args_cut: u8, env_cut: u8, memfd: u8, has_audit: u8,
        exe_cut: u8, cwd_cut: u8, reserved: [u8; 2], comm: [u8; 16], tty: [u8; 32],
    }
    /// An end.
    struct Exit as "exit_record" { head: Head, cpu_ns: u64, code: u32, reserved: u32, }
    /// A new name.
    struct Rename as "rename_record" { head: Head, comm: [u8; 16], }
    /// A signal to another process.
    struct Signal as "signal_record" { head: Head, target_start: u64, target: u32, signal: u32, }
    /// A kernel module.
    struct Module as "module_record" { head: Head, name: [u8; 56], }
    /// A device node opened.
    struct Device as "device_record" { head: Head, major: u32, minor: u32, write: u32, reserved: u32, }
    /// A flow opened, or a socket listens.
    struct Flow as "flow_record" {
        head: Head, cookie: u64, local: [u8; 16], remote: [u8; 16], local_port: u16, remote_port: u16, netns: u32,
        udp: u8, accepted: u8, reserved: [u8; 6],
    }
    /// Payload bytes, and packets that carried some.
    struct Volume as "volume" { sent_bytes: u64, received_bytes: u64, sent_packets: u64, received_packets: u64, }
    /// A flow closed.
    struct FlowClose as "flow_close_record" { head: Head, cookie: u64, volume: Volume, }
    /// What flows are counted together by.
    struct AggregateKey as "aggregate_key" {
        address: [u8; 16], start: u64, owner: u32, port: u16, udp: u8, accepted: u8,
    }
    /// Flows that are counted together.
    struct Aggregate as "aggregate" { arrival: u64, touched: u64, flows: u64, volume: Volume, }
    /// A message; its bytes follow.
    struct FlowChunk as "flow_chunk_record" {
        head: Head, cookie: u64, offset: u64, size: u32, captured: u16, received: u8, udp: u8,
    }
    /// A DNS answer; the message follows.
    struct NameAnswer as "name_answer_record" { head: Head, captured: u32, reserved: u32, }
    /// Another process traced.
    struct Trace as "trace_record" { head: Head, target_start: u64, target: u32, write: u32, }
    /// Written memory made executable.
    struct WrittenCode as "written_code_record" { head: Head, bytes: u64, }
    /// What self-protection refused.
    struct Denied as "denied_record" {
        head: Head, target_start: u64, target: u32, act: u32, detail: u32, reserved: u32,
    }
    /// Code that was refused, or would have been.
    struct Judged as "judged_record" {
        head: Head, ino: u64, dev: u64, repeats: u64, sha256: [u8; 32], kind: u8, reason: u8, outcome: u8,
        has_sha256: u8, path_len: u16, reserved: u16, path: [u8; 1024],
    }
    /// Modes of a scope.
    struct TrustScope as "trust_scope" { modes: [u8; 12], exempt: u32, }
    /// Where a digest's verdict is.
    struct DigestPlace as "digest_place" { place: u32, serial: u32, }
    /// What is said of a digest.
    #[derive(Default)]
    struct DigestJudgement as "digest_judgement" {
        serial: u32, until: u32, flags: u32, marks: u32, source: u16, verdict: u8, classes: u8, reserved: [u8; 4],
        services: u32, releases: u32,
    }
    /// What each profile of a service has no use for.
    struct ServiceProfiles as "service_profiles" { forbids: [u8; 32], }
    /// The profiles that bind a process.
    struct ServiceBound as "service_bound" { now: u32, next: u32, }
    /// What the judging programs are told.
    struct TrustState as "trust_state" { vouched: u32, writers: u32, }
    /// A thread, from the iterator.
    struct Thread as "thread_record" {
        start: u64, cpu_ns: u64, voluntary: u64, involuntary: u64, tgid: u32, tid: u32, mxcsr: u32, has_mxcsr: u32,
        policy: u32, nice: i32, allowed_cpus: u32, reserved: u32,
    }
    /// Constants set before loading.
    #[derive(Default)]
    struct Settings as "settings" { has_xsave: u32, device_majors: [u32; 7], }
    /// A destination.
    struct BlockKey as "block_key" { address: [u8; 16], port: u16, reserved: [u16; 3], }
    /// For whom a destination is closed.
    struct BlockEntry as "block_entry" { host_until: u64, scopes: u64, }
    /// A destination within a cgroup.
    struct ScopedBlockKey as "scoped_block_key" { address: [u8; 16], port: u16, reserved: [u16; 3], cgroup: u64, }
    /// A session that stays in an isolation.
    struct SessionKey as "session_key" { address: [u8; 16], local_port: u16, reserved: [u16; 3], }
    /// A network that stays in an isolation.
    struct NetworkKey as "network_key" { prefix: u32, address: [u8; 16], }
    /// A file.
    struct FileKey as "file_key" { ino: u64, dev: u64, }
    /// Rules of the outbound allow-list.
    struct Rules as "rule_set" { words: [u64; 8], }
    /// A unit's name.
    struct UnitKey as "unit_key" { name: [u8; 128], }
    /// A container's id.
    struct ContainerKey as "container_key" { id: [u8; 12], reserved: u32, }
    /// A cgroup's path.
    struct PlaceKey as "place_key" { path: [u8; 256], }
    /// A port.
    struct PortKey as "port_key" { port: u16, protocol: u8, reserved: u8, }
    /// A prefix of addresses.
    struct DestinationKey as "destination_key" { bits: u32, address: [u8; 16], }
    /// The beginning of a reversed name.
    struct NameKey as "name_key" { bits: u32, reversed: [u8; 256], }
    /// What holds where no table has an entry.
    struct OutboundState as "outbound_state" {
        any_unit: Rules, any_container: Rules, any_user: Rules, any_port: [Rules; 3], epoch: u32, everywhere: u32,
        strictest: u32, reserved: u32,
    }
    /// An address in a network namespace.
    struct NamedKey as "named_key" { net: u64, address: [u8; 16], }
    /// The rules of names that led to an address.
    struct Named as "named" { rules: Rules, until: u64, }
    /// An answer of a name server.
    struct AnsweredKey as "answered_key" { net: u64, address: [u8; 16], reversed: [u8; 256], }
    /// A destination without a rule, and who wanted to go there.
    struct AttemptKey as "attempt_key" {
        address: [u8; 16], cgroup: u64, uid: u32, port: u16, protocol: u8, refused: u8,
    }
    /// How often, and who did last.
    struct Attempt as "attempt" { last: u64, count: u64, start: u64, pid: u32, reserved: u32, comm: [u8; 16], }
    /// A program that was ended.
    struct EndedProgram as "ended" {
        time: u64, file: FileKey, pid: u32, failed: u32,
    }
    /// An address, a port, and what was seen between them.
    struct ProbeKey as "probe_key" { source: [u8; 16], local: [u8; 16], port: u16, kind: u8, protocol: u8, }
    /// The first of its kind from an address to a port.
    struct PortProbe as "probe_record" {
        time: u64, key: ProbeKey, sequence: u32, seen: u32, source_port: u16, window: u16, ip_id: u16, ttl: u8,
        header_words: u8, first_option: u8, dont_fragment: u8, open: u8, proven: u8,
    }
    /// With whom this host talks at which of its ports.
    struct TalkKey as "talk_key" { remote: [u8; 16], port: u16, protocol: u8, reserved: u8, }
}

/// The kinds of record, as `enum record_kind`.
pub(crate) mod kind {
    pub(crate) const FORK: u16 = 1;
    pub(crate) const EXEC: u16 = 2;
    pub(crate) const EXIT: u16 = 3;
    pub(crate) const RENAME: u16 = 4;
    pub(crate) const SIGNAL: u16 = 5;
    pub(crate) const MODULE: u16 = 6;
    pub(crate) const DEVICE: u16 = 7;
    pub(crate) const FLOW_OPEN: u16 = 8;
    pub(crate) const LISTEN: u16 = 9;
    pub(crate) const FLOW_CHUNK: u16 = 10;
    pub(crate) const FLOW_CLOSE: u16 = 11;
    pub(crate) const NAME_ANSWER: u16 = 12;
    pub(crate) const TRACE: u16 = 13;
    pub(crate) const WRITTEN_CODE: u16 = 14;
    pub(crate) const DENIED: u16 = 15;
    pub(crate) const JUDGED: u16 = 16;
    pub(crate) const NAMES: [&str; 17] = [
        "unknown",
        "fork",
        "exec",
        "exit",
        "renamed",
        "signal",
        "module_load",
        "device_open",
        "flow_open",
        "listen",
        "flow_chunk",
        "flow_close",
        "name",
        "trace",
        "written_code",
        "denied",
        "code_judged",
    ];
}

/// What was seen between an address and a port, as `enum probe_kind`; probes come first, in the order of the model's kinds.
pub(crate) mod probe {
    pub(crate) const KINDS: [davy_model::PortProbeKind; 13] = {
        use davy_model::PortProbeKind::{
            Ack, Echo, Fin, Fragment, Maimon, Mask, Null, Odd, Protocol, Syn, Timestamp, Udp, Xmas,
        };
        [Syn, Fin, Null, Xmas, Ack, Maimon, Odd, Fragment, Udp, Echo, Timestamp, Mask, Protocol]
    };
    pub(crate) const ANSWER_OPEN: u8 = 14;
    pub(crate) const ANSWER_REFUSED: u8 = 15;
    pub(crate) const ANSWER_HANDSHAKE: u8 = 16;
    /// Counters, as `enum probe_count`.
    pub(crate) const SAMPLED: u32 = 0;
    pub(crate) const THROTTLED: u32 = 1;
    pub(crate) const FULL: u32 = 2;
}

/// What self-protection refused, as `enum denied_act`.
pub(crate) mod denied {
    pub(crate) const SIGNAL: u32 = 1;
    pub(crate) const TRACE: u32 = 2;
    pub(crate) const FILE: u32 = 3;
    pub(crate) const BPF: u32 = 4;
}

/// Causes of a loss, as `enum loss`, in the order of the counters.
pub(crate) const LOSSES: [&str; 2] = ["full", "throttled"];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use libbpf_rs::btf::types::{MemberAttr, Struct};
    use libbpf_rs::btf::{Btf, HasSize};

    use super::*;

    /// Name in C, size, and offsets of fields of a structure that an object's type information describes.
    fn in_c(name: &str) -> Option<(usize, Vec<(String, usize)>)> {
        let types = Btf::from_path(std::path::Path::new(env!("OUT_DIR")).join("abi.bpf.o")).unwrap();
        let found: Struct<'_> = types.type_by_name(name)?;
        let fields = found.iter().map(|member| {
            let MemberAttr::Normal { offset } = member.attr else { panic!("{name} has a bit field") };
            (member.name.unwrap().to_string_lossy().into_owned(), offset as usize / 8)
        });
        Some((found.size(), fields.collect()))
    }

    #[test]
    fn every_layout_is_the_one_of_c() {
        for (name, size, fields) in LAYOUTS {
            let (size_in_c, fields_in_c) = in_c(name).unwrap_or_else(|| panic!("no object describes {name}"));
            assert_eq!(*size, size_in_c, "size of {name}");
            let fields: Vec<_> =
                fields.iter().map(|(field, offset)| ((*field).to_owned(), *offset)).collect();
            assert_eq!(fields, fields_in_c, "fields of {name}");
        }
    }
}
