//! Everything that can be written in a policy: sections, keys, what their values may be, and a line for people.

mod kind;

use kind::{key, required, table, tables};

use crate::diagnostic::Code;

pub(crate) use kind::{Key, Kind, Section, section};

const CGROUPS: Kind = Kind::List(&Kind::Cgroup);
const FILES: Kind = Kind::List(&Kind::File);
const NAMES: Kind = Kind::List(&Kind::Text);
const ACTIONS: Kind = Kind::List(&Kind::OneOf(&["alert", "freeze", "cut", "quarantine", "kill"]));
const SOURCES: Kind = Kind::List(&Kind::OneOf(&["packages", "manifests", "learned", "writers"]));
const FOLDERS: Kind = Kind::List(&Kind::Folder);
const TRIGGERS: Kind = Kind::List(&Kind::OneOf(&["exec", "write"]));
const SEVERITY: Kind = Kind::OneOf(&["info", "low", "medium", "high", "critical"]);
const SCAN_ACTIONS: Kind = Kind::List(&Kind::OneOf(&["alert", "freeze", "quarantine", "kill"]));
const BITS: Kind = Kind::Number { min: -64.0, max: 64.0 };
const PROBABILITY: Kind = Kind::Number { min: 0.5, max: 1.0 };
const OBSERVED: &[Key] = &[key(
    "mode",
    Kind::Mode { enforce: false },
    "off or observe. Enforcing this protection is not in this version.",
)];
const DAY: u64 = 86_400;

/// The finding kinds a test can be about, as JSON names them.
const FINDINGS: Kind = Kind::OneOf(&[
    "mining",
    "pool_contact",
    "masquerade",
    "fileless",
    "persistence",
    "campaign",
    "tampering",
    "untrusted",
    "service",
    "malware",
    "scan",
    "outbound",
    "lateral",
]);

const SERVICE: Kind = Kind::OneOf(&crate::SERVICES);
const SERVICE_MODE: Kind = Kind::OneOf(&["off", "observe", "learn", "enforce"]);
const CLASS: Kind =
    Kind::OneOf(&["shell", "interpreter", "downloader", "compiler", "network_tool", "persistence_tool"]);

const PATH_REFUSED: Kind = Kind::Refused {
    code: Code::AllowedByPath,
    why: "a program cannot be allowed by its path",
    help: "whoever can write the path could put a miner there: identity is content or inode, never the path.\n\
           allow the content with `sha256 = \"…\"` (`sha256sum FILE` prints it), or the service with `unit` and `user`",
};

const PATH_REFUSED_TRUST: Kind = Kind::Refused {
    code: Code::AllowedByPath,
    why: "code cannot be allowed by its path",
    help: "whoever can write the path could put anything there: identity is content, never the path.\n\
           allow the content with `sha256 = \"…\"` (`sha256sum FILE` prints it), or, if you must, a whole `directory`",
};

const PATH_REFUSED_SCAN: Kind = Kind::Refused {
    code: Code::AllowedByPath,
    why: "a file cannot be passed over by its path",
    help: "whoever can write the path could put malware there: identity is content, never the path.\n\
           allow the content with `sha256 = \"…\"`; the finding names it, and `sha256sum FILE` prints it",
};

const NETWORKS: Kind = Kind::List(&Kind::Network);

const PATH_REFUSED_OUTBOUND: Kind = Kind::Refused {
    code: Code::AllowedByPath,
    why: "a program cannot be allowed by its path",
    help: "whoever can write the path could put anything there.\n\
           name the unit, the container or the user that it runs as: `service`, `container`, `user`",
};

const PROGRAM_REFUSED: Kind = Kind::Refused {
    code: Code::Undecidable,
    why: "a program cannot be named here in this version",
    help: "the kernel decides by the unit, the container and the user of whoever connects.\n\
           give a program a unit or a user of its own, and name that with `service` or `user`",
};

