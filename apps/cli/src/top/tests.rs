#![allow(clippy::unwrap_used)]

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use davy_model::{IncidentId, IncidentState};
use davy_wire::TopView;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::board::{Board, Deed, Face, Wish};
use super::screen;
use crate::canned;
use crate::golden_file::golden;

/// A first frame, as text.
pub(crate) fn frame(view: TopView, width: u16, height: u16) -> String {
    drawn(&Board::new(view), width, height)
}

fn drawn(board: &Board, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen::draw(frame, board, true)).unwrap();
    let cells = terminal.backend().buffer().content();
    cells.chunks(width.into()).fold(String::new(), |mut out, row| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        out.push_str(line.trim_end());
        out.push('\n');
        out
    })
}

fn board() -> Board {
    let mut board = Board::new(canned::top());
    board.status = Some(canned::status());
    board
}

/// A board that knows of a running incident about the first tree.
fn with_incident() -> Board {
    let mut board = board();
    let mut incident = canned::incident();
    incident.state = IncidentState::Running;
    incident.title = "mining, running".to_owned();
    board.status.as_mut().unwrap().running_incidents = vec![incident.id];
    board.running = vec![incident];
    board
}

fn press(board: &mut Board, code: KeyCode) -> Option<Wish> {
    board.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn trees_at_80_by_24() {
    golden("top_trees_80x24.txt", &drawn(&with_incident(), 80, 24));
}

#[test]
fn trees_at_120_by_30() {
    golden("top_trees_120x30.txt", &drawn(&with_incident(), 120, 30));
}

#[test]
fn details_at_80_by_24() {
    let mut board = with_incident();
    press(&mut board, KeyCode::Enter);
    golden("top_details_80x24.txt", &drawn(&board, 80, 24));
}

#[test]
fn asks_before_it_kills() {
    let mut board = with_incident();
    assert_eq!(press(&mut board, KeyCode::Char('k')), None);
    golden("top_confirm_80x24.txt", &drawn(&board, 80, 24));
    assert_eq!(press(&mut board, KeyCode::Char('n')), None);
    assert_eq!((board.face, board.message.as_str()), (Face::Trees, "Nothing was done."));
    press(&mut board, KeyCode::Char('f'));
    let wish = Wish::Act { incident: IncidentId(7), action: Deed::Freeze };
    assert_eq!(press(&mut board, KeyCode::Char('y')), Some(wish));
    assert_eq!(board.face, Face::Trees);
}

#[test]
fn acts_on_incidents_only() {
    let mut board = board();
    press(&mut board, KeyCode::Char('k'));
    assert_eq!(board.face, Face::Trees);
    assert!(board.message.contains("no incident"), "{}", board.message);
}

#[test]
fn an_incident_that_is_over_is_not_acted_on() {
    let mut board = with_incident();
    board.running[0].state = IncidentState::Stopped;
    press(&mut board, KeyCode::Char('k'));
    assert_eq!(board.face, Face::Trees);
}

#[test]
fn the_choice_stays_with_its_tree() {
    let mut board = board();
    press(&mut board, KeyCode::Down);
    assert_eq!(board.tree().unwrap().comm, "cc1plus");
    board.view.trees.swap(0, 1);
    assert_eq!((board.row(), board.tree().unwrap().comm.as_str()), (0, "cc1plus"));
    board.view.trees.remove(0);
    assert_eq!(board.tree().unwrap().comm, "nginx");
    press(&mut board, KeyCode::End);
    press(&mut board, KeyCode::Down);
    assert_eq!(board.row(), 0);
}

#[test]
fn leaves_by_q_escape_and_control_c() {
    assert_eq!(press(&mut board(), KeyCode::Char('q')), Some(Wish::Leave));
    assert_eq!(press(&mut board(), KeyCode::Esc), Some(Wish::Leave));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(with_incident().key(interrupt), Some(Wish::Leave));
    let mut details = board();
    press(&mut details, KeyCode::Enter);
    assert_eq!(press(&mut details, KeyCode::Esc), None);
    assert_eq!(details.face, Face::Trees);
}

#[test]
fn draws_on_any_terminal_and_with_nothing_to_show() {
    let mut empty = canned::top();
    empty.trees.clear();
    for (width, height) in [(1, 1), (10, 3), (40, 8), (80, 24), (300, 100)] {
        drawn(&with_incident(), width, height);
        let mut asking = with_incident();
        press(&mut asking, KeyCode::Char('k'));
        drawn(&asking, width, height);
        let mut board = Board::new(empty.clone());
        press(&mut board, KeyCode::Enter);
        drawn(&board, width, height);
    }
    let mut silent = board();
    silent.fault = "no agent is running".to_owned();
    assert!(drawn(&silent, 80, 24).contains("no agent is running"));
}
