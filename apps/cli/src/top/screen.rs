//! Draws the live view. Works from 80 by 24 upwards, and shows what fits below that.

use davy_wire::BusyTree;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, TableState, Wrap};

use super::board::{Board, Face};
use super::snapshot::certainty;
use crate::escape::plain;
use crate::page::Role;
use crate::{amount, events, words};

/// Cells of a confidence bar.
const BAR: usize = 8;

/// Draws the board.
pub(crate) fn draw(frame: &mut Frame<'_>, board: &Board, color: bool) {
    let ink = Ink { color };
    let blocked = u16::from(!board.view.blocked.is_empty());
    let [head, body, cut, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(4),
        Constraint::Length(blocked),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    header(frame, head, board, ink);
    match board.face {
        Face::Details => details(frame, body, board, ink),
        Face::Trees | Face::Confirm { .. } => {
            let [list, below] = Layout::vertical([Constraint::Fill(1), Constraint::Max(9)]).areas(body);
            trees(frame, list, board, ink);
            details(frame, below, board, ink);
        }
    }
    if blocked > 0 {
        let text = format!("blocked: {}", board.view.blocked.join(", "));
        frame.render_widget(Paragraph::new(ink.span(Role::Warning, &text)), cut);
    }
    footer(frame, foot, board, ink);
    if let Face::Confirm { incident, action } = board.face {
        let title =
            board.running.iter().find(|i| i.id == incident).map(|i| i.title.clone()).unwrap_or_default();
        let undo = match action {
            super::board::Deed::Freeze => "It can be undone: davy undo.",
            super::board::Deed::Kill => "This cannot be undone.",
        };
        let lines = vec![
            Line::from(ink.span(
                Role::Strong,
                &format!("{} incident {} ({title})?", capital(action.name()), incident.0),
            )),
            Line::from(ink.span(Role::Plain, undo)),
            Line::from(ink.span(Role::Hint, "y does it, any other key does not")),
        ];
        ask(frame, lines);
    }
}

/// Styles, or none where colours are not wanted.
#[derive(Clone, Copy)]
struct Ink {
    color: bool,
}

impl Ink {
    fn style(self, role: Role) -> Style {
        // Without colour, weight alone still tells what matters.
        let style = Style::default();
        match (role, self.color) {
            (Role::Plain, _) => style,
            (Role::Strong, _) => style.add_modifier(Modifier::BOLD),
            (Role::Alarm, false) => style.add_modifier(Modifier::BOLD),
            (_, false) => style,
            (Role::Quiet, true) => style.add_modifier(Modifier::DIM),
            (Role::Good, true) => style.fg(Color::Green),
            (Role::Warning, true) => style.fg(Color::Yellow),
            (Role::Alarm, true) => style.fg(Color::Red).add_modifier(Modifier::BOLD),
            (Role::Hint, true) => style.fg(Color::Cyan),
        }
    }

    /// A span of text that cannot speak to the terminal.
    fn span(self, role: Role, text: &str) -> Span<'static> {
        Span::styled(plain(text).into_owned(), self.style(role))
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn header(frame: &mut Frame<'_>, area: Rect, board: &Board, ink: Ink) {
    let rate = amount::count(board.view.event_rate.max(0.0).round() as u64);
    let mut first = vec![ink.span(Role::Strong, "davy top")];
    let mut second = vec![];
    match &board.status {
        Some(status) => {
            first.push(ink.span(
                Role::Plain,
                &format!("  {}  {} tier  {rate} events/s", status.host, words::tier(status.tier)),
            ));
            let lost: u64 = status.drops.iter().map(|d| d.count).sum();
            first.push(match lost {
                0 => ink.span(Role::Good, "  nothing lost"),
                n => ink.span(Role::Alarm, &format!("  {} lost", amount::of(n, "event", "events"))),
            });
            if status.disarmed_until.is_some_and(|t| t > board.view.time) {
                second.push(ink.span(Role::Alarm, "DISARMED  "));
            }
            let ids: Vec<String> = status.running_incidents.iter().map(|i| i.0.to_string()).collect();
            second.push(match ids.len() {
                0 => ink.span(Role::Good, "no incident runs"),
                1 => ink.span(Role::Alarm, &format!("incident {} runs", ids[0])),
                _ => ink.span(Role::Alarm, &format!("incidents {} run", ids.join(", "))),
            });
        }
        None => first.push(ink.span(Role::Plain, &format!("  {rate} events/s"))),
    }
    second.push(ink.span(Role::Quiet, &format!("  {}", amount::of(board.view.cpus.into(), "CPU", "CPUs"))));
    if !board.fault.is_empty() {
        second = vec![ink.span(Role::Alarm, &board.fault)];
    }
    frame.render_widget(Paragraph::new(vec![Line::from(first), Line::from(second)]), area);
}

fn trees(frame: &mut Frame<'_>, area: Rect, board: &Board, ink: Ink) {
    if board.view.trees.is_empty() {
        frame.render_widget(Paragraph::new("Nothing computes."), area);
        return;
    }
    let head = Row::new(["CPU", "thr", "mining", "", "program", "pid", "user", "strongest evidence"])
        .style(ink.style(Role::Quiet));
    let rows = board.view.trees.iter().map(|tree| {
        let (role, sure) = certainty(tree);
        let first = match (tree.stopped, tree.evidence.first()) {
            (true, _) => ink.span(Role::Good, "stopped"),
            (false, Some(text)) => ink.span(Role::Plain, text),
            (false, None) => ink.span(Role::Quiet, &tree.path),
        };
        Row::new(vec![
            Cell::from(ink.span(Role::Plain, &format!("{:>5.2}", tree.cpu))),
            Cell::from(ink.span(Role::Plain, &format!("{:>3}", tree.threads))),
            Cell::from(ink.span(role, &amount::bar(tree.confidence, BAR))),
            Cell::from(ink.span(role, &format!("{sure:>9}"))),
            Cell::from(ink.span(Role::Strong, &tree.comm)),
            Cell::from(ink.span(Role::Plain, &tree.root.pid.to_string())),
            Cell::from(ink.span(Role::Plain, &tree.user)),
            Cell::from(first),
        ])
    });
    let widths = [
        Constraint::Length(5),
        Constraint::Length(3),
        Constraint::Length(BAR as u16),
        Constraint::Length(9),
        Constraint::Length(15),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Fill(1),
    ];
    let table = Table::new(rows, widths)
        .header(head)
        .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
    let mut state = TableState::default().with_selected(Some(board.row()));
    frame.render_stateful_widget(table, area, &mut state);
}

fn details(frame: &mut Frame<'_>, area: Rect, board: &Board, ink: Ink) {
    let Some(tree) = board.tree() else { return };
    let title = match board.incident_of(tree) {
        Some(incident) => format!(" {} {}, incident {} ", tree.comm, tree.root.pid, incident.id.0),
        None => format!(" {} {} ", tree.comm, tree.root.pid),
    };
    let block = Block::new().borders(Borders::TOP).title(ink.span(Role::Strong, &title));
    let lines = about(tree, ink);
    frame.render_widget(Paragraph::new(lines).block(block).wrap(Wrap { trim: false }), area);
}

fn about(tree: &BusyTree, ink: Ink) -> Vec<Line<'static>> {
    let line = |label: &str, role: Role, text: &str| {
        Line::from(vec![ink.span(Role::Quiet, &format!("{label:<10}")), ink.span(role, text)])
    };
    let mut lines = vec![line("program", Role::Plain, &tree.path)];
    for (n, evidence) in tree.evidence.iter().enumerate() {
        lines.push(line(if n == 0 { "evidence" } else { "" }, Role::Plain, evidence));
    }
    if tree.evidence.is_empty() {
        lines.push(line("evidence", Role::Quiet, "nothing speaks for mining"));
    }
    for (n, flow) in tree.flows.iter().enumerate() {
        let transport = match flow.transport {
            davy_model::Transport::Tcp => "TCP",
            davy_model::Transport::Udp => "UDP",
        };
        let text = format!("{transport} {}  {}", flow.remote, events::volume(&flow.volume));
        lines.push(line(if n == 0 { "talks to" } else { "" }, Role::Plain, &text));
    }
    lines.push(line(
        "together",
        Role::Strong,
        &format!("{:+.1} bits, {} sure that it mines", tree.bits, amount::percent(tree.confidence)),
    ));
    lines
}

fn footer(frame: &mut Frame<'_>, area: Rect, board: &Board, ink: Ink) {
    let line = if board.message.is_empty() {
        let back = if board.face == Face::Details { "enter back" } else { "enter details" };
        ink.span(Role::Quiet, &format!("↑↓ choose   {back}   f freeze   k kill   q leave"))
    } else {
        ink.span(Role::Warning, &board.message)
    };
    frame.render_widget(Paragraph::new(line), area);
}

/// A question in the middle of the screen.
fn ask(frame: &mut Frame<'_>, lines: Vec<Line<'static>>) {
    let area = frame.area();
    let wanted = lines.iter().map(Line::width).max().unwrap_or(0) + 4;
    let width = u16::try_from(wanted).unwrap_or(u16::MAX).min(area.width);
    let height = (lines.len() as u16 + 2).min(area.height);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let block = Block::bordered().padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(block), place);
}
