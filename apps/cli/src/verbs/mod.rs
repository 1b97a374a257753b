//! The command line: every verb with its help.

mod bans;
mod connections;
mod isolate;
mod outbound;
mod ports;
mod quarantine;
mod trust;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use davy_model::Timestamp;

pub(crate) use bans::{Ban, Unban};
pub(crate) use connections::Connections;
pub(crate) use isolate::Isolate;
pub(crate) use outbound::Outbound;
pub(crate) use ports::{Ports, PortsVerb};
pub(crate) use quarantine::{Quarantine, QuarantineExport};
pub(crate) use trust::{Trust, TrustSign};

use crate::{clock, subject::Subject};

/// The parsed command line.
#[derive(Debug, Parser)]
#[command(
    name = "davy",
    version,
    about = "Watches this host for cryptomining intrusions, stops them, and says in plain words what happened",
    after_help = EXIT_CODES,
    after_long_help = FIRST_STEPS,
    propagate_version = true,
    max_term_width = 110
)]
pub(crate) struct Cli {
    /// What every verb takes.
    #[command(flatten)]
    pub(crate) common: Common,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no agent runs, 4 not found, 5 forbidden, \
                          6 the policy has faults, 7 not all drills held, 8 ended by davy stop, 9 a scan found something.";

const FIRST_STEPS: &str = "First steps:
  sudo davy run              watch this host from this terminal; Ctrl-C leaves nothing behind
  sudo davy status           what is protected, how well, and what is missing
  sudo davy incidents        what happened
  sudo davy explain 7        why Davy says so
  sudo davy drill            harmless attacks, to see it hold

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no agent runs, 4 not found, 5 forbidden, 6 the policy has faults,
7 not all drills held, 8 ended by davy stop, 9 a scan found something.";

/// Options of every verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every verb")]
pub(crate) struct Common {
    /// Answer in JSON: one document, or one a line with --follow
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Keep configuration, state and sockets below DIR, so that several agents live side by side
    #[arg(long, global = true, value_name = "DIR", env = "DAVY_BASE_DIR")]
    pub(crate) base_dir: Option<PathBuf>,
    /// When to use colours; NO_COLOR is honoured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: When,
    /// Say less: no hints, no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; twice for the agent's debugging log
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Watch this host from this terminal, until Ctrl-C
    #[command(
        after_help = "Examples:\n  sudo davy run\n  davy --base-dir /tmp/trial run     without root: watches through /proc, and says what is missing"
    )]
    Run,
    /// Watch this host as a service (systemd starts this)
    #[command(
        after_help = "Examples:\n  systemctl enable --now davy\n  davy agent --pin                   enforcement stays in the kernel while the agent restarts"
    )]
    Agent(Agent),
    /// Stop the agent and take its enforcement away
    #[command(after_help = "Examples:\n  sudo davy stop")]
    Stop,
    /// What is protected, by what, and what is missing
    #[command(
        after_help = "Examples:\n  davy status\n  davy status -v                     with every probed feature of this host\n  davy status --json | jq .tier"
    )]
    Status,
    /// The busiest process trees, live, with what speaks for mining
    #[command(
        after_help = "Keys: arrows choose, enter shows details, f freezes and k kills (asks first), q leaves.\n\nExamples:\n  davy top\n  davy top --once                    one plain snapshot"
    )]
    Top(Top),
    /// What the sensors saw
    #[command(
        after_help = "Examples:\n  davy events -f\n  davy events --since 10m --kind exec --kind flow_open\n  davy events --pid 4711 --limit 1000 --json"
    )]
    Events(Events),
    /// What Davy concluded from it
    #[command(after_help = "Examples:\n  davy findings\n  davy findings -f --json")]
    Findings(Findings),
    /// What happened: all incidents, or the story of one
    #[command(
        visible_alias = "incident",
        after_help = "Examples:\n  davy incidents\n  davy incidents 7\n  davy incidents --since 1d --json"
    )]
    Incidents(Incidents),
    /// Who talks to whom: every program with its other ends, in and out, since Davy watches
    #[command(
        after_help = "Examples:\n  davy connections\n  davy connections --graph --service nginx\n  davy connections --outside --since 7d --limit 1000 --json"
    )]
    Connections(Connections),
    /// Why: all evidence of an incident or a finding, with its weights
    #[command(
        after_help = "Examples:\n  davy explain 7                     incident 7\n  davy explain f12                   finding 12\n  davy explain finding 12            the same"
    )]
    Explain(About),
    /// Undo everything done for an incident, or one action
    #[command(
        after_help = "Examples:\n  sudo davy undo 7                   everything done for incident 7\n  sudo davy undo a31                 action 31 alone (davy actions lists them)"
    )]
    Undo(About),
    /// Act on an incident now, whatever the mode
    #[command(after_help = "Examples:\n  sudo davy act 7 freeze\n  sudo davy act 7 kill quarantine cut")]
    Act(Act),
    /// Break-glass: only observe, for a time
    #[command(after_help = "Examples:\n  sudo davy disarm --for 10m\n  sudo davy disarm --end")]
    Disarm(Disarm),
    /// Let nothing out and nobody in for a time, but for your session
    #[command(
        after_help = "Examples:\n  sudo davy isolate --for 30m                       the whole host; administrators' SSH sessions and loopback stay\n  sudo davy isolate --for 2h --keep 10.0.9.0/24     and this network\n  sudo davy isolate --for 1h --in /system.slice/nginx.service\n  sudo davy isolate --end"
    )]
    Isolate(Isolate),
    /// Let nothing in from an address or a network for a time
    #[command(
        after_help = "Never banned are loopback, this host's own addresses, its gateway, its name servers, and where an administrator is logged in \
                      from by SSH.\n\nExamples:\n  sudo davy ban 203.0.113.9 --for 1h\n  sudo davy ban 198.51.100.0/24 --for 1d --port 22 \
                      --reject"
    )]
    Ban(Ban),
    /// Who is banned: since when, until when, by whom, and how much was refused
    #[command(after_help = "Examples:\n  davy bans\n  davy bans --json | jq '.[] | select(.packets > 1000)'")]
    Bans,
    /// Let somebody in again who is banned
    #[command(after_help = "Examples:\n  sudo davy unban 203.0.113.9\n  sudo davy unban --all")]
    Unban(Unban),
    /// The journal: what was done, would have been done, was undone
    #[command(after_help = "Examples:\n  davy actions\n  davy actions --limit 500 --json")]
    Actions(Actions),
    /// Check, show, test and reload the policy
    #[command(
        subcommand,
        after_help = "Examples:\n  davy policy check /etc/davy/davy.toml\n  davy policy test my.toml\n  sudo davy policy reload"
    )]
    Policy(Policy),
    /// Look for miners and what comes with them in files and in the memory of processes; needs no agent
    #[command(
        after_help = "Examples:\n  sudo davy scan /                   all local file systems\n  davy scan --pid 4711 --json        the memory of a process\n  sudo davy scan /srv --rules my.yar --cpu 25 --quarantine"
    )]
    Scan(Scan),
    /// Who looks for open ports of this host, or may
    #[command(after_help = "Examples:\n  davy scans\n  davy scans --limit 500 --json")]
    Scans(Scans),
    /// Files that were taken away: list, give back, delete, export for analysis
    #[command(
        subcommand,
        after_help = "Examples:\n  davy quarantine list\n  sudo davy quarantine restore 3\n  sudo davy quarantine export 3 --out sample.zip     password: infected"
    )]
    Quarantine(Quarantine),
    /// Which code may run, who vouches for it, and what waits for you
    #[command(
        subcommand,
        after_help = "Examples:\n  davy trust status\n  davy trust explain /usr/local/bin/tool\n  davy trust pending\n  sudo davy trust approve 12 --for 7d\n  davy trust learn                   what ran, as entries for the policy"
    )]
    Trust(Trust),
    /// Who listens on which port, who may reach it, and who did; closing ports, and opening them again
    #[command(
        after_help = "Examples:\n  davy ports\n  davy ports --json | jq '.ports[] | select(.reach == \"outside\")'\n  sudo davy ports apply --confirm-within 60s\n  sudo davy ports confirm\n  sudo davy ports open"
    )]
    Ports(Ports),
    /// Who may connect to what: what is allowed, and where names lead to
    #[command(
        subcommand,
        after_help = "Examples:\n  davy outbound status\n  davy outbound learn                what was seen, as entries for the policy"
    )]
    Outbound(Outbound),
    /// Harmless attacks against the live agent, to see it hold
    #[command(
        after_help = "Examples:\n  davy drill --list\n  sudo davy drill\n  sudo davy drill detect respond/cut     a whole room, and one drill"
    )]
    Drill(Drill),
    /// One act of a drill, in a process of its own
    #[command(hide = true)]
    DrillAct(DrillAct),
    /// A worker of the agent's, in a process of its own
    #[command(hide = true)]
    Worker(Worker),
    /// Completions for a shell, to standard output
    #[command(
        after_help = "Examples:\n  davy completions bash > /etc/bash_completion.d/davy\n  davy completions zsh > \"${fpath[1]}/_davy\""
    )]
    Completions(Completions),
    /// Manual pages: this program's to standard output, or all into a folder
    #[command(after_help = "Examples:\n  davy man | man -l -\n  davy man --dir /usr/local/share/man/man1")]
    Man(Man),
}

