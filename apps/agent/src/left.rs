//! Incidents that an agent before this one left running: nobody watches them any more, and what still runs begins a new one.

use davy_model::{FindingKind, Incident, IncidentState, TimelineEntry, Timestamp};
use davy_store::{Error, Store};

/// How many of the newest incidents are looked at.
const LOOKED_AT: u32 = 1000;

/// Ends what was left running, all but the agent's own alarm, which goes on until a canary is stopped. Says how many.
///
/// # Errors
/// When the store cannot be read or written.
pub(crate) async fn end(store: &Store, now: Timestamp) -> Result<usize, Error> {
    let mut ended = 0;
    for listed in store.incidents(None, LOOKED_AT).await?.iter().filter(|incident| is_left(incident)) {
        // A list leaves the stories out.
        if let Some(incident) = store.incident(listed.id).await? {
            store.put_incident(&over(incident, now)).await?;
            ended += 1;
        }
    }
    Ok(ended)
}

fn is_left(incident: &Incident) -> bool {
    incident.state == IncidentState::Running
        && !incident.findings.iter().any(|finding| finding.kind == FindingKind::Unproven)
}

fn over(mut incident: Incident, now: Timestamp) -> Incident {
    incident.state = IncidentState::Ended;
    let what = incident.title.strip_suffix(", running").unwrap_or(&incident.title);
    incident.title = format!("{what}, not watched to its end");
    incident.timeline.push(TimelineEntry {
        time: now,
        relation: "and then".to_owned(),
        text: "the agent that watched it ended; what goes on is an incident of its own".to_owned(),
        process: None,
        user: None,
        techniques: Vec::new(),
    });
    incident
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use davy_model::{Finding, FindingId, IncidentId, Severity};
    use davy_store::Limits;

    use super::*;

    fn incident(store: &Store, kind: FindingKind, state: IncidentState) -> Incident {
        let time = Timestamp::from_secs(1_800_000_000);
        let finding = Finding {
            id: store.new_finding_id(),
            kind,
            first: time,
            time,
            severity: Severity::High,
            confidence: 1.0,
            subject: None,
            processes: Vec::new(),
            summary: String::new(),
            evidence: Vec::new(),
            techniques: Vec::new(),
        };
        Incident {
            id: store.new_incident_id(),
            state,
            severity: Severity::High,
            title: "mining, running".to_owned(),
            first: time,
            last: time,
            detected: time,
            stopped: None,
            timeline: Vec::new(),
            tree: Vec::new(),
            findings: vec![finding],
            actions: Vec::new(),
            techniques: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_an_agent_left_running_is_ended_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Limits::default()).await.unwrap();
        let left = incident(&store, FindingKind::Mining, IncidentState::Running);
        let stopped = incident(&store, FindingKind::Mining, IncidentState::Stopped);
        let alarm = incident(&store, FindingKind::Unproven, IncidentState::Running);
        for incident in [&left, &stopped, &alarm] {
            for finding in &incident.findings {
                store.put_finding(finding).await.unwrap();
            }
            store.put_incident(incident).await.unwrap();
        }
        let now = Timestamp::from_secs(1_800_000_900);
        assert_eq!(end(&store, now).await.unwrap(), 1);
        let read = async |id: IncidentId| store.incident(id).await.unwrap().unwrap();
        let ended = read(left.id).await;
        assert_eq!(
            (ended.state, ended.title.as_str()),
            (IncidentState::Ended, "mining, not watched to its end")
        );
        assert_eq!(ended.findings[0].id, FindingId(left.findings[0].id.0));
        assert_eq!(ended.timeline.last().unwrap().time, now);
        assert_eq!(read(stopped.id).await.state, IncidentState::Stopped);
        assert_eq!(read(alarm.id).await.state, IncidentState::Running);
        assert_eq!(end(&store, now).await.unwrap(), 0);
    }
}
