//! The usual campaign around a miner: what intruders' scripts do before and after they start one.
//!
//! Acts are read from what is executed: the tools themselves, and the text given to a shell by `-c`.

use davy_model::{ProcessInfo, Signal, Timestamp};

use crate::flow_watch::Noted;
use crate::interpreters::{Given, Interpreters};
use crate::known_names::KnownNames;
use crate::ledger::{Particulars, Topic, evidence};
use crate::one_liner::{self, Does};
use crate::process_table::{ProcessTable, base_name};
use crate::weights::{CAMPAIGN_STRONG, CAMPAIGN_USUAL};

/// Of a command line so many bytes are read.
const MAX_TEXT: usize = 4096;

/// Processes of known mining malware, beside the miners' own names.
const COMPETITORS: [&str; 14] = [
    "kinsing",
    "kdevtmpfsi",
    "kthreaddi",
    "kswapd0",
    "watchbog",
    "sysrv",
    "sustes",
    "ddgs",
    "networkservice",
    "sysupdate",
    "sysguard",
    "pwnrig",
    "dbused",
    "cryptonight",
];
/// Agents by which cloud providers watch their hosts.
const CLOUD_AGENTS: [&str; 8] =
    ["aegis", "aliyun-service", "aliyundun", "cloudmonitor", "qcloud", "yunjing", "ydservice", "bcm-agent"];
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"];
/// Programs that ask for their cloud identity by right.
const CLOUD_TOOLS: [&str; 9] = [
    "aws",
    "cloud-init",
    "gcloud",
    "az",
    "amazon-ssm-agent",
    "google_metadata",
    "kubelet",
    "google_guest_ag",
    "waagent",
];

/// An act that was recognised.
struct Act {
    topic: Topic,
    weight: f32,
    technique: &'static str,
    text: &'static str,
}

const fn act(topic: Topic, weight: f32, technique: &'static str, text: &'static str) -> Act {
    Act { topic, weight, technique, text }
}

const KILLS: Act = act("campaign/kills", CAMPAIGN_STRONG, "T1489", "ends other miners by name");
const AGENTS: Act =
    act("campaign/agents", CAMPAIGN_STRONG, "T1562.001", "removes the cloud provider's agent");
const PIPED: Act = act("campaign/piped", CAMPAIGN_USUAL, "T1059.004", "downloads into a shell");
const ENCODED: Act = act("campaign/encoded", CAMPAIGN_USUAL, "T1140", "decodes text into a shell");
const SHELL_OUT: Act = act("campaign/shell_out", CAMPAIGN_STRONG, "T1059", "connects a shell to the network");
const CRONTAB: Act = act("campaign/crontab", CAMPAIGN_USUAL * 0.75, "T1053.003", "writes a crontab");
const KEYS: Act = act("campaign/keys", CAMPAIGN_USUAL, "T1098.004", "adds a login key");
const FIREWALL: Act = act("campaign/firewall", CAMPAIGN_USUAL, "T1562.004", "takes the firewall down");
const SELINUX: Act = act("campaign/selinux", CAMPAIGN_USUAL, "T1562.001", "takes protection down");
const LOGS: Act = act("campaign/logs", CAMPAIGN_USUAL, "T1070.002", "clears logs");
const HISTORY: Act = act("campaign/history", CAMPAIGN_USUAL, "T1070.003", "clears the shell's history");
const CLOUD: Act =
    act("campaign/cloud", CAMPAIGN_USUAL, "T1552.005", "asks the cloud's metadata service for credentials");
const CREDENTIALS: Act =
    act("campaign/credentials", CAMPAIGN_USUAL, "T1552.001", "reads files with credentials");
const IMMUTABLE: Act = act(
    "campaign/immutable",
    CAMPAIGN_USUAL * 0.75,
    "T1222.002",
    "makes files unchangeable or changeable again",
);
const PRELOAD: Act = act(
    "campaign/preload",
    CAMPAIGN_USUAL,
    "T1574.006",
    "arranges that its library is loaded into every program",
);

impl Does {
    const fn act(self) -> &'static Act {
        match self {
            Self::FetchesAndRuns => &PIPED,
            Self::DecodesAndRuns => &ENCODED,
            Self::GivesShell => &SHELL_OUT,
        }
    }
}

/// What an interpreter says that is given its program by a pipe, as its parent's other children show.
pub(crate) fn fed(
    time: Timestamp,
    info: &ProcessInfo,
    table: &ProcessTable,
    interpreters: &Interpreters,
) -> Option<Noted> {
    let (does, source) = one_liner::fed(time, info, table, interpreters)?;
    let act = does.act();
    let text =
        format!("{}: {} into {}", act.text, shortened(&source, 120), shortened(&joined(&info.args), 40));
    let found = evidence(time, Signal::Campaign, act.weight, text).of(info.key).technique(act.technique);
    Some((act.topic, found))
}

