//! What becomes of a canary that was not stopped: a finding, and an incident that runs until one is.

use std::collections::BTreeMap;

use davy_model::{
    Evidence, Finding, FindingId, FindingKind, Incident, IncidentId, IncidentState, Severity, Signal,
    Technique, TimelineEntry, Timestamp,
};
use davy_store::Store;
use davy_wire::Proof;

/// The most lines of its story; beyond it the oldest but the first goes.
const MAX_ENTRIES: usize = 64;

/// How many of the newest incidents are searched for one that was left.
const LOOKED_AT: u32 = 1000;

/// The incident that runs, if the last canary was not stopped.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Incident>);

impl Alarm {
    /// Goes on with what an agent before this one left running.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn resume(store: &Store) -> Result<Self, davy_store::Error> {
        match running(&store.incidents(None, LOOKED_AT).await?) {
            Some(id) => Ok(Self(store.incident(id).await?)),
            None => Ok(Self(None)),
        }
    }

    /// Takes in what came of a canary. Gives the incident when its text is another now; `new` numbers one that begins.
    pub(crate) fn hear(
        &mut self,
        proof: &Proof,
        new: impl FnOnce() -> (FindingId, IncidentId),
    ) -> Option<Incident> {
        if proof.tally.all_held() {
            let mut over = self.0.take()?;
            over.state = IncidentState::Ended;
            over.last = proof.time;
            over.title = title(&over);
            over.timeline.push(entry(proof.time, "and then", "the canary was stopped again"));
            return Some(over);
        }
        let failures = proof.tally.failed.join("; ");
        let said = format!("{} of {} held: {failures}", proof.tally.held, proof.tally.of);
        let mut incident = self.0.take().unwrap_or_else(|| begun(proof.time, new()));
        let first = incident.timeline.is_empty();
        if incident.findings.first().is_none_or(|f| f.evidence.first().is_none_or(|e| e.text != said)) {
            incident.timeline.push(entry(
                proof.time,
                if first { "began with" } else { "and then" },
                &format!("a canary that was not stopped; {said}"),
            ));
        }
        for finding in &mut incident.findings {
            finding.time = proof.time;
            finding.summary =
                format!("What Davy enforces is not enforced: of its own canary's trials {said}");
            finding.evidence = vec![evidence(proof, said.clone())];
        }
        incident.last = proof.time;
        // A canary a minute for a year must not make it grow without end.
        if incident.timeline.len() > MAX_ENTRIES {
            incident.timeline.remove(1);
        }
        self.0 = Some(incident.clone());
        Some(incident)
    }
}

fn running(incidents: &[Incident]) -> Option<IncidentId> {
    let is_alarm = |i: &&Incident| i.findings.iter().any(|f| f.kind == FindingKind::Unproven);
    incidents.iter().rev().filter(is_alarm).find(|i| i.state == IncidentState::Running).map(|i| i.id)
}

fn technique() -> Technique {
    Technique::new("T1562.001")
}

fn title(incident: &Incident) -> String {
    let state = if incident.state == IncidentState::Running { "running" } else { "over" };
    format!("not enforced, {state}")
}

fn entry(time: Timestamp, relation: &str, text: &str) -> TimelineEntry {
    TimelineEntry {
        time,
        relation: relation.to_owned(),
        text: text.to_owned(),
        process: None,
        user: None,
        techniques: vec![technique()],
    }
}

fn evidence(proof: &Proof, text: String) -> Evidence {
    let numbers = [("held", proof.tally.held), ("of", proof.tally.of)];
    Evidence {
        time: proof.time,
        signal: Signal::Canary,
        weight: 0.0,
        text,
        numbers: numbers
            .map(|(name, n)| (name.to_owned(), f64::from(n)))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        process: None,
        flow: None,
        technique: Some(technique()),
    }
}

fn begun(now: Timestamp, (finding, incident): (FindingId, IncidentId)) -> Incident {
    let finding = Finding {
        id: finding,
        kind: FindingKind::Unproven,
        first: now,
        time: now,
        severity: Severity::Critical,
        confidence: 1.0,
        subject: None,
        processes: Vec::new(),
        summary: String::new(),
        evidence: Vec::new(),
        techniques: vec![technique()],
    };
    let mut incident = Incident {
        id: incident,
        state: IncidentState::Running,
        severity: Severity::Critical,
        title: String::new(),
        first: now,
        last: now,
        detected: now,
        stopped: None,
        timeline: Vec::new(),
        tree: Vec::new(),
        findings: vec![finding],
        actions: Vec::new(),
        techniques: vec![technique()],
    };
    incident.title = title(&incident);
    incident
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_wire::Tally;

    use super::*;

    fn proof(second: i64, held: u32, failed: &[&str]) -> Proof {
        let of = held + u32::try_from(failed.len()).unwrap();
        let failed = failed.iter().map(|f| (*f).to_owned()).collect();
        Proof { time: Timestamp::from_secs(second), tally: Tally { held, of, failed } }
    }

    fn numbers() -> (FindingId, IncidentId) {
        (FindingId(3), IncidentId(4))
    }

    fn none() -> (FindingId, IncidentId) {
        panic!("no other begins")
    }

    #[test]
    fn a_canary_that_is_stopped_is_nothing() {
        assert_eq!(Alarm::default().hear(&proof(1, 5, &[]), none), None);
    }

    #[test]
    fn one_incident_runs_until_a_canary_is_stopped() {
        let mut alarm = Alarm::default();
        let begun = alarm.hear(&proof(1, 4, &["kill: it runs on"]), numbers).unwrap();
        assert_eq!(
            (begun.id, begun.state, begun.severity),
            (IncidentId(4), IncidentState::Running, Severity::Critical)
        );
        let finding = &begun.findings[0];
        assert_eq!((finding.id, finding.kind), (FindingId(3), FindingKind::Unproven));
        assert!(finding.summary.contains("4 of 5 held: kill: it runs on"), "{}", finding.summary);
        assert_eq!(finding.evidence[0].numbers["of"], 5.0);
        let same = alarm.hear(&proof(2, 4, &["kill: it runs on"]), none).unwrap();
        assert_eq!((same.timeline.len(), same.findings[0].time), (1, Timestamp::from_secs(2)));
        let other = alarm.hear(&proof(3, 4, &["freeze: it runs on"]), none).unwrap();
        assert_eq!(other.timeline.len(), 2);
        let over = alarm.hear(&proof(4, 5, &[]), none).unwrap();
        assert_eq!(
            (over.id, over.state, over.title.as_str()),
            (IncidentId(4), IncidentState::Ended, "not enforced, over")
        );
        assert_eq!(alarm.hear(&proof(5, 5, &[]), none), None);
    }

    #[test]
    fn the_next_agent_ends_what_the_last_one_left() {
        let left = Alarm::default().hear(&proof(1, 0, &["kill: it runs on"]), numbers).unwrap();
        assert_eq!(running(std::slice::from_ref(&left)), Some(left.id));
        let over = Alarm(Some(left.clone())).hear(&proof(2, 5, &[]), none).unwrap();
        assert_eq!((over.id, over.state, over.timeline.len()), (left.id, IncidentState::Ended, 2));
        assert_eq!(running(&[over]), None);
    }

    #[test]
    fn its_story_is_bounded() {
        let mut alarm = Alarm::default();
        let mut last = None;
        for second in 1..500 {
            let words = format!("kill: try {second}");
            last = alarm.hear(&proof(second, 4, &[&words]), numbers);
        }
        let story = last.unwrap().timeline;
        assert_eq!((story.len(), story[0].time), (MAX_ENTRIES, Timestamp::from_secs(1)));
    }
}
