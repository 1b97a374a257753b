//! Makes findings of cases.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use davy_model::{
    Action, Destination, Evidence, Finding, FindingId, FindingKind, FlowKey, ImageKind, ProcessKey, Proposal,
    Severity, Signal, Technique, Timestamp,
};

use crate::case::{Case, Standing, UnitKey, Verdict};
use crate::conclusions::{Conclusions, Slotted};
use crate::detector::Detector;
use crate::lateral;
use crate::malware;
use crate::pool_contact::far_end;
use crate::process_table::Process;
use crate::weights::Class;

/// A finding that only grew a little is renewed after this long, in seconds.
const RENEW_SECS: f64 = 10.0;
/// How long Davy proposes to cut a pool off, in seconds.
const CUT_SECS: u32 = 86_400;

/// What a case amounts to in one kind of finding.
struct Claim {
    kind: FindingKind,
    severity: Severity,
    confidence: f64,
    suspected: bool,
}

impl Detector {
    /// Tells the findings that are new or have grown.
    pub(crate) fn find(&mut self, now: Timestamp, conclusions: &mut Conclusions) {
        let claims: Vec<(UnitKey, Claim)> = self
            .cases
            .iter()
            .flat_map(|(unit, case)| self.claims(case, now).into_iter().map(|claim| (*unit, claim)))
            .collect();
        for (unit, claim) in claims {
            let Some((slot, renewed)) = self.stand(unit, &claim, now) else { continue };
            let Some(finding) = self.finding(&unit, &claim, now) else { continue };
            let grows =
                matches!(claim.kind, FindingKind::Mining | FindingKind::PoolContact | FindingKind::Malware);
            if !renewed || grows {
                for action in self.answers(&unit, &finding, claim.suspected) {
                    let proposal = Proposal { finding: finding.id, action };
                    conclusions.proposals.push(Slotted { slot, renewed, item: proposal });
                }
            }
            conclusions.findings.push(Slotted { slot, renewed, item: finding });
        }
    }

    /// Gives the finding in a slot the number it has in the store.
    pub fn number_finding(&mut self, slot: u64, id: FindingId) {
        for case in self.cases.values_mut() {
            if let Some((_, standing)) = case.standing.iter_mut().find(|(_, s)| s.slot == slot) {
                standing.id = id;
            }
        }
        if let Some(loose) = self.loose.iter_mut().find(|loose| loose.slot == slot) {
            loose.id = id;
        }
        self.number_in_incidents(slot, id);
    }

    fn claims(&self, case: &Case, now: Timestamp) -> Vec<Claim> {
        let mut claims = Vec::new();
        let signal = |signal| case.ledger.signal_bits(signal, now);
        let (verdict, confidence) = case.verdict(now, &self.settings);
        let mines = case.standing(FindingKind::Mining).is_some_and(|s| !s.suspected);
        match verdict {
            Verdict::Mines => {
                claims.push(Claim {
                    kind: FindingKind::Mining,
                    severity: Severity::Critical,
                    confidence,
                    suspected: false,
                });
            }
            Verdict::Suspected if !mines => {
                claims.push(Claim {
                    kind: FindingKind::Mining,
                    severity: Severity::High,
                    confidence,
                    suspected: true,
                });
            }
            Verdict::Suspected | Verdict::Open => {}
        }
        let contact = signal(Signal::PoolList) + signal(Signal::Stratum);
        if contact >= 5.0 && verdict != Verdict::Mines && !mines {
            let severity = if contact >= 9.0 { Severity::High } else { Severity::Medium };
            claims.push(Claim {
                kind: FindingKind::PoolContact,
                severity,
                confidence: 0.9,
                suspected: false,
            });
        }
        if case.ledger.has(crate::tampering::TOPIC) {
            claims.push(Claim {
                kind: FindingKind::Tampering,
                severity: Severity::High,
                confidence: 0.9,
                suspected: false,
            });
        }
        let mut claim = |kind, severity, confidence| {
            claims.push(Claim { kind, severity, confidence, suspected: false });
        };
        let disguise = signal(Signal::Masquerade);
        if disguise >= 6.0 {
            claim(FindingKind::Masquerade, Severity::High, 0.95);
        } else if disguise >= 4.0 {
            claim(FindingKind::Masquerade, Severity::Medium, 0.8);
        }
        let fileless = signal(Signal::Fileless);
        if fileless >= 4.5 {
            claim(FindingKind::Fileless, Severity::Medium, 0.9);
        }
        let untrusted = signal(Signal::Trust);
        if untrusted >= 5.0 {
            claim(FindingKind::Untrusted, Severity::High, 0.95);
        } else if untrusted >= 0.5 {
            claim(FindingKind::Untrusted, Severity::Medium, 0.9);
        }
        let started = signal(Signal::Service);
        if started >= 4.0 {
            claim(FindingKind::Service, Severity::High, 0.9);
        } else if started >= 0.5 {
            claim(FindingKind::Service, Severity::Medium, 0.8);
        }
        let moved = signal(Signal::Lateral);
        if moved >= lateral::CLEAR {
            claim(FindingKind::Lateral, Severity::High, 0.9);
        } else if moved > 0.5 {
            claim(FindingKind::Lateral, Severity::Medium, 0.7);
        }
        if let Some(worst) = case.bad_files.iter().map(|file| file.severity).max() {
            claim(FindingKind::Malware, worst, malware::confidence(worst));
        }
        let acts = signal(Signal::Campaign);
        if acts >= 6.0 {
            claim(FindingKind::Campaign, Severity::High, 0.9);
        } else if acts >= 4.0 {
            claim(FindingKind::Campaign, Severity::Medium, 0.7);
        }
        // Administrators write cron tables and keys all day; what else the writer does makes the difference.
        let arranged = signal(Signal::Persistence);
        let other = disguise + fileless + acts + signal(Signal::OddParent) + signal(Signal::CommandLine);
        if arranged >= 1.0 && (other >= 1.5 || mines) {
            claim(FindingKind::Persistence, Severity::High, 0.9);
        } else if arranged >= 3.0 {
            claim(FindingKind::Persistence, Severity::Medium, 0.6);
        }
        claims
    }

