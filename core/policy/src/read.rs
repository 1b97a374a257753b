//! From a checked document to the typed policy, with the rules that join several keys.

use std::time::Duration;

use davy_model::{Mode, Prefix, Severity, Timestamp};
use toml::de::DeTable;

use crate::catalogue::{SECTIONS, section};
use crate::check::{Checker, Node, Value};
use crate::diagnostic::{Code, Diagnostics};
use crate::inbound::inbound;
use crate::outbound::outbound;
use crate::policy_test::{Expectation, Given, PolicyTest, finding_kind, signal};
use crate::scans::scans;
use crate::wording::shown;
use crate::{
    ActionKind, Allow, AllowedBy, BlockedBy, Digest, Drill, Failsafe, Fileless, Lateral, MAX_TEXT, Mining,
    Origin, Policy, PoolLists, Pools, Protection, Scan, ScanAllow, ScanTrigger, Scope, Sensors, ServiceAllow,
    ServiceMode, ServiceProfile, Services, StoreLimits, Trust, TrustAllow, TrustBlock, TrustKey, TrustSource,
    TrustedBy,
};

impl Policy {
    /// Reads a policy. `name` is the file's name for people.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        let mut checker = Checker::new(name, text);
        let policy = if text.len() > MAX_TEXT {
            let message = format!("the policy has {} bytes", text.len());
            let expected = format!("expected at most {MAX_TEXT}");
            checker.fault(
                Code::TooLarge,
                &(0..0),
                message,
                expected,
                "long lists belong in files of their own",
            );
            Self::default()
        } else {
            document(&mut checker, name, text)
        };
        match checker.finish() {
            (faults, 0) if faults.is_empty() => Ok(policy),
            // The report shows lines of the text, so it is kept, unless it is itself the fault.
            (faults, left_out) => {
                let text = if text.len() > MAX_TEXT { String::new() } else { text.to_owned() };
                Err(Diagnostics { text, faults, left_out })
            }
        }
    }
}

fn document(checker: &mut Checker<'_>, name: &str, text: &str) -> Policy {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        checker.fault(Code::Syntax, &span, one_line(error.message()), "here TOML breaks off", "");
    }
    let Some(top) = section("") else { return Policy::default() };
    let mut root = checker.table(top, root.get_ref(), root.span());
    let mut origin = Origin { name: name.to_owned(), ..Origin::default() };
    take_lines(checker, &mut origin, "", &root);

    let defaults = Policy::default();
    let scope = Fields::only(&mut root, "scope");
    let lists = Fields::only(root.child("mining"), "pools");
    let allow = Fields::all(root.child("mining"), "allow");
    let mining = Fields::only(&mut root, "mining");
    let pools = Fields::only(&mut root, "pools");
    let lateral = Fields::only(&mut root, "lateral");
    let sensors = Fields::only(&mut root, "sensors");
    let store = Fields::only(&mut root, "store");
    let failsafe = Fields::only(&mut root, "failsafe");
    let drill = Fields::only(&mut root, "drill");
    let fileless = Fields::only(&mut root, "fileless");
    let protection =
        |root: &mut Node, name| Protection { mode: Fields::only(root, name).mode("mode", Mode::Observe) };
    Policy {
        scope: Scope { cgroups: scope.texts("cgroups") },
        mining: Mining {
            mode: mining.mode("mode", defaults.mining.mode),
            actions: mining.actions().unwrap_or(defaults.mining.actions),
            confidence: mining.number("confidence").unwrap_or(defaults.mining.confidence),
            cut_for: mining.duration("cut_for", defaults.mining.cut_for),
            allow: allow.into_iter().filter_map(|fields| self::allow(checker, &fields)).collect(),
            pools: PoolLists {
                domains: lists.texts("domains"),
                hosts: lists.texts("hosts"),
                cidrs: lists.texts("cidrs"),
            },
        },
        pools: Pools {
            mode: pools.mode("mode", defaults.pools.mode),
            cut_for: pools.duration("cut_for", defaults.pools.cut_for),
        },
        trust: trust(checker, &mut root, defaults.trust),
        services: services(checker, &mut root),
        scan: scan(&mut root, defaults.scan),
        inbound: inbound(checker, &mut root),
        scans: scans(&mut root),
        outbound: outbound(checker, &mut root),
        lateral: Lateral {
            mode: lateral.mode("mode", defaults.lateral.mode),
            learn_for: lateral.duration("learn_for", defaults.lateral.learn_for),
        },
        persistence: protection(&mut root, "persistence"),
        fileless: Fileless {
            mode: fileless.mode("mode", defaults.fileless.mode),
            written_memory: fileless.flag("written_memory", defaults.fileless.written_memory),
        },
        masquerade: protection(&mut root, "masquerade"),
        campaign: protection(&mut root, "campaign"),
        tampering: protection(&mut root, "tampering"),
        sensors: Sensors {
            capture: sensors.size("capture").map_or(defaults.sensors.capture, clamp),
            file_events: sensors.flag("file_events", defaults.sensors.file_events),
            processes: sensors.integer("processes", defaults.sensors.processes),
            flows: sensors.integer("flows", defaults.sensors.flows),
        },
        store: StoreLimits {
            max_size: store.size("max_size").unwrap_or(defaults.store.max_size),
            max_age: store.duration("max_age", defaults.store.max_age),
        },
        failsafe: Failsafe {
            denials_per_minute: failsafe.integer("denials_per_minute", defaults.failsafe.denials_per_minute),
            protect_users: failsafe.texts("protect_users"),
            grace: failsafe.duration("grace", defaults.failsafe.grace),
        },
        drill: Drill { every: drill.duration_or_off("every").unwrap_or(defaults.drill.every) },
        tests: Fields::all(&mut root, "test")
            .into_iter()
            .filter_map(|fields| policy_test(checker, fields.node))
            .collect(),
        origin,
    }
}

