//! What the policy wants done about a finding, and which line of it says so.

use davy_model::{Finding, FindingKind, Mode, Timestamp};

use crate::policy_test::name_of;
use crate::{ActionKind, Allow, AllowedBy, Digest, Policy};

/// What is known of the process a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The program's path for people; never looked at to decide.
    pub path: String,
    /// Digest of the file it runs, where it could be read.
    pub sha256: Option<Digest>,
    /// User by name, or by number where the name is unknown.
    pub user: Option<String>,
    /// cgroup v2 path below the mount; empty where unknown.
    pub cgroup: String,
    /// The profile of the service that it came from, if it did.
    pub service: Option<String>,
}

/// What holds at the moment of a decision besides the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The moment.
    pub now: Timestamp,
    /// Until when break-glass holds.
    pub disarmed_until: Option<Timestamp>,
    /// Why this protection fell back to observe, if it did.
    pub fallen_back: Option<String>,
    /// The cgroup subtree that is rehearsed in: there every protection enforces.
    pub rehearsal: Option<String>,
}

/// What is to be done about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the actions are done (`Enforce`), told (`Observe`), or the finding is not looked at (`Off`).
    pub mode: Mode,
    /// What is done, or would be, in Davy's order. An alert is always among them unless it is allowed or off.
    pub actions: Vec<ActionKind>,
    /// Whether an allow entry covers it: it is kept for the record and nobody is alerted.
    pub allowed: bool,
    /// The sentence that says which line decided.
    pub why: String,
}

impl Decision {
    fn observe(actions: Vec<ActionKind>, why: String) -> Self {
        Self { mode: Mode::Observe, actions, allowed: false, why }
    }

    /// The strongest action that is really done; `None` when nothing is, not even an alert.
    #[must_use]
    pub fn strongest(&self) -> Option<ActionKind> {
        match self.mode {
            Mode::Enforce => self.actions.last().copied(),
            _ => self.actions.first().copied(),
        }
    }
}

impl Policy {
    /// What to do about a finding, when nothing but the policy holds.
    #[must_use]
    pub fn decide(&self, finding: &Finding, subject: &Subject, now: Timestamp) -> Decision {
        self.decide_under(finding, subject, &Circumstances { now, ..Circumstances::default() })
    }

    /// What to do about a finding, with break-glass, a fall-back and a rehearsal taken into account.
    ///
    /// The order is: off, allow entries, break-glass, fall-back, protected users, scope, mode, confidence. Inside a
    /// rehearsal's cgroup every action is taken, and only break-glass, fall-back and confidence still hold back.
    #[must_use]
    pub fn decide_under(&self, finding: &Finding, subject: &Subject, under: &Circumstances) -> Decision {
        let section = Self::section_of(finding.kind);
        let rehearsed = under.rehearsal.as_deref().is_some_and(|root| lies_within(&subject.cgroup, root));
        let (mode, mode_line) = self.mode_for(finding.kind, subject);
        if mode == Mode::Off && !rehearsed {
            let why = format!("`{section}` is off ({mode_line})");
            return Decision { mode, actions: Vec::new(), allowed: false, why };
        }
        if let (false, Some(why)) = (rehearsed, self.allowed(finding.kind, subject, under.now)) {
            return Decision { mode, actions: Vec::new(), allowed: true, why };
        }
        let (actions, confident) = self.actions_for(finding, rehearsed);
        if under.disarmed_until.is_some_and(|until| under.now < until) {
            return Decision::observe(actions, "break-glass: davy is disarmed".to_owned());
        }
        if let Some(reason) = &under.fallen_back {
            return Decision::observe(actions, format!("`{section}` fell back to observe: {reason}"));
        }
        if rehearsed {
            let why = format!("a rehearsal enforces in {}; {confident}", subject.cgroup);
            return Decision { mode: Mode::Enforce, actions, allowed: false, why };
        }
        if let Some(user) = self.protected(subject) {
            let line = self.origin.of("failsafe.protect_users");
            let why = format!("processes of {user} are never acted on ({line})");
            return Decision::observe(actions, why);
        }
        // Who scans is no process of this host, and no cgroup's.
        if finding.kind != FindingKind::Scan && !self.in_scope(&subject.cgroup) {
            let line = self.origin.of("scope.cgroups");
            let why = format!("{} lies outside the policy's scope ({line})", shown(&subject.cgroup));
            return Decision::observe(actions, why);
        }
        let word = if mode == Mode::Enforce { "enforced" } else { "observed" };
        Decision {
            mode,
            actions,
            allowed: false,
            why: format!("`{section}` is {word} ({mode_line}); {confident}"),
        }
    }

