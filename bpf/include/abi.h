/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * The layout shared with user space, and the only one. host/kernel mirrors it in abi.rs; a test compares both
 * with the compiler's type information. Every field is naturally aligned, so there is no hidden padding.
 */
#ifndef DAVY_ABI_H
#define DAVY_ABI_H

#define DAVY_ABI_VERSION 1

/* Bounds, in bytes. */
#define ARGS_MAX 2048
#define ENV_MAX 4096
#define PATH_BYTES_MAX 1024
#define PATH_COMPONENTS_MAX 32
#define CAPTURE_MAX 2048
#define NAME_ANSWER_MAX 2048

/* Bounds, in entries. */
#define AGGREGATES_MAX 4096
#define ISOLATED_MAX 64
#define ISOLATION_KEEPS_MAX 4096
#define NAMELESS_SCOPES_MAX 1024
#define NAMELESS_RUNTIMES_MAX 64
#define NAMELESS_ENDED_MAX 1024
#define OUTBOUND_RULES_MAX 512
#define OUTBOUND_SUBJECTS_MAX 4096
#define OUTBOUND_ATTEMPTS_MAX 4096
#define OUTBOUND_NAMED_MAX 16384
#define OUTBOUND_ANSWERED_MAX 4096

enum record_kind {
    RECORD_FORK = 1,
    RECORD_EXEC = 2,
    RECORD_EXIT = 3,
    RECORD_RENAME = 4,
    RECORD_SIGNAL = 5,
    RECORD_MODULE = 6,
    RECORD_DEVICE = 7,
    RECORD_FLOW_OPEN = 8,
    RECORD_LISTEN = 9,
    RECORD_FLOW_CHUNK = 10,
    RECORD_FLOW_CLOSE = 11,
    RECORD_NAME_ANSWER = 12,
    RECORD_TRACE = 13,
    RECORD_WRITTEN_CODE = 14,
    RECORD_DENIED = 15,
    RECORD_JUDGED = 16,
    RECORD_KINDS = 17,
};

/* Why a record was not delivered. */
enum loss {
    LOSS_FULL = 0,
    LOSS_THROTTLED = 1,
    LOSSES = 2,
};

/* Begins every record. `start` is the group leader's start in nanoseconds of the boot-time clock. */
struct record_head {
    u16 kind;
    u16 version;
    u32 pid;
    u64 time;
    u64 start;
};

struct fork_record {
    struct record_head head;
    u64 child_start;
    u32 child;
    u32 reserved;
    char comm[16];
};

/* Followed by args, env, exe path components and cwd components, each of the length given. */
struct exec_record {
    struct record_head head;
    u64 parent_start;
    u64 caps;
    u64 cgroup;
    u64 ino;
    u32 parent;
    u32 dev;
    u32 uid;
    u32 euid;
    u32 gid;
    u32 login_uid;
    u32 session;
    u32 ns_pid;
    u32 ns_mnt;
    u32 ns_net;
    u32 ns_user;
    u32 nlink;
    u16 args_len;
    u16 env_len;
    u16 exe_len;
    u16 cwd_len;
    u8 args_cut;
    u8 env_cut;
    u8 memfd;
    u8 has_audit;
    u8 exe_cut;
    u8 cwd_cut;
    u8 reserved[2];
    char comm[16];
    char tty[32];
};

struct exit_record {
    struct record_head head;
    u64 cpu_ns;
    u32 code;
    u32 reserved;
};

struct rename_record {
    struct record_head head;
    char comm[16];
};

struct signal_record {
    struct record_head head;
    u64 target_start;
    u32 target;
    u32 signal;
};

struct module_record {
    struct record_head head;
    char name[56];
};

struct device_record {
    struct record_head head;
    u32 major;
    u32 minor;
    u32 write;
    u32 reserved;
};

/*
 * Addresses are IPv6 in network order, IPv4 as mapped (RFC 4291, 2.5.5.2); ports in host order. An accepted flow has
 * no process: user space knows who listens on its port in its network namespace.
 */
struct flow_record {
    struct record_head head;
    u64 cookie;
    u8 local[16];
    u8 remote[16];
    u16 local_port;
    u16 remote_port;
    u32 netns;
    u8 udp;
    u8 accepted;
    u8 reserved[6];
};