/// One entry of `[[mining.allow]]`: known by content, or by exactly one of unit and cgroup together with user.
fn allow(checker: &mut Checker<'_>, fields: &Fields) -> Option<Allow> {
    let has = |name| fields.node.written.contains(&name);
    let span = fields.node.span.clone();
    let service = has("unit") || has("cgroup");
    let (message, expected) = if has("path") {
        // Already told; what else is missing follows from it.
        return None;
    } else if has("sha256") && (service || has("user")) {
        ("an entry is known by its content or by its service, not by both", "`sha256` alone, or two entries")
    } else if has("unit") && has("cgroup") {
        ("an entry names its service by unit or by cgroup, not by both", "`unit` or `cgroup`, not both")
    } else if service && !has("user") {
        ("an entry for a service needs the user it runs as", "needs `user = \"…\"`")
    } else if has("user") && !service {
        ("a user alone is not a program", "needs `unit` or `cgroup` too")
    } else if !has("sha256") && !service {
        ("an entry must say what it allows", "needs `sha256`, or `unit` (or `cgroup`) and `user`")
    } else {
        let by = if let Some(digest) = fields.digest("sha256") {
            AllowedBy::Content(digest)
        } else {
            let user = fields.text("user")?;
            unit_name(checker, fields, "unit");
            match (fields.text("unit"), fields.text("cgroup")) {
                (Some(unit), _) => AllowedBy::Unit { unit, user },
                (None, Some(cgroup)) => AllowedBy::Cgroup { cgroup, user },
                (None, None) => return None,
            }
        };
        return Some(Allow { by, reason: fields.text("reason")?, until: fields.until("until") });
    };
    let help = "identity is the content of the program, or the service and user it runs as; never its path";
    checker.fault(Code::Identity, &span, message, expected, help);
    None
}