    /// What `[pools]` decides about the connections of a program that mines: they are cut by it whatever `[mining]` does with the
    /// program itself. `None` where it does not enforce, and about findings that speak of no pool.
    #[must_use]
    pub fn cuts_pool_of(
        &self,
        finding: &Finding,
        subject: &Subject,
        under: &Circumstances,
    ) -> Option<Decision> {
        if finding.kind != FindingKind::Mining {
            return None;
        }
        let contact = Finding { kind: FindingKind::PoolContact, evidence: Vec::new(), ..finding.clone() };
        let decision = self.decide_under(&contact, subject, under);
        (decision.mode == Mode::Enforce && !decision.allowed).then_some(decision)
    }

    /// The mode for a finding, and the line that says so: a service may have one of its own.
    fn mode_for(&self, kind: FindingKind, subject: &Subject) -> (Mode, String) {
        let own = subject.service.as_deref().filter(|_| kind == FindingKind::Service).and_then(|service| {
            let mut profiles = self.services.profiles.iter().enumerate();
            let (index, profile) = profiles.find(|(_, profile)| profile.name == service)?;
            Some((profile.mode?.plain(), format!("services.profile[{index}].mode")))
        });
        let (mode, setting) =
            own.unwrap_or_else(|| (self.mode_of(kind), format!("{}.mode", Self::section_of(kind))));
        (mode, self.origin.of(&setting))
    }

    /// Whether the policy acts in this cgroup: always when no scope is given. An unknown cgroup is outside of any.
    #[must_use]
    pub fn in_scope(&self, cgroup: &str) -> bool {
        self.scope.cgroups.is_empty() || self.scope.cgroups.iter().any(|root| lies_within(cgroup, root))
    }

    /// The actions for a finding in the order they are done, and the half sentence on its confidence.
    fn actions_for(&self, finding: &Finding, rehearsed: bool) -> (Vec<ActionKind>, String) {
        let least = self.mining.confidence;
        // A rehearsal is to show all that Davy can do, whatever is chosen for the host.
        let chosen = |chosen| -> &[ActionKind] { if rehearsed { &ActionKind::ALL } else { chosen } };
        let line = self.origin.of("mining.confidence");
        let alert = vec![ActionKind::Alert];
        let percent = finding.confidence;
        match finding.kind {
            FindingKind::Mining if finding.confidence < least => {
                (alert, format!("confidence {percent:.3} is below {least} ({line}): alert only"))
            }
            FindingKind::Mining => {
                let line = self.origin.of("mining.actions");
                let by = if rehearsed { "all actions".to_owned() } else { format!("actions by {line}") };
                (with_alert(chosen(&self.mining.actions), |_| true), by)
            }
            FindingKind::Malware if finding.severity < self.scan.severity => {
                let line = self.origin.of("scan.severity");
                let (is, least) = (name_of(&finding.severity), name_of(&self.scan.severity));
                (alert, format!("severity {is} is below {least} ({line}): alert only"))
            }
            FindingKind::Malware => {
                let line = self.origin.of("scan.actions");
                let by = if rehearsed { "all actions".to_owned() } else { format!("actions by {line}") };
                (with_alert(chosen(&self.scan.actions), |action| action != ActionKind::Cut), by)
            }
            // Which connections are sure enough to be cut is settled where they are proposed.
            FindingKind::PoolContact => (
                vec![ActionKind::Alert, ActionKind::Cut],
                "a connection to a pool is cut, and its holder is left alone".to_owned(),
            ),
            FindingKind::Service => (
                vec![ActionKind::Alert, ActionKind::Kill],
                "what the service started is ended, and the service goes on".to_owned(),
            ),
            FindingKind::Scan => (
                vec![ActionKind::Alert, ActionKind::Ban],
                "whoever is proven to have sent it himself is banned".to_owned(),
            ),
            // What is refused is refused where it begins, and not because of a finding.
            FindingKind::Untrusted | FindingKind::Fileless => {
                (alert, "code is refused where it begins; a finding about it only alerts".to_owned())
            }
            // So is a connection.
            FindingKind::Outbound | FindingKind::Lateral => {
                (alert, "connections are refused where they begin; a finding about it only alerts".to_owned())
            }
            _ => (alert, "this protection only alerts in this version".to_owned()),
        }
    }