/// Whether a program of this name is a shell.
pub(crate) fn is_shell(name: &str) -> bool {
    SHELLS.contains(&name)
}

/// What an exec says of a campaign.
pub(crate) fn look(
    time: Timestamp,
    info: &ProcessInfo,
    names: &KnownNames,
    interpreters: &Interpreters,
    noted: &mut Vec<Noted>,
) {
    let file = base_name(&info.image.path);
    let tool = info.args.first().map_or(file, |a| base_name(a.strip_prefix('-').unwrap_or(a)));
    let text = joined(&info.args);
    let mut add = |act: &Act| {
        let what = format!("{}: {}", act.text, shortened(&text, 160));
        let found = evidence(time, Signal::Campaign, act.weight, what).of(info.key).technique(act.technique);
        noted.push((act.topic, found));
    };
    let low = text.to_ascii_lowercase();
    if SHELLS.contains(&file) {
        // Only text given with the command; a script's own lines show as what they execute.
        if info.args.iter().take(6).any(|a| a.starts_with('-') && !a.starts_with("--") && a.ends_with('c')) {
            for act in shell_acts(&low, names) {
                add(act);
            }
        }
        return;
    }
    if let Some(Given::Code(code)) = interpreters.given(file, &info.args)
        && let Some(does) = one_liner::code(&code)
    {
        add(does.act());
    }
    if let Some(act) = tool_act(tool, &low, &info.args, names) {
        add(act);
    }
}

/// Acts of a single tool.
fn tool_act(tool: &str, low: &str, args: &[String], names: &KnownNames) -> Option<&'static Act> {
    let has = |word: &str| args.iter().skip(1).any(|a| a == word);
    match tool {
        "pkill" | "killall" | "pgrep"
            if tool != "pgrep" && args.iter().skip(1).any(|a| competitor(a, names)) =>
        {
            Some(&KILLS)
        }
        "crontab"
            if has("-") || args.len() == 2 && !low.ends_with(" -l") && !low.ends_with(" -e") || has("-r") =>
        {
            Some(&CRONTAB)
        }
        "setenforce" if has("0") || low.ends_with("permissive") => Some(&SELINUX),
        "ufw" if has("disable") => Some(&FIREWALL),
        "iptables" | "ip6tables" if has("-F") || has("--flush") => Some(&FIREWALL),
        "nft" if has("flush") && has("ruleset") => Some(&FIREWALL),
        "systemctl" | "service" => service_act(low),
        "chattr"
            if args
                .iter()
                .skip(1)
                .any(|a| matches!(a.as_str(), "-i" | "+i" | "-ia" | "+ia" | "-iae" | "-ai" | "+ai")) =>
        {
            Some(&IMMUTABLE)
        }
        "rm" | "truncate" | "shred" | "unlink" if clears_logs(low) => Some(&LOGS),
        "aws" | "gcloud" | "az" => None,
        _ if CLOUD_TOOLS.contains(&tool) => None,
        _ if asks_metadata(low) => Some(&CLOUD),
        "cat" | "cp" | "tar" | "curl" | "grep" | "find" | "head" | "base64" if reads_credentials(low) => {
            Some(&CREDENTIALS)
        }
        _ => None,
    }
}

/// Acts in the text given to a shell.
fn shell_acts<'a>(low: &'a str, names: &'a KnownNames) -> impl Iterator<Item = &'static Act> + 'a {
    let kills = (low.contains("kill") && words(low).any(|w| competitor(w, names))).then_some(&KILLS);
    let agents = (["uninstall", "rm -", "stop", "kill"].iter().any(|w| low.contains(w))
        && CLOUD_AGENTS.iter().any(|a| low.contains(a)))
    .then_some(&AGENTS);
    let fetches = ["curl ", "wget ", "lwp-download", "/dev/tcp/"].iter().any(|w| low.contains(w));
    let piped = (fetches && into_shell(low)).then_some(&PIPED);
    let encoded = (low.contains("base64") && low.contains("-d") && into_shell(low)).then_some(&ENCODED);
    let shell_out = one_liner::shell_to_network(low).then_some(&SHELL_OUT);
    let crontab =
        (low.contains("crontab -") && !low.trim_end().ends_with("crontab -l") && low.contains("| crontab")
            || low.contains("> /etc/cron")
            || low.contains(">/etc/cron")
            || low.contains("/var/spool/cron") && low.contains('>'))
        .then_some(&CRONTAB);
    let keys = (low.contains("authorized_keys") && low.contains('>')).then_some(&KEYS);
    let firewall = [
        "iptables -f",
        "ufw disable",
        "nft flush ruleset",
        "systemctl stop firewalld",
        "systemctl disable firewalld",
    ]
    .iter()
    .any(|w| low.contains(w))
    .then_some(&FIREWALL);
    let selinux = ["setenforce 0", "selinux=disabled", "systemctl stop apparmor", "systemctl stop auditd"]
        .iter()
        .any(|w| low.contains(w))
        .then_some(&SELINUX);
    let logs = clears_logs(low).then_some(&LOGS);
    let history = ["history -c", "histfile=/dev/null", "unset histfile", "histsize=0", ".bash_history"]
        .iter()
        .any(|w| low.contains(w))
        .then_some(&HISTORY);
    let cloud = asks_metadata(low).then_some(&CLOUD);
    let credentials = reads_credentials(low).then_some(&CREDENTIALS);
    let immutable =
        ["chattr -i", "chattr +i", "chattr -ia"].iter().any(|w| low.contains(w)).then_some(&IMMUTABLE);
    let preload = (low.contains("ld.so.preload") && low.contains('>')).then_some(&PRELOAD);
    [
        kills,
        agents,
        piped,
        encoded,
        shell_out,
        crontab,
        keys,
        firewall,
        selinux,
        logs,
        history,
        cloud,
        credentials,
        immutable,
        preload,
    ]
    .into_iter()
    .flatten()
}

