//! `davy explain`: all evidence with its weights, from the prior to the conclusion.

use davy_model::{ActionId, Evidence, Finding, Incident};
use serde_json::json;

use crate::answer::Answering;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::page::{Line, Page, Role};
use crate::subject::Subject;
use crate::table::{Column, Table};
use crate::{actions, amount, document, findings, incidents, words};

/// Cells of the bar that the strongest evidence fills.
const BAR: usize = 12;

/// Explains an incident, a finding or an action.
pub(crate) fn run(client: &Client, answering: &Answering, subject: Subject) -> Result<(), Failure> {
    let page = match subject {
        Subject::Incident(id) => {
            let incident = incidents::fetch(client, id)?;
            if answering.json {
                let findings: Vec<_> = incident.findings.iter().map(explained).collect();
                let actions: Vec<_> = incident.actions.iter().map(document::action).collect();
                return Ok(answering.document(&json!({
                    "incident": incident.id, "title": incident.title, "findings": findings, "actions": actions }))?);
            }
            incident_page(&incident, answering)
        }
        Subject::Finding(id) => {
            let finding = findings::fetch(client, id)?;
            if answering.json {
                return Ok(answering.document(&explained(&finding))?);
            }
            finding_page(&finding, answering)
        }
        Subject::Action(ActionId(n)) => {
            return Err(Failure::new(Exit::Usage, format!("action {n} has no evidence of its own"))
                .hint("its incident has: davy actions names it"));
        }
    };
    Ok(answering.page(&page)?)
}

/// Why an incident was concluded, and what was done about it.
pub(crate) fn incident_page(incident: &Incident, answering: &Answering) -> Page {
    let mut page = Page::new();
    let (role, _) = words::state(incident.state);
    page.push(
        Line::in_role(Role::Strong, format!("Why incident {}: ", incident.id.0)).and(role, &incident.title),
    );
    if incident.findings.is_empty() {
        page.push(Line::in_role(Role::Quiet, "  No finding is recorded with it."));
    }
    for finding in &incident.findings {
        page.gap();
        tell(finding, &mut page, answering);
    }
    if !incident.actions.is_empty() {
        page.gap();
        page.push(Line::in_role(Role::Strong, "What was done"));
        page.extend(actions::table(&incident.actions, answering).lines(answering.width));
    }
    page
}

/// Why a finding was made.
pub(crate) fn finding_page(finding: &Finding, answering: &Answering) -> Page {
    let mut page = Page::new();
    tell(finding, &mut page, answering);
    page
}

fn tell(finding: &Finding, page: &mut Page, answering: &Answering) {
    let (role, severity) = words::severity(finding.severity);
    page.extend(
        Line::in_role(Role::Strong, format!("Finding {}: ", finding.id.0))
            .and(Role::Strong, words::kind(finding.kind))
            .and(Role::Plain, ", ")
            .and(role, severity)
            .and(Role::Plain, format!(". {}", finding.summary))
            .wrap(answering.width),
    );
    let mut table = Table::new(2, &[Column::Right, Column::Left, Column::Left, Column::Fill, Column::Right]);
    table.headings(&["bits", "", "by", "what was seen", ""]);
    let sum = Sum::of(finding);
    let strongest = finding.evidence.iter().map(|e| e.weight.abs()).fold(0.0, f32::max);
    for evidence in &finding.evidence {
        table.row(evidence_row(evidence, strongest, answering));
    }
    table.row(vec![
        Line::of(bits(sum.rest)),
        Line::new(),
        Line::in_role(Role::Quiet, "prior"),
        Line::in_role(
            Role::Quiet,
            "how rare it is before anything is seen, and the bounds on evidence of one kind",
        ),
    ]);
    table.row(vec![
        Line::in_role(Role::Strong, bits(sum.posterior)),
        Line::new(),
        Line::in_role(Role::Strong, "together"),
        Line::in_role(Role::Strong, format!("{} sure", amount::percent(finding.confidence)))
            .and(Role::Quiet, sum.remark()),
    ]);
    page.extend(table.lines(answering.width));
    let who: Vec<String> = finding.processes.iter().take(16).map(|p| p.pid.to_string()).collect();
    let mut facts = Table::new(2, &[Column::Left, Column::Fill]);
    if !who.is_empty() {
        let more = finding.processes.len().saturating_sub(who.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        facts.row(vec![
            Line::in_role(Role::Quiet, "processes"),
            Line::of(format!("{}{more}", who.join(", "))),
        ]);
    }
    facts.row(vec![
        Line::in_role(Role::Quiet, "seen"),
        Line::of(format!(
            "from {} to {}",
            answering.clock.moment(finding.first),
            answering.clock.moment(finding.time)
        )),
    ]);
    page.extend(facts.lines(answering.width));
}

fn evidence_row(evidence: &Evidence, strongest: f32, answering: &Answering) -> Vec<Line> {
    let mut text = Line::of(&evidence.text);
    let mut details: Vec<String> =
        evidence.numbers.iter().map(|(name, value)| format!("{name} {}", amount::number(*value))).collect();
    if let Some(process) = evidence.process {
        details.push(format!("pid {}", process.pid));
    }
    if let Some(flow) = evidence.flow {
        details.push(format!("flow {}", flow.0));
    }
    details.push(answering.clock.moment(evidence.time));
    text = text.and(Role::Quiet, format!(" ({})", details.join(", ")));
    let technique = evidence.technique.as_ref().map(|t| t.0.as_str()).unwrap_or_default();
    vec![
        Line::of(bits(f64::from(evidence.weight))),
        weighed(f64::from(evidence.weight), strongest),
        Line::of(words::signal(evidence.signal)),
        text,
        Line::in_role(Role::Quiet, technique),
    ]
}

fn weighed(weight: f64, strongest: f32) -> Line {
    let share = if strongest > 0.0 { weight.abs() / f64::from(strongest) } else { 0.0 };
    let role = if weight < 0.0 { Role::Good } else { Role::Alarm };
    Line::in_role(role, amount::bar(share, BAR))
}

fn bits(bits: f64) -> String {
    if bits.is_finite() { format!("{bits:+.1}") } else { "?".to_owned() }
}

/// How the conclusion adds up, in bits (base-2 logarithms of odds).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sum {
    /// The evidence's weights together.
    evidence: f64,
    /// What leads from there to the confidence: the prior, and the bounds that evidence of one kind is held to.
    rest: f64,
    /// The confidence as log-odds.
    posterior: f64,
}

impl Sum {
    fn of(finding: &Finding) -> Self {
        // Nearer to 0 or 1 than this, log-odds are lost in rounding.
        let p = finding.confidence.clamp(1e-12, 1.0 - 1e-12);
        let posterior = (p / (1.0 - p)).log2();
        let evidence: f64 = finding.evidence.iter().map(|e| f64::from(e.weight)).sum();
        Self { evidence, rest: posterior - evidence, posterior }
    }

    fn remark(self) -> String {
        let odds = self.posterior.abs().exp2();
        let odds =
            if odds < 1e9 { amount::count(odds.round() as u64) } else { "more than a billion".to_owned() };
        let side = if self.posterior >= 0.0 { "for" } else { "against" };
        format!(", {odds} to 1 {side} it")
    }
}

fn explained(finding: &Finding) -> serde_json::Value {
    let sum = Sum::of(finding);
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    let mut value = document::finding(finding);
    value["evidence_bits"] = json!(round(sum.evidence));
    value["rest_bits"] = json!(round(sum.rest));
    value["posterior_bits"] = json!(round(sum.posterior));
    value
}