/// Options of `davy agent`.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// Keep enforcement in the kernel when the agent ends without `davy stop`
    #[arg(long)]
    pub(crate) pin: bool,
}

/// Options of `davy top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Print one snapshot and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=60))]
    pub(crate) every: u16,
}

/// Options of `davy events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on with new ones as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Not before: a time ago (10m, 2h, 1d) or a moment (RFC 3339, or local time)
    #[arg(long, value_name = "WHEN", value_parser = clock::since)]
    pub(crate) since: Option<Timestamp>,
    /// Only of this process
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Only of this kind, such as exec; may be given more than once
    #[arg(long = "kind", value_name = "KIND", value_parser = crate::events::KINDS)]
    pub(crate) kinds: Vec<String>,
    /// At most so many of the newest
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

/// Options of `davy findings`.
#[derive(Debug, Args)]
pub(crate) struct Findings {
    /// Go on with new ones as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Not before: a time ago (10m, 2h, 1d) or a moment (RFC 3339, or local time)
    #[arg(long, value_name = "WHEN", value_parser = clock::since)]
    pub(crate) since: Option<Timestamp>,
    /// At most so many of the newest
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

/// Options of `davy scans`.
#[derive(Debug, Args)]
pub(crate) struct Scans {
    /// At most so many of those against whom most speaks
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub(crate) limit: u32,
}

/// Options of `davy incidents`.
#[derive(Debug, Args)]
pub(crate) struct Incidents {
    /// The number of an incident, for its story
    #[arg(value_name = "ID", value_parser = crate::subject::incident)]
    pub(crate) id: Option<u64>,
    /// Not before: a time ago (10m, 2h, 1d) or a moment (RFC 3339, or local time)
    #[arg(long, value_name = "WHEN", value_parser = clock::since, conflicts_with = "id")]
    pub(crate) since: Option<Timestamp>,
    /// At most so many of the newest
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

/// An incident, a finding or an action.
#[derive(Debug, Args)]
pub(crate) struct About {
    /// 7 or `incident 7`, f12 or `finding 12`, a31 or `action 31`
    #[arg(value_name = "ID", required = true, num_args = 1..=2)]
    pub(crate) id: Vec<String>,
}

impl About {
    /// What is meant.
    pub(crate) fn subject(&self) -> Result<Subject, crate::failure::Failure> {
        Subject::parse(&self.id)
    }
}

/// Options of `davy act`.
#[derive(Debug, Args)]
pub(crate) struct Act {
    /// The number of the incident
    #[arg(value_name = "ID", value_parser = crate::subject::incident)]
    pub(crate) id: u64,
    /// What to do
    #[arg(value_name = "ACTION", required = true, value_parser = ["freeze", "kill", "quarantine", "cut"])]
    pub(crate) actions: Vec<String>,
}

/// Options of `davy disarm`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct Disarm {
    /// For how long, such as 10m; it ends by itself
    #[arg(long = "for", value_name = "LENGTH", value_parser = clock::length, group = "what")]
    pub(crate) length: Option<u32>,
    /// End it now
    #[arg(long, group = "what")]
    pub(crate) end: bool,
}

/// Options of `davy actions`.
#[derive(Debug, Args)]
pub(crate) struct Actions {
    /// At most so many of the newest
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

/// Verbs on policies.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// All faults of a policy at once, with file, line and what was expected
    #[command(
        after_help = "Examples:\n  davy policy check /etc/davy/davy.toml\n  davy policy check --json my.toml"
    )]
    Check(PolicyFile),
    /// The policy in full, defaults included
    #[command(
        after_help = "Examples:\n  davy policy show                   the one the agent reads, or the built-in one\n  davy policy show my.toml"
    )]
    Show(PolicyFile),
    /// Run the tests that a policy carries
    #[command(after_help = "Examples:\n  davy policy test my.toml")]
    Test(PolicyFile),
    /// The JSON Schema of policies, for editors
    Schema,
    /// Have the agent read its policy again
    #[command(after_help = "Examples:\n  sudo davy policy reload")]
    Reload,
}