fn service_act(low: &str) -> Option<&'static Act> {
    if !["stop", "disable", "mask"].iter().any(|w| low.split(' ').any(|x| x == *w)) {
        return None;
    }
    if CLOUD_AGENTS.iter().any(|a| low.contains(a)) {
        Some(&AGENTS)
    } else if ["firewalld", "ufw", "nftables", "iptables"].iter().any(|w| low.contains(w)) {
        Some(&FIREWALL)
    } else if ["apparmor", "auditd", "falco", "clamav", "crowdstrike", "falcon-sensor", "osqueryd", "wazuh"]
        .iter()
        .any(|w| low.contains(w))
    {
        Some(&SELINUX)
    } else {
        None
    }
}

fn into_shell(low: &str) -> bool {
    let piped = low.split('|').skip(1).any(|part| {
        let mut words =
            part.split_whitespace().skip_while(|w| matches!(*w, "sudo" | "nohup" | "env" | "setsid"));
        words.next().is_some_and(|w| {
            let word = base_name(w);
            SHELLS.contains(&word)
                || word.starts_with("python")
                || matches!(word, "perl" | "php" | "ruby" | "node" | "lua")
        })
    });
    piped
        || [
            "bash <(",
            "sh <(",
            "source <(",
            ". <(",
            "python3 <(",
            "python <(",
            "perl <(",
            "bash -c \"$(",
            "sh -c \"$(",
            "eval \"$(",
            "eval $(",
        ]
        .iter()
        .any(|w| low.contains(w))
}

fn clears_logs(low: &str) -> bool {
    let clears = ["rm ", "truncate ", "shred ", "> ", ">", "cat /dev/null"].iter().any(|w| low.contains(w));
    let logs = [
        "/var/log/wtmp",
        "/var/log/btmp",
        "/var/log/lastlog",
        "/var/log/secure",
        "/var/log/auth.log",
        "/var/log/syslog",
        "/var/log/messages",
        "/var/log/cron",
        "/var/log/audit",
        "/var/log/*",
        "/var/spool/mail/root",
    ];
    // Reading a log into another file names it before the arrow.
    clears
        && logs.iter().any(|log| {
            low.contains(&format!(">{log}"))
                || low.contains(&format!("> {log}"))
                || (low.contains(log) && ["rm ", "truncate ", "shred "].iter().any(|w| low.contains(w)))
        })
}

fn asks_metadata(low: &str) -> bool {
    (low.contains("169.254.169.254")
        || low.contains("metadata.google.internal")
        || low.contains("100.100.100.200"))
        && ["security-credentials", "service-accounts", "iam", "ram/"].iter().any(|w| low.contains(w))
}

fn reads_credentials(low: &str) -> bool {
    [
        ".aws/credentials",
        ".docker/config.json",
        ".kube/config",
        "application_default_credentials",
        ".azure/accesstokens",
        ".git-credentials",
    ]
    .iter()
    .any(|w| low.contains(w))
}

fn competitor(word: &str, names: &KnownNames) -> bool {
    let word = base_name(word).to_ascii_lowercase();
    COMPETITORS.iter().any(|c| word == *c) || names.miner(&word).is_some()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || matches!(c, '|' | ';' | '&' | '"' | '\'' | '(' | ')' | '`'))
        .filter(|w| !w.is_empty())
}

fn joined(args: &[String]) -> String {
    let mut text = String::new();
    for arg in args {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(shortened(arg, MAX_TEXT.saturating_sub(text.len())));
        if text.len() >= MAX_TEXT {
            break;
        }
    }
    text
}

/// At most `limit` bytes of a text, cut between letters.
pub(crate) fn shortened(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while end > 0 && !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
