//! The engine thread's end: a scan of ports becomes a finding, and an incident from medium severity on.

use std::collections::BTreeMap;

use davy_model::{
    Evidence, Finding, FindingId, FindingKind, Incident, IncidentId, IncidentState, Severity, Signal,
    Technique, TimelineEntry, Timestamp,
};
use davy_net::scans::PortScan;

/// Scans of which it is remembered what they were told as; the oldest go.
const MAX_TOLD: usize = 1024;

/// The most lines of one story; beyond it the last one is told anew.
const MAX_ENTRIES: usize = 16;

/// What scans were told as.
#[derive(Debug, Default)]
pub(crate) struct PortScanTeller {
    told: BTreeMap<u64, (FindingId, Option<Incident>)>,
}

impl PortScanTeller {
    /// Makes the finding of a scan, and its incident if it has one. `new` numbers what begins.
    pub(crate) fn tell(
        &mut self,
        scan: &PortScan,
        now: Timestamp,
        new_finding: impl FnOnce() -> FindingId,
        new_incident: impl FnOnce() -> IncidentId,
    ) -> (Finding, Option<Incident>) {
        let (id, before) = self.told.remove(&scan.number).unwrap_or_else(|| (new_finding(), None));
        let finding = finding(id, scan, now);
        let incident = match before {
            Some(before) => Some(go_on(before, scan, &finding)),
            None if finding.severity >= Severity::Medium => Some(begin(new_incident(), scan, &finding)),
            None => None,
        };
        self.told.insert(scan.number, (id, incident.clone()));
        while self.told.len() > MAX_TOLD {
            self.told.pop_first();
        }
        (finding, incident)
    }
}

fn finding(id: FindingId, scan: &PortScan, now: Timestamp) -> Finding {
    let technique = Technique::new(scan.technique());
    let evidence = scan.reasons().into_iter().map(|reason| Evidence {
        time: scan.last,
        signal: Signal::PortScan,
        weight: reason.bits,
        text: reason.text,
        numbers: reason.numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect(),
        process: None,
        flow: None,
        technique: (reason.bits > 0.0).then(|| technique.clone()),
    });
    Finding {
        id,
        kind: FindingKind::Scan,
        first: scan.first,
        time: now,
        severity: scan.severity(),
        confidence: scan.confidence(),
        subject: None,
        processes: Vec::new(),
        summary: scan.summary(),
        evidence: evidence.collect(),
        techniques: vec![technique],
    }
}

fn state(scan: &PortScan) -> IncidentState {
    if scan.running { IncidentState::Running } else { IncidentState::Ended }
}

fn begin(id: IncidentId, scan: &PortScan, finding: &Finding) -> Incident {
    Incident {
        id,
        state: state(scan),
        severity: finding.severity,
        title: scan.title(),
        first: scan.first,
        last: scan.last,
        detected: scan.detected,
        stopped: None,
        timeline: vec![entry(scan.first, "began with", scan)],
        tree: Vec::new(),
        findings: vec![finding.clone()],
        actions: Vec::new(),
        techniques: finding.techniques.clone(),
    }
}

fn go_on(mut incident: Incident, scan: &PortScan, finding: &Finding) -> Incident {
    let (before, now) = (incident.state, state(scan));
    let (time, relation) = match (before, now) {
        (IncidentState::Running, IncidentState::Running) => (scan.last, "which grew"),
        (_, IncidentState::Running) => (scan.last, "went on"),
        _ if scan.cut_short => (finding.time, "last seen"),
        _ => (finding.time, "and ended"),
    };
    // Of a scan that grows and grows the newest size is told, and not each.
    if incident.timeline.last().is_some_and(|last| last.relation == relation)
        || incident.timeline.len() >= MAX_ENTRIES
    {
        incident.timeline.pop();
    }
    incident.timeline.push(entry(time, relation, scan));
    incident.state = now;
    incident.severity = incident.severity.max(finding.severity);
    incident.title = scan.title();
    incident.last = scan.last;
    incident.findings = vec![finding.clone()];
    incident
}

fn entry(time: Timestamp, relation: &str, scan: &PortScan) -> TimelineEntry {
    TimelineEntry {
        time,
        relation: relation.to_owned(),
        text: scan.summary(),
        process: None,
        user: None,
        techniques: vec![Technique::new(scan.technique())],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_model::{Place, PortProbeKind, ProbeKinds};
    use davy_net::scans::Scanner;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn scan(number: u64, ports: u32, running: bool, place: Place) -> PortScan {
        PortScan {
            number,
            renewed: false,
            running,
            cut_short: false,
            scanner: Scanner::Address("198.51.100.7".parse().unwrap()),
            place,
            proven: false,
            first: NOW.plus_secs(-5.0),
            last: NOW,
            detected: NOW.plus_secs(-3.0),
            visits_needed: 7,
            probes: ports,
            ports,
            failed: ports,
            open: Vec::new(),
            decoys: Vec::new(),
            forbidden: 0,
            kinds: ProbeKinds::from(vec![PortProbeKind::Syn]),
            tool: None,
            bits: 24.0,
            base_rate: 0.9,
            alike: None,
        }
    }

    #[test]
    fn a_scan_is_one_finding_and_one_incident_from_its_beginning_to_its_end() {
        let mut teller = PortScanTeller::default();
        let new = || FindingId(4);
        let none = || -> IncidentId { panic!("a few ports from outside are no incident") };
        let (small, incident) = teller.tell(&scan(1, 8, true, Place::Outside), NOW, new, none);
        assert_eq!((small.kind, small.severity, incident), (FindingKind::Scan, Severity::Low, None));
        assert_eq!(small.techniques, [Technique::new("T1595.001")]);
        assert!(small.evidence.iter().map(|e| e.weight).sum::<f32>() >= 20.0);
        let same = || -> FindingId { panic!("it has a number") };
        let (grown, incident) = teller.tell(&scan(1, 500, true, Place::Outside), NOW, same, || IncidentId(9));
        let incident = incident.unwrap();
        assert_eq!(
            (grown.id, incident.id, incident.state),
            (FindingId(4), IncidentId(9), IncidentState::Running)
        );
        assert!(incident.title.starts_with("port scan") && incident.timeline[0].text.contains("500 ports"));
        let again = || -> IncidentId { panic!("it has a number") };
        let (_, over) = teller.tell(&scan(1, 900, false, Place::Outside), NOW, same, again);
        let over = over.unwrap();
        assert_eq!((over.state, over.timeline.len()), (IncidentState::Ended, 2));
        assert_eq!(over.findings[0].id, FindingId(4));
    }

    #[test]
    fn from_within_it_is_an_incident_at_once_and_stories_are_bounded() {
        let mut teller = PortScanTeller::default();
        for number in 1..2000 {
            let id = || IncidentId(number);
            let (found, incident) =
                teller.tell(&scan(number, 8, true, Place::Inside), NOW, || FindingId(number), id);
            assert_eq!(
                (found.severity, incident.unwrap().techniques),
                (Severity::Medium, vec![Technique::new("T1046")])
            );
        }
        assert_eq!(teller.told.len(), MAX_TOLD);
        let mut last = None;
        for n in 0..100u32 {
            let scan = scan(1999, 8 + n, n % 2 == 0, Place::Inside);
            last = teller.tell(&scan, NOW, || panic!("it has one"), || panic!("it has one")).1;
        }
        assert!(last.unwrap().timeline.len() <= MAX_ENTRIES);
    }
}