    /// Decides whether a claim is to be told now; gives its slot and whether it was told before.
    fn stand(&mut self, unit: UnitKey, claim: &Claim, now: Timestamp) -> Option<(u64, bool)> {
        let grown = self.cases.get(&unit)?.ledger.grown();
        let slot = self.slot();
        let case = self.cases.get_mut(&unit)?;
        let speaks_of_pools = matches!(claim.kind, FindingKind::Mining | FindingKind::PoolContact);
        let new_pool = speaks_of_pools && case.pools.take_news();
        let first = case.ledger.first().unwrap_or(now);
        if let Some(standing) = case.standing_mut(claim.kind) {
            let worse = standing.suspected && !claim.suspected;
            let news = standing.told != grown && now.secs_since(standing.told_at) >= 2.0;
            let stale = now.secs_since(standing.told_at) >= RENEW_SECS
                && (claim.confidence - standing.confidence).abs() > 0.005;
            if !(worse || news || stale || new_pool) {
                return None;
            }
            standing.told = grown;
            standing.told_at = now;
            standing.confidence = claim.confidence;
            standing.suspected = claim.suspected;
            return Some((standing.slot, true));
        }
        case.standing.push((
            claim.kind,
            Standing {
                slot,
                id: FindingId::default(),
                first,
                told: grown,
                told_at: now,
                confidence: claim.confidence,
                suspected: claim.suspected,
            },
        ));
        Some((slot, false))
    }

    fn finding(&self, unit: &UnitKey, claim: &Claim, now: Timestamp) -> Option<Finding> {
        let case = self.cases.get(unit)?;
        let standing = case.standing(claim.kind)?;
        let evidence = relevant(case.ledger.evidence(now), claim.kind);
        let processes = self.members(unit);
        let subject = self.subject(unit, &processes, &evidence);
        let mut techniques: Vec<Technique> = evidence.iter().filter_map(|e| e.technique.clone()).collect();
        if claim.kind == FindingKind::Mining {
            techniques.push(Technique::new("T1496.001"));
        }
        techniques.sort();
        techniques.dedup();
        Some(Finding {
            id: standing.id,
            kind: claim.kind,
            first: standing.first,
            time: now,
            severity: claim.severity,
            confidence: claim.confidence,
            subject: Some(subject),
            processes,
            summary: self.summary(claim, &subject, &evidence),
            evidence,
            techniques,
        })
    }

    /// The living processes of a unit, or its first one when none lives.
    fn members(&self, unit: &UnitKey) -> Vec<ProcessKey> {
        let mut members: Vec<ProcessKey> =
            self.processes.iter().filter(|p| p.alive() && p.unit == *unit).map(|p| p.key).collect();
        members.sort_by_key(|key| (key.start_ticks, key.pid));
        if members.is_empty() {
            members.push(*unit);
        }
        members
    }

    fn subject(&self, unit: &UnitKey, members: &[ProcessKey], evidence: &[Evidence]) -> ProcessKey {
        if members.contains(unit) {
            return *unit;
        }
        let shown = evidence.iter().filter_map(|e| e.process).find(|p| members.contains(p));
        shown.or_else(|| members.first().copied()).unwrap_or(*unit)
    }

    fn summary(&self, claim: &Claim, subject: &ProcessKey, evidence: &[Evidence]) -> String {
        let who =
            self.processes.get(subject).map_or_else(|| format!("process {}", subject.pid), name_for_people);
        let why = evidence.first().map_or("", |e| e.text.as_str());
        match claim.kind {
            FindingKind::Mining if claim.suspected => {
                format!("{who} hides and computes without pause: {why}")
            }
            FindingKind::Mining => format!("{who} mines: {why}"),
            _ => format!("{who} {why}"),
        }
    }