/// The section `[trust]` and its lists.
fn trust(checker: &mut Checker<'_>, root: &mut Node, defaults: Trust) -> Trust {
    let allow = Fields::all(root.child("trust"), "allow");
    let block = Fields::all(root.child("trust"), "block");
    let keys = Fields::all(root.child("trust"), "key");
    let trust = Fields::only(root, "trust");
    let keys: Vec<TrustKey> = keys
        .iter()
        .filter_map(|f| Some(TrustKey { name: f.text("name")?, minisign: f.text("minisign")? }))
        .collect();
    let mut either = |fields: &Fields, other: &'static str| match (fields.has("sha256"), fields.has(other)) {
        (true, false) | (false, true) => true,
        _ if fields.has("path") => false,
        (both, _) => {
            let message =
                if both { "an entry is known by one thing" } else { "an entry must say what it is for" };
            let expected = format!("`sha256` or `{other}`, one of both");
            let help = "two things are two entries";
            checker.fault(Code::Identity, &fields.node.span, message, expected, help);
            false
        }
    };
    let allow = allow.iter().filter(|f| either(f, "directory")).filter_map(trust_allow).collect();
    let block: Vec<_> = block.iter().filter(|f| either(f, "signer")).collect();
    for fields in &block {
        if let Some((Value::Text(signer), span)) = fields.node.values.get("signer")
            && !keys.iter().any(|key| key.name == *signer)
        {
            let message = format!("there is no key `{}`", shown(signer));
            let help = "a signer is the `name` of a `[[trust.key]]`";
            checker.fault(Code::Identity, &span.clone(), message, "no such key", help);
        }
    }
    let block = block.into_iter().filter_map(trust_block).collect();
    Trust {
        mode: trust.mode("mode", defaults.mode),
        kernel: trust.flag("kernel", defaults.kernel),
        scripts: trust.flag("scripts", defaults.scripts),
        modules: trust.flag("modules", defaults.modules),
        terminal: trust.flag("terminal", defaults.terminal),
        sources: trust.named("sources", TrustSource::from_name).unwrap_or(defaults.sources),
        writers_for: trust.duration("writers_for", defaults.writers_for),
        allow,
        block,
        keys,
    }
}

fn services(checker: &mut Checker<'_>, root: &mut Node) -> Services {
    let profiles = Fields::all(root.child("services"), "profile");
    let allow = Fields::all(root.child("services"), "allow");
    let services = Fields::only(root, "services");
    for (index, fields) in profiles.iter().enumerate() {
        let name = fields.text("name");
        let before = || profiles[..index].iter().any(|other| other.text("name") == name);
        if let Some(name) = name.as_deref().filter(|_| before()) {
            let message = format!("`{}` is given twice", shown(name));
            checker.fault(Code::Twice, &fields.node.span, message, "again here", "a service has one entry");
        }
    }
    Services {
        mode: services.service_mode("mode").unwrap_or_default(),
        profiles: profiles
            .iter()
            .filter_map(|f| {
                let (mode, strict) = (f.service_mode("mode"), f.flag("strict", false));
                Some(ServiceProfile { name: f.text("name")?, mode, strict })
            })
            .collect(),
        allow: allow.iter().filter_map(service_allow).collect(),
    }
}

fn service_allow(fields: &Fields) -> Option<ServiceAllow> {
    Some(ServiceAllow {
        service: fields.text("service")?,
        class: davy_model::ProgramClass::from_name(&fields.text("class")?)?,
        command: fields.text("command"),
        reason: fields.text("reason")?,
        until: fields.until("until"),
    })
}

/// The section `[scan]` and its list.
fn scan(root: &mut Node, defaults: Scan) -> Scan {
    let allow = Fields::all(root.child("scan"), "allow");
    let scan = Fields::only(root, "scan");
    let entry = |fields: &Fields| {
        Some(ScanAllow {
            sha256: fields.digest("sha256")?,
            reason: fields.text("reason")?,
            until: fields.until("until"),
        })
    };
    Scan {
        mode: scan.mode("mode", defaults.mode),
        on: scan.named("on", ScanTrigger::from_name).unwrap_or(defaults.on),
        severity: scan.text("severity").and_then(|name| severity(&name)).unwrap_or(defaults.severity),
        actions: scan.actions().unwrap_or(defaults.actions),
        cpu: scan.integer("cpu", defaults.cpu),
        schedule: scan.duration_or_off("schedule").unwrap_or(defaults.schedule),
        paths: if scan.has("paths") { scan.texts("paths") } else { defaults.paths },
        rules: scan.texts("rules"),
        hashes: scan.texts("hashes"),
        allow: allow.iter().filter_map(entry).collect(),
    }
}

