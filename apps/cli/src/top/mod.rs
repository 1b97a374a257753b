//! `davy top`: the busiest process trees, live, with what speaks for mining.

mod board;
mod feed;
mod screen;
mod snapshot;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyEventKind};
use davy_wire::{Query, Reply, TopView};

use crate::answer::Answering;
use crate::client::{Client, unexpected};
use crate::failure::{Exit, Failure};
use crate::{document, verbs};
use board::{Board, Wish};
use feed::Feed;
pub(crate) use snapshot::page as snapshot;
#[cfg(test)]
pub(crate) use tests::frame;

/// How long keys are waited for before the screen is looked at again.
const TICK: Duration = Duration::from_millis(150);

/// Shows one snapshot, or the live view until someone leaves it.
pub(crate) fn run(client: &Client, answering: &Answering, asked: &verbs::Top) -> Result<(), Failure> {
    let view = fetch(client)?;
    if answering.json {
        return Ok(answering.document(&document::top(&view))?);
    }
    if asked.once {
        return Ok(answering.page(&snapshot(&view, answering))?);
    }
    if !answering.terminal {
        return Err(Failure::new(Exit::Usage, "the live view needs a terminal")
            .hint("one plain snapshot: davy top --once"));
    }
    live(client, answering, asked, view)
}

fn fetch(client: &Client) -> Result<TopView, Failure> {
    match client.ask_one(Query::Top)? {
        Reply::Top(view) => Ok(view),
        other => Err(unexpected(&other)),
    }
}

fn live(client: &Client, answering: &Answering, asked: &verbs::Top, view: TopView) -> Result<(), Failure> {
    let mut board = Board::new(view);
    let feed = Feed::start(client.clone(), Duration::from_secs(asked.every.into()));
    // Sets a panic hook that gives the terminal back before the panic is told.
    let mut terminal = ratatui::try_init()?;
    let outcome = interact(&mut terminal, &mut board, &feed, answering);
    ratatui::try_restore()?;
    outcome
}

fn interact(
    terminal: &mut ratatui::DefaultTerminal,
    board: &mut Board,
    feed: &Feed,
    answering: &Answering,
) -> Result<(), Failure> {
    let mut drawn = Instant::now();
    let mut stale = true;
    loop {
        stale |= feed.deliver(board);
        // The header's clock moves although nothing comes.
        if stale || drawn.elapsed() >= Duration::from_secs(1) {
            terminal.draw(|frame| screen::draw(frame, board, answering.color()))?;
            (drawn, stale) = (Instant::now(), false);
        }
        if !event::poll(TICK)? {
            continue;
        }
        stale = true;
        let Event::Key(key) = event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match board.key(key) {
            Some(Wish::Leave) => return Ok(()),
            Some(Wish::Act { incident, action }) => feed.act(incident, action),
            None => {}
        }
    }
}