/// A policy's file.
#[derive(Debug, Args)]
pub(crate) struct PolicyFile {
    /// The policy; without it, the one the agent reads
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Options of `davy scan`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("looked_at").required(true).multiple(true))]
pub(crate) struct Scan {
    /// Files and folders; symbolic links below them are not followed, nor file systems the kernel makes up or the network has
    #[arg(value_name = "PATH", group = "looked_at")]
    pub(crate) paths: Vec<PathBuf>,
    /// The memory of this process; may be given more than once
    #[arg(long = "pid", value_name = "PID", group = "looked_at")]
    pub(crate) pids: Vec<u32>,
    /// Have the agent take away every file in which something is found
    #[arg(long)]
    pub(crate) quarantine: bool,
    /// Rules in YARA's language beside Davy's own: a file, or a folder of .yar and .yara files; may be given more than once
    #[arg(long, value_name = "PATH")]
    pub(crate) rules: Vec<PathBuf>,
    /// SHA-256 digests of bad files, one a line as sha256sum writes them; may be given more than once
    #[arg(long, value_name = "FILE")]
    pub(crate) hashes: Vec<PathBuf>,
    /// At most this share of one processor
    #[arg(long, value_name = "PERCENT", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) cpu: u32,
    /// Look at files too that were clean before and have not changed
    #[arg(long)]
    pub(crate) all: bool,
    /// With --all: go on where the last such scan was cut short
    #[arg(long, requires = "all")]
    pub(crate) resume: bool,
    /// Do not open archives
    #[arg(long)]
    pub(crate) no_archives: bool,
    /// Stay on the file systems of the paths
    #[arg(short = 'x', long)]
    pub(crate) one_file_system: bool,
    /// Ask ClamAV's daemon too
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true, default_missing_value = "/run/clamav/clamd.ctl")]
    pub(crate) clamd: Option<PathBuf>,
    /// Tell the structure of every program, not only of those in which something is found; looks at all of them
    #[arg(long)]
    pub(crate) programs: bool,
}