fn severity(name: &str) -> Option<Severity> {
    serde_json::from_value(name.into()).ok()
}

fn trust_allow(fields: &Fields) -> Option<TrustAllow> {
    let by = match fields.digest("sha256") {
        Some(digest) => TrustedBy::Content(digest),
        None => TrustedBy::Directory(fields.text("directory")?),
    };
    Some(TrustAllow { by, reason: fields.text("reason")?, until: fields.until("until") })
}

fn trust_block(fields: &Fields) -> Option<TrustBlock> {
    let by = match fields.digest("sha256") {
        Some(digest) => BlockedBy::Content(digest),
        None => BlockedBy::Signer(fields.text("signer")?),
    };
    Some(TrustBlock { by, reason: fields.text("reason")?, until: fields.until("until") })
}

/// A unit that is not named in full would never match, and nobody would know.
pub(crate) fn unit_name(checker: &mut Checker<'_>, fields: &Fields, key: &str) {
    let Some((Value::Text(unit), span)) = fields.node.values.get(key) else { return };
    let full =
        [".service", ".scope", ".slice"].iter().any(|kind| unit.len() > kind.len() && unit.ends_with(kind));
    if !full || unit.contains('/') {
        let message = format!("`{}` is not a unit's full name", shown(unit));
        let help = "`systemctl status PID` shows the unit of a process";
        checker.fault(
            Code::Identity,
            &span.clone(),
            message,
            "expected a name such as \"boinc-client.service\"",
            help,
        );
    }
}

fn policy_test(checker: &mut Checker<'_>, mut node: Node) -> Option<PolicyTest> {
    let span = node.span.clone();
    if !node.written.contains(&"given") {
        checker.fault(Code::Missing, &span, "`given` is missing", "needs `given = { … }`", "What is found.");
        return None;
    }
    let evidence = Fields::only(node.child("given"), "evidence").node;
    let given = Fields::only(&mut node, "given");
    let (has_confidence, has_evidence) =
        (given.node.written.contains(&"confidence"), given.node.written.contains(&"evidence"));
    if has_confidence == has_evidence {
        let message = "a test gives the confidence or the evidence, one of both";
        let help = "`confidence = 0.99`, or `evidence = { rounding_mode = 14.0 }` in bits";
        checker.fault(Code::Missing, &given.node.span, message, "`confidence` or `evidence`", help);
        return None;
    }
    let test = Fields { node };
    Some(PolicyTest {
        name: test.text("name")?,
        expect: Expectation::from_name(&test.text("expect")?)?,
        given: Given {
            finding: match given.text("finding") {
                Some(name) => finding_kind(&name)?,
                None => davy_model::FindingKind::Mining,
            },
            path: given.text("path").unwrap_or_default(),
            sha256: given.digest("sha256"),
            user: given.text("user"),
            service: given.text("service"),
            cgroup: given.text("cgroup").unwrap_or_else(|| "/".to_owned()),
            confidence: given.number("confidence"),
            evidence: evidence
                .values
                .iter()
                .filter_map(|(name, (value, _))| match value {
                    Value::Number(bits) => Some((signal(name)?, *bits as f32)),
                    _ => None,
                })
                .collect(),
        },
    })
}