/* Payload bytes, and packets that carried some. */
struct volume {
    u64 sent_bytes;
    u64 received_bytes;
    u64 sent_packets;
    u64 received_packets;
};

struct flow_close_record {
    struct record_head head;
    u64 cookie;
    struct volume volume;
};

/* Flows that are counted together: of one process to one destination, or accepted at one port. */
struct aggregate_key {
    /* The destination; zero for accepted ones. */
    u8 address[16];
    u64 start;
    /* The process, or the network namespace for accepted ones. */
    u32 owner;
    u16 port;
    u8 udp;
    u8 accepted;
};

/* Counts only grow. `touched` is when a flow last began. Times in nanoseconds of the boot-time clock. */
struct aggregate {
    u64 arrival;
    u64 touched;
    u64 flows;
    struct volume volume;
};

/* Followed by `captured` bytes. */
struct flow_chunk_record {
    struct record_head head;
    u64 cookie;
    u64 offset;
    u32 size;
    u16 captured;
    u8 received;
    u8 udp;
};

/* Followed by `captured` bytes of a DNS message. */
struct name_answer_record {
    struct record_head head;
    u32 captured;
    u32 reserved;
};

struct trace_record {
    struct record_head head;
    u64 target_start;
    u32 target;
    u32 write;
};

struct written_code_record {
    struct record_head head;
    u64 bytes;
};

/* What a self-protection program refused. */
enum denied_act {
    DENIED_SIGNAL = 1,
    DENIED_TRACE = 2,
    DENIED_FILE = 3,
    DENIED_BPF = 4,
};

struct denied_record {
    struct record_head head;
    u64 target_start;
    u32 target;
    u32 act;
    u32 detail;
    u32 reserved;
};

/* One thread, written by the task iterator. */
struct thread_record {
    u64 start;
    u64 cpu_ns;
    u64 voluntary;
    u64 involuntary;
    u32 tgid;
    u32 tid;
    u32 mxcsr;
    u32 has_mxcsr;
    u32 policy;
    s32 nice;
    u32 allowed_cpus;
    u32 reserved;
};

/* Constants that user space sets before loading. */
struct settings {
    /* The processor saves extended state with a feature header. */
    u32 has_xsave;
    /* Character device majors to report; zero ends the list. */
    u32 device_majors[7];
};

struct block_key {
    u8 address[16];
    u16 port;
    u16 reserved[3];
};

/* Whom a destination is closed to; expiries in nanoseconds of the boot-time clock, zero for not closed. */
struct block_entry {
    u64 host_until;
    u64 scopes;
};

struct scoped_block_key {
    u8 address[16];
    u16 port;
    u16 reserved[3];
    u64 cgroup;
};

/* A session that stays in an isolation: who is at the other end, and this host's port. */
struct session_key {
    u8 address[16];
    u16 local_port;
    u16 reserved[3];
};

/* A network that stays in an isolation; the key of a longest-prefix-match trie. */
struct network_key {
    u32 prefix;
    u8 address[16];
};

struct file_key {
    u64 ino;
    u64 dev;
};

/* The ways in which code comes to run. */
enum code_kind {
    CODE_EXEC = 0,
    CODE_LIBRARY = 1,
    CODE_SCRIPT = 2,
    CODE_MEMORY = 3,
    CODE_NAMELESS = 4,
    CODE_MODULE = 5,
    CODE_BPF = 6,
    CODE_TRACE = 7,
    /* A program that the service it came from has no use for. */
    CODE_SERVICE = 8,
    CODE_KINDS = 9,
};

/* Why code is not trusted. */
enum code_reason {
    REASON_UNKNOWN = 1,
    REASON_BLOCKED = 2,
    REASON_OPEN_FOR_WRITING = 3,
    REASON_UNREADABLE = 4,
    REASON_NAMELESS = 5,
    REASON_UNSTABLE = 6,
    REASON_WRITTEN_MEMORY = 7,
    REASON_NOT_JUDGED = 8,
    REASON_WITHOUT_FILE = 9,
    REASON_NOT_ALLOWED = 10,
    REASON_IN_USE = 11,
    REASON_EXPIRED = 12,
    /* Trusted because of who wrote it; its digest is not known yet. */
    REASON_MARKED = 13,
};

