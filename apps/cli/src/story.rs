//! An incident told from its first act to its last.

use davy_model::{ActionState, Incident, IncidentState, TimelineEntry};

use crate::answer::Answering;
use crate::page::{Line, Page, Role};
use crate::table::{Column, Table};
use crate::{amount, tree, words};

/// Columns for techniques: two of them, or one with its sub-technique.
const TECHNIQUES: usize = 13;

/// The story: what happened in order, the processes, what was done about it, and what to type next.
pub(crate) fn page(incident: &Incident, answering: &Answering) -> Page {
    let width = answering.width;
    let mut page = Page::new();
    page.extend(heading(incident, answering));
    page.extend(timeline(&incident.timeline, width).lines(width));
    if !incident.tree.is_empty() {
        page.gap();
        page.extend(tree::lines(&incident.tree, width));
    }
    page.gap();
    page.extend(actions(incident).lines(width));
    if !answering.quiet {
        page.gap();
        page.extend(next(incident).wrap(width));
    }
    page
}

fn heading(incident: &Incident, answering: &Answering) -> Vec<Line> {
    let (role, _) = words::state(incident.state);
    let left =
        Line::in_role(Role::Strong, format!("Incident {}: ", incident.id.0)).and(role, &incident.title);
    let when = Line::in_role(Role::Quiet, when(incident, answering));
    let slack = answering.width.saturating_sub(left.width() + when.width());
    if slack >= 2 {
        vec![left.and(Role::Plain, " ".repeat(slack)).join(when)]
    } else {
        vec![left, Line::of("  ").join(when)]
    }
}

/// `03:12:41, 9.4 s from the first act to the stop`, or how long it has been going on.
fn when(incident: &Incident, answering: &Answering) -> String {
    let began = answering.clock.moment(incident.first);
    let after = |t: davy_model::Timestamp| amount::duration(t.secs_since(incident.first));
    match (incident.stopped, incident.state) {
        (Some(stopped), _) => format!("{began}, {} from the first act to the stop", after(stopped)),
        (None, IncidentState::Running) => {
            format!(
                "{began}, known after {}, going on for {}",
                after(incident.detected),
                after(answering.clock.now())
            )
        }
        (None, _) => {
            format!("{began}, known after {}, over after {}", after(incident.detected), after(incident.last))
        }
    }
}

fn timeline(entries: &[TimelineEntry], width: usize) -> Table {
    // A narrow terminal has no room for a column of users: they follow the text.
    let wide = width >= 100;
    let mut table = Table::new(2, &[Column::Left, Column::Fill, Column::Left, Column::Margin(TECHNIQUES)]);
    for entry in entries {
        let techniques: Vec<&str> = entry.techniques.iter().map(|t| t.0.as_str()).collect();
        let user = entry.user.as_ref().map(|u| format!("as {u}")).unwrap_or_default();
        let text = Line::of(&entry.text);
        let (text, user) = match (wide, user.is_empty()) {
            (true, _) => (text, Line::in_role(Role::Quiet, user)),
            (false, true) => (text, Line::new()),
            (false, false) => (text.and(Role::Quiet, format!("  {user}")), Line::new()),
        };
        table.row(vec![
            Line::in_role(Role::Strong, &entry.relation),
            text,
            user,
            Line::in_role(Role::Quiet, techniques.join(" ")),
        ]);
    }
    table
}

fn actions(incident: &Incident) -> Table {
    let mut table = Table::new(2, &[Column::Left, Column::Fill, Column::Right]);
    let mut told = "";
    for record in &incident.actions {
        let (role, state) = words::action_state(record.state);
        let mut text = Line::of(words::deed(record));
        // What is said of several actions in a row is said once.
        if record.note != std::mem::replace(&mut told, &record.note) && !record.note.is_empty() {
            text = text.and(Role::Quiet, format!(" ({})", record.note));
        }
        table.row(vec![
            Line::in_role(role, state),
            text,
            Line::in_role(Role::Quiet, format!("a{}", record.id.0)),
        ]);
    }
    if table.is_empty() {
        table.row(vec![Line::in_role(Role::Quiet, "done"), Line::of("nothing")]);
    }
    table
}

/// What one would type next: stop it, undo it, look at why.
fn next(incident: &Incident) -> Line {
    let id = incident.id.0;
    let undoable = incident.actions.iter().any(|a| a.state == ActionState::Done && a.undoable);
    let mut line = Line::of("  ");
    if incident.state == IncidentState::Running {
        line = line
            .and(Role::Quiet, "stop it: ")
            .and(Role::Hint, format!("davy act {id} kill"))
            .and(Role::Quiet, " (or freeze, quarantine, cut)     ");
    }
    if undoable {
        line = line
            .and(Role::Quiet, "undo: ")
            .and(Role::Hint, format!("davy undo {id}"))
            .and(Role::Plain, "     ");
    }
    line.and(Role::Quiet, "evidence: ").and(Role::Hint, format!("davy explain {id}"))
}

#[cfg(test)]
mod tests {
    use crate::answer::Answering;
    use crate::canned;
    use crate::clock::Clock;
    use crate::golden_file::golden;

    #[test]
    fn fits_a_narrow_terminal() {
        let answering = Answering::for_tests(Clock::standing(canned::BEGAN.plus_secs(60.0)), 80);
        let told = super::page(&canned::incident(), &answering).print(false);
        assert!(told.lines().all(|l| l.chars().count() <= 80), "{told}");
        golden("incident_80.txt", &told);
    }

    #[test]
    fn an_incident_that_runs_says_how_to_stop_it() {
        let mut incident = canned::incident();
        incident.state = davy_model::IncidentState::Running;
        incident.title = "mining, running".to_owned();
        incident.stopped = None;
        incident.actions.iter_mut().for_each(|a| a.state = davy_model::ActionState::WouldHave);
        let answering = Answering::for_tests(Clock::standing(canned::BEGAN.plus_secs(90.0)), 120);
        golden("incident_running.txt", &super::page(&incident, &answering).print(false));
    }
}