/// Notes the line of everything that was written.
fn take_lines(checker: &Checker<'_>, origin: &mut Origin, prefix: &str, node: &Node) {
    let join = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    for (name, (_, span)) in &node.values {
        origin.lines.insert(join(name), checker.line(span.start));
    }
    for (name, nodes) in &node.children {
        let path = join(name);
        let repeated = SECTIONS.iter().any(|s| s.repeated && s.path == path);
        for (index, child) in nodes.iter().enumerate() {
            let path = if repeated { format!("{path}[{index}]") } else { path.clone() };
            origin.lines.insert(path.clone(), checker.line(child.span.start));
            take_lines(checker, origin, &path, child);
        }
    }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

fn clamp(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The good values of one table; what was not written, or was a fault, is absent.
pub(crate) struct Fields {
    pub(crate) node: Node,
}

impl Fields {
    /// The one table of this name below, or an empty one.
    pub(crate) fn only(parent: &mut Node, name: &'static str) -> Self {
        let node = parent.children.remove(name).and_then(|nodes| nodes.into_iter().next());
        Self { node: node.unwrap_or_default() }
    }

    /// All tables of this name below.
    pub(crate) fn all(parent: &mut Node, name: &'static str) -> Vec<Self> {
        let nodes = parent.children.remove(name).unwrap_or_default();
        nodes.into_iter().map(|node| Self { node }).collect()
    }

    /// Whether it was written, good or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.node.written.contains(&name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.node.values.get(name).map(|(value, _)| value)
    }

    pub(crate) fn mode(&self, name: &str, default: Mode) -> Mode {
        if let Some(Value::Mode(mode)) = self.get(name) { *mode } else { default }
    }

    fn service_mode(&self, name: &str) -> Option<ServiceMode> {
        ServiceMode::from_name(&self.text(name)?)
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        if let Some(Value::Flag(flag)) = self.get(name) { *flag } else { default }
    }

    fn integer(&self, name: &str, default: u32) -> u32 {
        match self.get(name) {
            Some(Value::Integer(number)) => u32::try_from(*number).unwrap_or(default),
            _ => default,
        }
    }

    fn number(&self, name: &str) -> Option<f64> {
        if let Some(Value::Number(number)) = self.get(name) { Some(*number) } else { None }
    }

    fn duration_or_off(&self, name: &str) -> Option<Option<Duration>> {
        if let Some(Value::Duration(duration)) = self.get(name) { Some(*duration) } else { None }
    }

    pub(crate) fn duration(&self, name: &str, default: Duration) -> Duration {
        self.duration_or_off(name).flatten().unwrap_or(default)
    }

    fn size(&self, name: &str) -> Option<u64> {
        if let Some(Value::Size(bytes)) = self.get(name) { Some(*bytes) } else { None }
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        if let Some(Value::Text(text)) = self.get(name) { Some(text.clone()) } else { None }
    }

    fn digest(&self, name: &str) -> Option<Digest> {
        if let Some(Value::Digest(digest)) = self.get(name) { Some(*digest) } else { None }
    }

    pub(crate) fn until(&self, name: &str) -> Option<Timestamp> {
        if let Some(Value::Until(time)) = self.get(name) { Some(*time) } else { None }
    }

    /// Networks of a list; `None` where it was not written.
    pub(crate) fn networks(&self, name: &str) -> Option<Vec<Prefix>> {
        let Value::List(list) = self.get(name)? else { return None };
        let network = |v: &Value| if let Value::Network(network) = v { Some(*network) } else { None };
        Some(list.iter().filter_map(network).collect())
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let Some(Value::List(list)) = self.get(name) else { return Vec::new() };
        let text = |v: &Value| if let Value::Text(text) = v { Some(text.clone()) } else { None };
        list.iter().filter_map(text).collect()
    }

    /// Words of a list as what they name, in order, whatever order was written.
    fn named<T: Ord>(&self, name: &str, from_name: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        self.get(name)?;
        let mut named: Vec<_> = self.texts(name).iter().filter_map(|word| from_name(word)).collect();
        named.sort_unstable();
        Some(named)
    }

    /// In Davy's order, whatever order was written.
    fn actions(&self) -> Option<Vec<ActionKind>> {
        self.named("actions", ActionKind::from_name)
    }
}

impl Node {
    /// The one table of this name below; an empty one is made where there is none.
    pub(crate) fn child(&mut self, name: &'static str) -> &mut Self {
        let nodes = self.children.entry(name).or_default();
        if nodes.is_empty() {
            nodes.push(Self::default());
        }
        &mut nodes[0]
    }
}