enum code_outcome {
    OUTCOME_WOULD_DENY = 0,
    OUTCOME_DENIED = 1,
    OUTCOME_MARKED = 2,
};

enum trust_mode {
    MODE_OFF = 0,
    MODE_OBSERVE = 1,
    MODE_ENFORCE = 2,
    /* Files are read and remembered, and nothing more: how the agent has them judged before they are needed. */
    MODE_READ = 3,
};

/* Kinds of code that a scope has room for. */
#define CODE_KINDS_MAX 12

/* One mode for each kind of code. */
struct trust_scope {
    u8 modes[CODE_KINDS_MAX];
    /* Nobody below is ever judged: the agent. */
    u32 exempt;
};

/* Where a digest's verdict is. A place that is used again has another serial. */
struct digest_place {
    u32 place;
    u32 serial;
};

enum digest_verdict {
    VERDICT_NONE = 0,
    VERDICT_ALLOW = 1,
    VERDICT_DENY = 2,
};

/* What a program may do beyond running. */
#define PROGRAM_INTERPRETER 1
#define PROGRAM_TRUSTED_WRITER 2
#define PROGRAM_MAY_WRITE_AND_EXECUTE 4
#define PROGRAM_MAY_LOAD_BPF 8
#define PROGRAM_MAY_TRACE 16
#define PROGRAM_MAY_BE_NAMELESS 32
/* It is a trusted writer only while root runs it. */
#define PROGRAM_WRITES_AS_ROOT 64
/* It is a trusted writer when one started it. */
#define PROGRAM_WRITES_FOR_WRITERS 128

/*
 * `until` in seconds of the boot-time clock, zero for no end; `marks` for how many seconds what it writes is trusted.
 * `services` are the profiles whose service the program is, one bit each, and `releases` those that do not bind what it
 * begins; `classes` is what it is that services may have no use for.
 */
struct digest_judgement {
    u32 serial;
    u32 until;
    u32 flags;
    u32 marks;
    u16 source;
    u8 verdict;
    u8 classes;
    u8 reserved[4];
    u32 services;
    u32 releases;
};

/*
 * What is known of a file. `state` alone decides and is changed as one word, because the place may be taken for another
 * file at any moment; see content.h. `mapped` is when it was last mapped as code, in nanoseconds of the boot-time clock.
 */
struct file_verdict {
    u64 state;
    u64 epoch;
    u64 mapped;
    u32 generation;
    u32 reserved;
};

/* Profiles of services. */
#define PROFILES 32

/* Classes of programs that each profile has no use for. */
struct service_profiles {
    u8 forbids[PROFILES];
};

/* The profiles that bind a process, one bit each; `next` while it executes a program. */
struct service_bound {
    u32 now;
    u32 next;
};

/* Set by user space; `vouched` counts how often digests were added. */
struct trust_state {
    u32 vouched;
    u32 writers;
};

struct told_key {
    u64 ino;
    u64 dev;
    u64 what;
};

struct told {
    u64 time;
    u64 repeats;
};

enum judged_count {
    COUNT_HASHED = 0,
    COUNT_DENIED = 1,
    COUNT_WOULD_DENY = 2,
    JUDGED_COUNTS = 3,
};

/* Code that was refused, or would have been. `repeats` are acts of the same kind on the same file that were not told. */
struct judged_record {
    struct record_head head;
    u64 ino;
    u64 dev;
    u64 repeats;
    u8 sha256[32];
    u8 kind;
    u8 reason;
    u8 outcome;
    u8 has_sha256;
    u16 path_len;
    u16 reserved;
    u8 path[PATH_BYTES_MAX];
};

/* What becomes of programs without a file in a cgroup and all below it. */
enum nameless_mode {
    NAMELESS_ENFORCED = 1,
    NAMELESS_EXEMPT = 2,
};

/* A program that was ended before its first instruction. `failed`: the signal could not be sent. */
struct ended {
    u64 time;
    struct file_key file;
    u32 pid;
    u32 failed;
};