    /// What could be done about a finding.
    fn answers(&self, unit: &UnitKey, finding: &Finding, suspected: bool) -> Vec<Action> {
        let Some(subject) = finding.subject.and_then(|s| self.processes.get(&s)) else { return Vec::new() };
        if subject.key.pid <= 1 || subject.program.kernel_thread {
            return vec![Action::Alert];
        }
        if finding.kind == FindingKind::Malware {
            let case = self.cases.get(unit);
            return case.map_or_else(Vec::new, |case| self.answers_to_malware(case, finding, subject.key));
        }
        let mut actions = vec![Action::Alert];
        if finding.kind == FindingKind::Mining {
            let (root, tree) = (subject.key, finding.processes.clone());
            actions.push(Action::Freeze { root, tree: tree.clone() });
            if !suspected {
                actions.push(Action::Kill { root, tree });
                actions.extend(self.quarantine(subject));
            }
        }
        // What the service started is ended, and the service goes on.
        let ran = |e: &Evidence| !e.numbers.contains_key(crate::service::REFUSED);
        if finding.kind == FindingKind::Service && subject.alive() && finding.evidence.iter().any(ran) {
            actions.push(Action::Kill { root: subject.key, tree: finding.processes.clone() });
        }
        if !suspected {
            actions.extend(self.cuts(unit, finding));
        }
        actions
    }

    /// The program's file, unless it belongs to the system: an interpreter is not the culprit.
    fn quarantine(&self, process: &Process) -> Option<Action> {
        let image = &process.program.image;
        if image.kind == ImageKind::Memfd || image.file.ino == 0 || self.lists.names.is_system(&image.path) {
            return None;
        }
        let path = image.path.strip_suffix(" (deleted)").unwrap_or(&image.path).to_owned();
        Some(Action::Quarantine { path, file: image.file, process: process.alive().then_some(process.key) })
    }

    /// The far ends of the unit's flows to pools. Of whoever mines those are all that the evidence names; of others those that
    /// lead to a pool for certain. What only the unit's own words make a pool is closed to those who spoke, and stays open to others:
    /// anybody can say such words to any server. For the same reason nobody is kept from a server on this host by words alone.
    fn cuts(&self, unit: &UnitKey, finding: &Finding) -> Vec<Action> {
        let mines = finding.kind == FindingKind::Mining;
        if !mines && finding.kind != FindingKind::PoolContact {
            return Vec::new();
        }
        let named: HashSet<FlowKey> = finding.evidence.iter().filter_map(|e| e.flow).collect();
        let mut ends: BTreeMap<Destination, BTreeSet<&str>> = BTreeMap::new();
        let mut proven = BTreeSet::new();
        let to_pools = self.flows.iter().filter(|f| f.to_pool || (mines && named.contains(&f.open.flow)));
        for flow in to_pools {
            let Some(owner) = flow.owner.filter(|owner| self.processes.unit_of(owner) == *unit) else {
                continue;
            };
            let Some(end) = far_end(flow) else { continue };
            if self.is_proven_pool(flow) {
                proven.insert(end);
            } else if mines || !end.address.is_loopback() {
                let cgroup = self.processes.get(&owner).map_or("", |p| p.program.cgroup.as_str());
                ends.entry(end).or_default().insert(cgroup);
            }
        }
        ends.retain(|end, _| !proven.contains(end));
        let cut = |destination, cgroup| Action::Cut { destination, cgroup, seconds: CUT_SECS };
        let for_all = proven.iter().map(|end| cut(*end, None));
        // Whose cgroup is not known cannot be told from others. The root of all cgroups has everybody in it.
        let place = |cgroup: &str| (cgroup != "/").then(|| cgroup.to_owned());
        let for_some = ends.iter().flat_map(|(end, cgroups)| {
            let known = cgroups.iter().filter(|cgroup| !cgroup.is_empty());
            known.map(|cgroup| cut(*end, place(cgroup)))
        });
        for_all.chain(for_some).collect()
    }
}

/// The evidence a kind of finding rests on.
fn relevant(evidence: Vec<Evidence>, kind: FindingKind) -> Vec<Evidence> {
    let keep = |signal: Signal| match kind {
        FindingKind::PoolContact => matches!(signal, Signal::Stratum | Signal::PoolList | Signal::PoolShape),
        FindingKind::Masquerade => signal == Signal::Masquerade,
        FindingKind::Fileless => signal == Signal::Fileless,
        FindingKind::Persistence => signal == Signal::Persistence,
        FindingKind::Campaign => matches!(signal, Signal::Campaign | Signal::Preparation),
        FindingKind::Tampering => signal == Signal::Campaign,
        FindingKind::Unproven => signal == Signal::Canary,
        FindingKind::Untrusted => signal == Signal::Trust,
        FindingKind::Service => signal == Signal::Service,
        FindingKind::Malware => signal == Signal::Scan,
        FindingKind::Scan => signal == Signal::PortScan,
        FindingKind::Outbound => signal == Signal::Outbound,
        FindingKind::Lateral => signal == Signal::Lateral,
        FindingKind::Mining => Class::of(signal).is_some(),
    };
    evidence.into_iter().filter(|e| keep(e.signal)).collect()
}

/// What a process is called for people: its short name, and its pid.
pub(crate) fn name_for_people(process: &Process) -> String {
    format!("\"{}\" ({})", process.comm, process.key.pid)
}