/// Options of `davy drill`.
#[derive(Debug, Args)]
pub(crate) struct Drill {
    /// `room/what`, or a room's name for all of it; without any, all
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Name the drills and what each does
    #[arg(long, conflicts_with = "strict")]
    pub(crate) list: bool,
    /// Drills that this host cannot do, or whose protection is off, fail too
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Options of `davy drill-act`.
#[derive(Debug, Args)]
pub(crate) struct DrillAct {
    /// Which act
    pub(crate) name: String,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Options of `davy completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    pub(crate) shell: Shell,
}

/// Options of `davy man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write the pages of all verbs into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// `davy worker`: which one this process becomes.
#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// Which
    #[arg(value_enum)]
    pub(crate) which: WhichWorker,
}

/// The agent's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhichWorker {
    /// Reads first bytes of flows and answers of name servers
    Inspect,
    /// Looks at files and memory for what rules describe
    Scan,
    /// Answers permission events by deadlines
    Gate,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_verbs_is_sound() {
        Cli::command().debug_assert();
    }

    fn examples(verb: &clap::Command) -> Vec<String> {
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = help.split_once("Examples:").map_or("", |(_, lines)| lines).lines();
        let ours = |line: &str| line.starts_with("davy ") || line.starts_with("sudo davy ");
        let mut all: Vec<String> =
            lines.map(str::trim).filter(|line| ours(line)).map(str::to_owned).collect();
        all.extend(verb.get_subcommands().flat_map(examples));
        all
    }

    #[test]
    fn verbs_for_people_show_examples() {
        for verb in Cli::command().get_subcommands().filter(|v| !v.is_hide_set()) {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{} has no examples", verb.get_name());
        }
    }

    #[test]
    fn examples_are_what_they_say() {
        let examples = examples(&Cli::command());
        assert!(examples.len() > 40, "{examples:?}");
        for example in examples {
            // What a shell takes for itself, and what is said of the example, is not the example.
            let said = ["   ", " | ", " > "].into_iter().filter_map(|mark| example.find(mark)).min();
            let line = example[..said.unwrap_or(example.len())].trim_start_matches("sudo ");
            let parsed = Cli::try_parse_from(line.split_whitespace());
            let cli = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
            if let Verb::Drill(asked) = cli.verb {
                crate::drill::known(&asked.names).unwrap_or_else(|failure| panic!("{line}: {failure:?}"));
            }
        }
    }

    #[test]
    fn help_names_every_exit_code() {
        for help in [EXIT_CODES, FIRST_STEPS] {
            let codes = help.split_once("Exit codes:").expect("exit codes").1;
            let words: Vec<&str> = codes.split_whitespace().collect();
            for exit in crate::failure::Exit::ALL {
                assert!(words.contains(&(exit as u8).to_string().as_str()), "{exit:?}: {codes}");
            }
        }
    }
}