/// Every section, in the order they are written.
pub(crate) const SECTIONS: &[Section] = &[
    table("", "The policy.", &[]),
    table(
        "scope",
        "Where the policy acts. Outside of it Davy observes.",
        &[key("cgroups", CGROUPS, "cgroup v2 subtrees below the mount; none means the whole host.")],
    ),
    table(
        "mining",
        "Programs that mine.",
        &[
            key(
                "mode",
                Kind::Mode { enforce: true },
                "off, observe (say what would have been done) or enforce.",
            ),
            key("actions", ACTIONS, "What enforcing does; the order is Davy's own."),
            key("confidence", PROBABILITY, "Least probability for more than an alert."),
            key(
                "cut_for",
                Kind::Duration { min: 60, max: 365 * DAY, off: false },
                "How long a destination stays cut off.",
            ),
        ],
    ),
    tables(
        "mining.allow",
        "Mining that is wanted: known by its content, or by its service and user.",
        &[
            key("sha256", Kind::Digest, "SHA-256 of the program's file."),
            key("unit", Kind::Text, "The systemd unit it runs in; together with user."),
            key("cgroup", Kind::Cgroup, "The cgroup v2 subtree it runs in; together with user."),
            key("user", Kind::Text, "The user it runs as."),
            required("reason", Kind::Text, "Why, for whoever reads this later."),
            key("until", Kind::Date, "The last day (UTC), or the moment, it holds."),
            key("path", PATH_REFUSED, ""),
        ],
    ),
    table(
        "mining.pools",
        "Lists of pools besides Davy's own, relative to the configuration folder.",
        &[
            key("domains", FILES, "Files with one domain a line; subdomains are meant too."),
            key("hosts", FILES, "Files as hosts(5) has them."),
            key("cidrs", FILES, "Files with one address or CIDR a line."),
        ],
    ),
    table(
        "pools",
        "Connections to pools, by list, by the protocol in their first bytes, or by their shape; whoever holds them.",
        &[
            key(
                "mode",
                Kind::Mode { enforce: true },
                "off, observe (tell it) or enforce (cut it, and close the pool's address).",
            ),
            key(
                "cut_for",
                Kind::Duration { min: 60, max: 365 * DAY, off: false },
                "How long a pool's address stays cut off.",
            ),
        ],
    ),
    table(
        "trust",
        "Which code may run: what somebody vouches for.",
        &[
            key(
                "mode",
                Kind::Mode { enforce: true },
                "off, observe (say what would have been refused) or enforce.",
            ),
            key(
                "kernel",
                Kind::Flag,
                "Whether observing is done in the kernel, exactly as enforcing is; it reads every file once.",
            ),
            key("scripts", Kind::Flag, "Whether scripts that are given to interpreters are judged too."),
            key("modules", Kind::Flag, "Whether kernel modules are judged too."),
            key("terminal", Kind::Flag, "Whether the terminal where code was refused shows why."),
            key("sources", SOURCES, "Who may vouch besides the lists below."),
            key(
                "writers_for",
                Kind::Duration { min: 60, max: 30 * DAY, off: false },
                "How long what a trusted program writes is trusted for that alone.",
            ),
        ],
    ),
    tables(
        "trust.allow",
        "Code that may run: known by its content, or (with care) by the folder it lies in.",
        &[
            key("sha256", Kind::Digest, "SHA-256 of the file."),
            key(
                "directory",
                Kind::Folder,
                "Everything in this folder; whoever can write there can run anything.",
            ),
            required("reason", Kind::Text, "Why, for whoever reads this later."),
            key("until", Kind::Date, "The last day (UTC), or the moment, it holds."),
            key("path", PATH_REFUSED_TRUST, ""),
        ],
    ),
    tables(
        "trust.block",
        "Code that must not run, whoever vouches for it.",
        &[
            key("sha256", Kind::Digest, "SHA-256 of the file."),
            key("signer", Kind::Text, "The name of a key: nothing that it signed may run."),
            required("reason", Kind::Text, "Why, for whoever reads this later."),
            key("until", Kind::Date, "The last day (UTC), or the moment, it holds."),
        ],
    ),
    tables(
        "trust.key",
        "Keys whose signed manifests vouch for what they list.",
        &[
            required("name", Kind::Text, "Its name, for people and for `signer`."),
            required("minisign", Kind::Text, "The public key, the second line of minisign's .pub file."),
        ],
    ),
    table(
        "services",
        "Services, and what nothing that comes from them may start: shells, downloaders, compilers.",
        &[key(
            "mode",
            SERVICE_MODE,
            "off, observe (tell it), learn (take it down as a proposed exception) or enforce (refuse or end it).",
        )],
    ),
    tables(
        "services.profile",
        "Services for which it is otherwise.",
        &[
            required("name", SERVICE, "The service."),
            key("mode", SERVICE_MODE, "What is done for this service."),
            key(
                "strict",
                Kind::Flag,
                "Whether what its profile has as usual for it (mail() in PHP, archive_command) is not.",
            ),
        ],
    ),
    tables(
        "services.allow",
        "What a service may start all the same. `davy trust learn` proposes entries.",
        &[
            required("service", SERVICE, "The service."),
            required("class", CLASS, "The class of program."),
            key(
                "command",
                Kind::Text,
                "The whole command, where * stands for one word or a part of one; every program of the class when left out.",
            ),
            required("reason", Kind::Text, "Why, for whoever reads this later."),
            key("until", Kind::Date, "The last day (UTC), or the moment, it holds."),
        ],
    ),
    table(
        "scan",
        "What is looked for in files, when, and what is done about it.",
        &[
            key(
                "mode",
                Kind::Mode { enforce: true },
                "off (look at nothing), observe (say what would have been done) or enforce.",
            ),
            key(
                "on",
                TRIGGERS,
                "What is looked at as it happens: programs when they are executed, programs and web files when they are written.",
            ),
            key("severity", SEVERITY, "Least severity for more than an alert."),
            key("actions", SCAN_ACTIONS, "What enforcing does; the order is Davy's own."),
            key(
                "cpu",
                Kind::Integer { min: 1, max: 100 },
                "Most of one processor that scans may take, in percent.",
            ),
            key(
                "schedule",
                Kind::Duration { min: 3600, max: 365 * DAY, off: true },
                "How often the folders below are looked through, or \"off\".",
            ),
            key("paths", FOLDERS, "Folders that are looked through by the schedule."),
            key("rules", FILES, "Files with rules in YARA's language besides Davy's own."),
            key("hashes", FILES, "Files with SHA-256 digests of bad files, one a line."),
        ],
    ),
    tables(
        "scan.allow",
        "Files that are wanted although something is found in them: known by their content.",
        &[
            required("sha256", Kind::Digest, "SHA-256 of the file."),
            required("reason", Kind::Text, "Why, for whoever reads this later."),
            key("until", Kind::Date, "The last day (UTC), or the moment, it holds."),
            key("path", PATH_REFUSED_SCAN, ""),
        ],
    ),
    table(
        "inbound",
        "Who may reach which port of this host. Where it is enforced, what is not allowed below is closed.",
        &[key(
            "mode",
            Kind::Mode { enforce: true },
            "off, observe (tell which connections would have been refused) or enforce (once `davy ports apply` was confirmed).",
        )],
    ),
    tables(
        "inbound.group",
        "Networks under a name, for `from` below.",
        &[
            required("name", Kind::Text, "Its name."),
            key("networks", NETWORKS, "Addresses and networks, such as \"203.0.113.0/24\"."),
            key("files", FILES, "Files with one address or network a line, such as those of a country."),
        ],
    ),
    tables(
        "inbound.allow",
        "Ports that are open, and for whom.",
        &[
            key("port", Kind::Ports, "A port, a range such as \"8000-8100\", or a list of both."),
            key("service", Kind::Text, "The systemd unit whose ports are meant, whichever it listens on."),
            key(
                "protocol",
                Kind::OneOf(&["tcp", "udp", "both"]),
                "tcp when left out; of a service without `port`, both.",
            ),
            required("from", NAMES, "Networks, names of groups, or \"anyone\"."),
            required("reason", Kind::Text, "Why, for whoever reads this later."),
            key("until", Kind::Date, "The last day (UTC), or the moment, it holds."),
        ],
    ),
    table(
        "scans",
        "Who looks for open ports of this host. Where it is enforced, whoever is proven to is banned for a time; an address can be forged, so \
         nobody else is.",
        &[
            key(
                "mode",
                Kind::Mode { enforce: true },
                "off (look at no packets), observe (tell who scans) or enforce (ban who is proven to).",
            ),
            key(
                "ban_for",
                Kind::Duration { min: 60, max: 7 * DAY, off: false },
                "For how long somebody is banned the first time, a week at the most; four times as long each further time.",
            ),
            key(
                "decoy_ports",
                Kind::Ports,
                "Ports that nobody should touch, and where nothing listens: one probe there is a scan.",
            ),
        ],
    ),
    tables(
        "scans.ignore",
        "Who may look for ports: a vulnerability scanner of one's own, say.",
        &[
            required("network", Kind::Network, "The address or network."),
            required("reason", Kind::Text, "Why, for whoever reads this later."),
            key("until", Kind::Date, "The last day (UTC), or the moment, it holds."),
        ],
    ),
    table(
        "outbound",
        "Who may connect to what. Where it is enforced, what is not allowed below is refused.",
        &[
            key(
                "mode",
                Kind::Mode { enforce: true },
                "off, observe (tell what would have been refused) or enforce.",
            ),
            key("inside", NETWORKS, "The networks that are `inside`; all others are `outside`."),
            key(
                "resolvers",
                NETWORKS,
                "Name servers whose answers are believed, besides those in resolv.conf(5); to all of them everyone may talk on port 53.",
            ),
        ],
    ),
    tables(
        "outbound.group",
        "Destinations under a name, for `to` below.",
        &[
            required("name", Kind::Text, "Its name."),
            required("to", NAMES, "Networks and names, such as \"10.0.3.0/24\" and \"*.debian.org\"."),
        ],
    ),
    tables(
        "outbound.allow",
        "Connections that are allowed; everything that an entry gives must hold. `davy outbound learn` proposes entries.",
        &[
            key("service", Kind::Text, "The systemd unit or slice that it comes from."),
            key(
                "container",
                Kind::Text,
                "The id of the container that it comes from, from its first 12 digits on.",
            ),
            key("user", Kind::Text, "The user, by name or number."),
            required(
                "to",
                NAMES,
                "Networks, names (\"*.debian.org\" for all below), groups, \"inside\", \"outside\" or \"any\".",
            ),
            key(
                "ports",
                Kind::Ports,
                "A port, a range such as \"8000-8100\", or a list of both; all when left out.",
            ),
            key(
                "protocol",
                Kind::OneOf(&["tcp", "udp", "raw"]),
                "tcp and udp when left out; raw is everything else that a socket can be.",
            ),
            required("reason", Kind::Text, "Why, for whoever reads this later."),
            key("until", Kind::Date, "The last day (UTC), or the moment, it holds."),
            key("path", PATH_REFUSED_OUTBOUND, ""),
            key("program", PROGRAM_REFUSED, ""),
            key("sha256", PROGRAM_REFUSED, ""),
        ],
    ),
    table(
        "lateral",
        "Who goes from this host to others inside that it never spoke to: by SSH, SMB, databases, APIs of containers.",
        &[
            key(
                "mode",
                Kind::Observed {
                    instead: "write `observe`: it is told, with the entry that lets it.\n\
                              what a service may connect to is decided by `[outbound]`, before it connects",
                },
                "off or observe. `[outbound]` is what stops it.",
            ),
            key(
                "learn_for",
                Kind::Duration { min: 0, max: 365 * DAY, off: false },
                "How long it is learned what a service, a container or a user talks to, from when it was first seen; only what is glaring is told until then.",
            ),
        ],
    ),
    table("persistence", "Things arranged to run again, or to let someone in.", OBSERVED),
    table(
        "fileless",
        "Code without a file.",
        &[
            key(
                "mode",
                Kind::Mode { enforce: true },
                "off, observe or enforce (refuse it, or end it before it does anything).",
            ),
            key(
                "written_memory",
                Kind::Flag,
                "Whether memory that was written and then made executable is treated alike, but for programs that compile in \
                 memory.",
            ),
        ],
    ),
    table("masquerade", "Processes that pretend to be another.", OBSERVED),
    table("campaign", "Acts usual around an intrusion.", OBSERVED),
    table("tampering", "Reaching for Davy itself.", OBSERVED),
    table(
        "sensors",
        "What the sensors take in.",
        &[
            key(
                "capture",
                Kind::Size { min: 256, max: 16 << 10 },
                "First bytes kept of each flow in each direction; the sensors give at most 2KiB.",
            ),
            key("file_events", Kind::Flag, "Whether changes of files are watched."),
            key(
                "processes",
                Kind::Integer { min: 1024, max: 1 << 20 },
                "Most processes remembered at once; beyond it the longest gone are forgotten.",
            ),
            key(
                "flows",
                Kind::Integer { min: 1024, max: 1 << 20 },
                "Most flows remembered at once; beyond it the longest silent are forgotten.",
            ),
        ],
    ),
    table(
        "store",
        "Bounds of the host's store; whichever is met first.",
        &[
            key("max_size", Kind::Size { min: 16 << 20, max: 1 << 40 }, "Most bytes on disk."),
            key(
                "max_age",
                Kind::Duration { min: DAY, max: 3650 * DAY, off: false },
                "Age at which events are removed; whole days count.",
            ),
        ],
    ),
    table(
        "failsafe",
        "When Davy holds back by itself.",
        &[
            key(
                "denials_per_minute",
                Kind::Integer { min: 1, max: 10_000 },
                "More actions than this in a minute in one service, login or container, and the protection falls back to observe there; in several of them together, everywhere.",
            ),
            key("protect_users", NAMES, "Users whose processes are never acted on."),
            key(
                "grace",
                Kind::Duration { min: 0, max: 30 * DAY, off: false },
                "How long it stays in observe after that; 0s means until `davy disarm --end`.",
            ),
        ],
    ),
    table(
        "drill",
        "Proof by the clock: the canary acts of the sensors and of what enforces, repeated.",
        &[key(
            "every",
            Kind::Duration { min: 600, max: 365 * DAY, off: true },
            "How often, or \"off\": only at start, and when a policy begins to enforce.",
        )],
    ),
    tables(
        "test",
        "The policy's own tests, run by `davy policy test`.",
        &[
            required("name", Kind::Text, "What it shows."),
            required(
                "expect",
                Kind::OneOf(&["allow", "alert", "freeze", "cut", "ban", "quarantine", "kill"]),
                "The strongest thing done; allow means not even an alert.",
            ),
        ],
    ),
    table(
        "test.given",
        "What is found.",
        &[
            key("finding", FINDINGS, "Kind of finding; mining when left out."),
            key("path", Kind::Text, "The program's path, as people see it."),
            key("sha256", Kind::Digest, "SHA-256 of the program's file."),
            key("user", Kind::Text, "The user it runs as."),
            key("cgroup", Kind::Cgroup, "The cgroup v2 path it runs in."),
            key("service", SERVICE, "The service that it came from."),
            key("confidence", Kind::Number { min: 0.0, max: 1.0 }, "Probability; or give evidence."),
        ],
    ),
    table(
        "test.given.evidence",
        "Evidence by signal, in bits: the base-2 logarithm of the likelihood ratio.",
        &[
            key("rounding_mode", BITS, "The SSE rounding mode changes as only RandomX changes it."),
            key("compute_shape", BITS, "Steady computation with hardly a system call or a wait."),
            key("memory_shape", BITS, "Memory laid out as a mining algorithm needs it."),
            key("gpu", BITS, "A GPU kept busy."),
            key("stratum", BITS, "A mining protocol in the clear."),
            key("pool_shape", BITS, "Sizes and rhythm of pool traffic."),
            key("pool_list", BITS, "A pool's name or address from a list."),
            key("masquerade", BITS, "A process that pretends to be another."),
            key("odd_parent", BITS, "A parent that should not start such a thing."),
            key("fileless", BITS, "Code without a file."),
            key("campaign", BITS, "The usual campaign around a miner."),
            key("persistence", BITS, "Something arranged to run again."),
            key("preparation", BITS, "Huge pages, model-specific registers, modules."),
            key("command_line", BITS, "Words that only miners use."),
        ],
    ),
];