    /// The sentence of the entry that allows this, if one does.
    fn allowed(&self, kind: FindingKind, subject: &Subject, now: Timestamp) -> Option<String> {
        if !matches!(kind, FindingKind::Mining | FindingKind::PoolContact) {
            return None;
        }
        let mut entries = self.mining.allow.iter().enumerate();
        let (index, entry) = entries.find(|(_, entry)| entry.holds(subject, now))?;
        let line = self.origin.of(&format!("mining.allow[{index}]"));
        Some(format!("allowed: {} ({line})", entry.reason))
    }

    fn protected(&self, subject: &Subject) -> Option<&str> {
        let user = subject.user.as_deref()?;
        self.failsafe.protect_users.iter().find(|u| *u == user).map(String::as_str)
    }
}

impl Allow {
    /// Whether the entry covers this process at this moment.
    #[must_use]
    pub fn holds(&self, subject: &Subject, now: Timestamp) -> bool {
        if self.until.is_some_and(|until| now >= until) {
            return false;
        }
        let runs_as = |user: &String| subject.user.as_ref() == Some(user);
        match &self.by {
            AllowedBy::Content(digest) => subject.sha256 == Some(*digest),
            AllowedBy::Unit { unit, user } => {
                runs_as(user) && subject.cgroup.split('/').any(|part| part == unit)
            }
            AllowedBy::Cgroup { cgroup, user } => runs_as(user) && lies_within(&subject.cgroup, cgroup),
        }
    }
}

fn with_alert(actions: &[ActionKind], wanted: impl Fn(ActionKind) -> bool) -> Vec<ActionKind> {
    let rest = actions.iter().copied().filter(|a| *a != ActionKind::Alert && wanted(*a));
    std::iter::once(ActionKind::Alert).chain(rest).collect()
}

/// Whether a cgroup is this subtree's root or lies below it.
fn lies_within(cgroup: &str, root: &str) -> bool {
    match cgroup.strip_prefix(root.trim_end_matches('/')) {
        Some(rest) => !cgroup.is_empty() && (rest.is_empty() || rest.starts_with('/')),
        None => false,
    }
}