/* How somebody looks for what answers here, and what became of it. */
enum probe_kind {
    PROBE_SYN = 1,
    PROBE_FIN = 2,
    PROBE_NULL = 3,
    PROBE_XMAS = 4,
    PROBE_ACK = 5,
    PROBE_MAIMON = 6,
    /* Flags that no connection has together, and echo requests with a code. */
    PROBE_ODD = 7,
    /* A TCP header cut into fragments. */
    PROBE_FRAGMENT = 8,
    PROBE_UDP = 9,
    PROBE_ECHO = 10,
    PROBE_TIMESTAMP = 11,
    PROBE_MASK = 12,
    /* A protocol of IP other than TCP, UDP and ICMP; its number stands for the port. */
    PROBE_PROTOCOL = 13,
    ANSWER_OPEN = 14,
    ANSWER_REFUSED = 15,
    /* Somebody answered this host's SYN-ACK by its number, which only who received it knows. */
    ANSWER_HANDSHAKE = 16,
};

/* The first of its kind from an address to a port. */
struct probe_key {
    u8 source[16];
    u8 local[16];
    u16 port;
    u8 kind;
    u8 protocol;
};

/* `seen` are the probes of this source so far, told or not; `open` says that the port took connections lately. */
struct probe_record {
    u64 time;
    struct probe_key key;
    u32 sequence;
    u32 seen;
    u16 source_port;
    u16 window;
    u16 ip_id;
    u8 ttl;
    u8 header_words;
    u8 first_option;
    u8 dont_fragment;
    u8 open;
    u8 proven;
};

/* With whom this host talks at which of its ports. */
struct talk_key {
    u8 remote[16];
    u16 port;
    u8 protocol;
    u8 reserved;
};

/* What the watching program counts. */
enum probe_count {
    /* Sources that only visit what is open are sampled. */
    COUNT_SAMPLED = 0,
    COUNT_THROTTLED = 1,
    COUNT_FULL = 2,
    PROBE_COUNTS = 3,
};

/* Rules of the outbound allow-list, one bit each. */
struct rule_set {
    u64 words[OUTBOUND_RULES_MAX / 64];
};

enum outbound_mode {
    OUTBOUND_OFF = 0,
    OUTBOUND_OBSERVE = 1,
    OUTBOUND_ENFORCE = 2,
};

enum outbound_protocol {
    OUTBOUND_TCP = 0,
    OUTBOUND_UDP = 1,
    OUTBOUND_RAW = 2,
    OUTBOUND_PROTOCOLS = 3,
};

/* Names and paths are filled up with zeros. */
struct unit_key {
    char name[128];
};

struct container_key {
    char id[12];
    u32 reserved;
};

struct place_key {
    char path[256];
};

struct port_key {
    u16 port;
    u8 protocol;
    u8 reserved;
};

struct destination_key {
    u32 bits;
    u8 address[16];
};

/* A name as it stands in a DNS message without the root, lower case, from its last byte to its first. */
struct name_key {
    u32 bits;
    u8 reversed[256];
};

/* `strictest` is the highest mode that holds anywhere; `epoch` changes with what holds where. */
struct outbound_state {
    struct rule_set any_unit;
    struct rule_set any_container;
    struct rule_set any_user;
    struct rule_set any_port[OUTBOUND_PROTOCOLS];
    u32 epoch;
    u32 everywhere;
    u32 strictest;
    u32 reserved;
};

/* An address in a network namespace, by the kernel's cookie of that. */
struct named_key {
    u64 net;
    u8 address[16];
};

/* `until` in nanoseconds of the boot-time clock. */
struct named {
    struct rule_set rules;
    u64 until;
};

struct answered_key {
    u64 net;
    u8 address[16];
    u8 reversed[256];
};

/* Connections without a rule. The address is unspecified for sockets that are neither TCP nor UDP. */
struct attempt_key {
    u8 address[16];
    u64 cgroup;
    u32 uid;
    u16 port;
    u8 protocol;
    u8 refused;
};

/* Times in nanoseconds of the boot-time clock; the process is the one that tried last. */
struct attempt {
    u64 last;
    u64 count;
    u64 start;
    u32 pid;
    u32 reserved;
    char comm[16];
};

#endif