fn shown(cgroup: &str) -> &str {
    if cgroup.is_empty() { "a process of unknown cgroup" } else { cgroup }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use davy_model::{FindingId, Severity};

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn finding(kind: FindingKind, confidence: f64) -> Finding {
        Finding {
            id: FindingId(1),
            kind,
            first: NOW,
            time: NOW,
            severity: Severity::High,
            confidence,
            subject: None,
            processes: Vec::new(),
            summary: String::new(),
            evidence: Vec::new(),
            techniques: Vec::new(),
        }
    }

    fn subject(cgroup: &str, user: &str) -> Subject {
        Subject { cgroup: cgroup.to_owned(), user: Some(user.to_owned()), ..Subject::default() }
    }

    fn policy(text: &str) -> Policy {
        Policy::parse("p.toml", text).unwrap_or_else(|faults| panic!("{faults}"))
    }

    #[test]
    fn the_default_only_observes_and_says_what_it_would_do() {
        let d = Policy::default().decide(&finding(FindingKind::Mining, 0.99), &subject("/a", "www"), NOW);
        assert_eq!(d.mode, Mode::Observe);
        assert_eq!(d.actions, ActionKind::ALL);
        assert_eq!(d.strongest(), Some(ActionKind::Alert));
    }

    #[test]
    fn scope_holds_whole_path_parts() {
        let p = policy("[scope]\ncgroups = [\"/a/b\"]\n[mining]\nmode = \"enforce\"\n");
        let mode = |cgroup| p.decide(&finding(FindingKind::Mining, 0.99), &subject(cgroup, "www"), NOW).mode;
        assert_eq!(mode("/a/b"), Mode::Enforce);
        assert_eq!(mode("/a/b/c"), Mode::Enforce);
        for outside in ["/a/bc", "/a", "", "/", "/x/a/b"] {
            assert_eq!(mode(outside), Mode::Observe, "{outside}");
        }
    }

    #[test]
    fn low_confidence_alerts_only_and_names_the_line() {
        let p = policy("[mining]\nmode = \"enforce\"\nconfidence = 0.9\n");
        let d = p.decide(&finding(FindingKind::Mining, 0.89), &subject("/a", "www"), NOW);
        assert_eq!(d.actions, [ActionKind::Alert]);
        assert!(d.why.contains("p.toml:3"), "{}", d.why);
    }

    #[test]
    fn an_entry_ends_with_its_last_day() {
        let p = policy(
            "[mining]\nmode = \"enforce\"\n[[mining.allow]]\nunit = \"b.service\"\nuser = \"b\"\nreason = \"ours\"\nuntil = 2027-01-14\n",
        );
        let last = Timestamp::from_secs(1_799_971_199); // 2027-01-14T23:59:59Z
        let found = finding(FindingKind::Mining, 0.99);
        let d = p.decide(&found, &subject("/system.slice/b.service", "b"), last);
        assert!(d.allowed && d.actions.is_empty() && d.why.contains("ours (p.toml:3)"), "{}", d.why);
        assert!(!p.decide(&found, &subject("/system.slice/b.service", "b"), last.plus_secs(1.0)).allowed);
        assert!(!p.decide(&found, &subject("/system.slice/b.service", "c"), last).allowed);
        assert!(!p.decide(&found, &subject("/system.slice/bb.service", "b"), last).allowed);
    }

    #[test]
    fn a_pool_is_cut_by_its_own_section_and_nobody_is_killed_for_it() {
        let p = policy("[mining]\nactions = [\"kill\"]\n[pools]\nmode = \"enforce\"\n");
        let d = p.decide(&finding(FindingKind::PoolContact, 0.9), &subject("/a", "www"), NOW);
        assert_eq!((d.mode, d.strongest()), (Mode::Enforce, Some(ActionKind::Cut)));
        assert!(d.why.contains("p.toml:4"), "{}", d.why);
        let only_mining = policy("[mining]\nmode = \"enforce\"\n");
        let d = only_mining.decide(&finding(FindingKind::PoolContact, 0.99), &subject("/a", "www"), NOW);
        assert_eq!(d.mode, Mode::Observe);
    }

    #[test]
    fn a_miners_pool_is_cut_where_only_pools_are_enforced() {
        let under = |text: &str, cgroup: &str| {
            let circumstances = Circumstances { now: NOW, ..Circumstances::default() };
            let found = finding(FindingKind::Mining, 0.96);
            policy(text).cuts_pool_of(&found, &subject(cgroup, "www"), &circumstances)
        };
        let d = under("[mining]\nmode = \"off\"\nconfidence = 0.999\n[pools]\nmode = \"enforce\"\n", "/a");
        assert_eq!(d.unwrap().actions, [ActionKind::Alert, ActionKind::Cut]);
        assert_eq!(under("", "/a"), None, "it observes by default");
        let scoped = "[scope]\ncgroups = [\"/a\"]\n[pools]\nmode = \"enforce\"\n";
        assert!(under(scoped, "/a").is_some() && under(scoped, "/b").is_none());
        let wanted = "[pools]\nmode = \"enforce\"\n[[mining.allow]]\ncgroup = \"/a\"\nuser = \"www\"\nreason = \"ours\"\n";
        assert_eq!(under(wanted, "/a"), None, "mining that is wanted may talk to its pool");
        let circumstances = Circumstances { now: NOW, ..Circumstances::default() };
        let other = finding(FindingKind::Malware, 0.99);
        let p = policy("[pools]\nmode = \"enforce\"\n");
        assert_eq!(p.cuts_pool_of(&other, &subject("/a", "www"), &circumstances), None);
    }

    #[test]
    fn who_scans_is_banned_where_that_is_enforced() {
        for (mode, strongest) in [("enforce", ActionKind::Ban), ("observe", ActionKind::Alert)] {
            for scope in ["", "[scope]\ncgroups = [\"/a\"]\n"] {
                let p = policy(&format!("{scope}[scans]\nmode = \"{mode}\"\n"));
                let decision = p.decide(&finding(FindingKind::Scan, 0.9), &subject("", ""), NOW);
                assert_eq!(decision.strongest(), Some(strongest), "{mode} {scope}");
                let told = [ActionKind::Alert, ActionKind::Ban];
                assert_eq!(decision.actions, told, "what would be done is told");
            }
        }
    }

    #[test]
    fn malware_is_acted_upon_from_the_severity_on_and_nothing_is_cut() {
        let p = policy("[scan]\nmode = \"enforce\"\nactions = [\"quarantine\"]\n");
        let decide = |severity| {
            let found = Finding { severity, ..finding(FindingKind::Malware, 0.9) };
            p.decide(&found, &subject("/a", "www"), NOW)
        };
        assert_eq!(decide(Severity::High).actions, [ActionKind::Alert, ActionKind::Quarantine]);
        assert_eq!(decide(Severity::Medium).strongest(), Some(ActionKind::Alert));
        let under = Circumstances { now: NOW, rehearsal: Some("/d".to_owned()), ..Default::default() };
        let rehearsed = p.decide_under(&finding(FindingKind::Malware, 0.9), &subject("/d", "root"), &under);
        assert!(!rehearsed.actions.contains(&ActionKind::Cut) && rehearsed.actions.len() == 4);
    }

    #[test]
    fn failsafes_come_before_enforcing() {
        let p = policy("[mining]\nmode = \"enforce\"\n[failsafe]\nprotect_users = [\"root\"]\n");
        let found = finding(FindingKind::Mining, 0.99);
        assert_eq!(p.decide(&found, &subject("/a", "root"), NOW).mode, Mode::Observe);
        let mut under =
            Circumstances { now: NOW, disarmed_until: Some(NOW.plus_secs(1.0)), ..Default::default() };
        assert_eq!(p.decide_under(&found, &subject("/a", "www"), &under).mode, Mode::Observe);
        under.now = NOW.plus_secs(1.0);
        assert_eq!(p.decide_under(&found, &subject("/a", "www"), &under).mode, Mode::Enforce);
        under.fallen_back = Some("31 actions in a minute".to_owned());
        assert_eq!(p.decide_under(&found, &subject("/a", "www"), &under).mode, Mode::Observe);
    }

    #[test]
    fn a_rehearsal_enforces_in_its_cgroup_and_nowhere_else() {
        let p = policy("[mining]\nmode = \"off\"\nactions = [\"freeze\"]\n");
        let under =
            Circumstances { now: NOW, rehearsal: Some("/davy-drill-1".to_owned()), ..Default::default() };
        let found = finding(FindingKind::Mining, 0.99);
        let d = p.decide_under(&found, &subject("/davy-drill-1/x", "root"), &under);
        assert_eq!((d.mode, d.strongest()), (Mode::Enforce, Some(ActionKind::Kill)));
        assert_eq!(p.decide_under(&found, &subject("/davy-drill-11", "root"), &under).mode, Mode::Off);
    }
}
