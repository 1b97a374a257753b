//! Brings news to the live view from threads of its own, so that a slow agent never holds up a key.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use davy_model::{Incident, IncidentId, IncidentState};
use davy_wire::{AgentStatus, Command, Query, Reply, TopView};

use super::board::{Board, Deed};
use crate::client::Client;
use crate::failure::Failure;
use crate::incidents;

/// News.
#[derive(Debug)]
enum News {
    View(Box<TopView>),
    Status(Box<AgentStatus>),
    Running(Vec<Incident>),
    Fault(String),
    Acted(String),
}

/// How many views pass between two looks at the state and the incidents.
const VIEWS_PER_STATUS: u32 = 3;

/// How many incidents are looked through for the running ones.
const INCIDENTS: u32 = 50;

/// News from the agent.
#[derive(Debug)]
pub(crate) struct Feed {
    news: Receiver<News>,
    orders: Sender<(IncidentId, Deed)>,
}

impl Feed {
    /// Starts asking every so often. The threads end when the feed is dropped.
    pub(crate) fn start(client: Client, every: Duration) -> Self {
        // Bounded: while the screen does not take news, no more is asked for.
        let (sender, news) = sync_channel(8);
        let (orders, wishes) = channel();
        let (asker, reporter) = (client.clone(), sender.clone());
        thread::spawn(move || ask(&asker, &reporter, every));
        thread::spawn(move || obey(&client, &sender, &wishes));
        Self { news, orders }
    }

    /// Sends an order; its outcome comes as news.
    pub(crate) fn act(&self, incident: IncidentId, action: Deed) {
        // The thread lives as long as this feed does.
        let _ = self.orders.send((incident, action));
    }

    /// Puts all news on the board; says whether there was any.
    pub(crate) fn deliver(&self, board: &mut Board) -> bool {
        let mut any = false;
        for news in self.news.try_iter() {
            any = true;
            match news {
                News::View(view) => {
                    board.view = *view;
                    board.fault.clear();
                }
                News::Status(status) => board.status = Some(*status),
                News::Running(incidents) => board.running = incidents,
                News::Fault(fault) => board.fault = fault,
                News::Acted(outcome) => board.message = outcome,
            }
        }
        any
    }
}

fn ask(client: &Client, sender: &SyncSender<News>, every: Duration) {
    for round in 0_u32.. {
        let mut news = vec![];
        match client.ask_one(Query::Top) {
            Ok(Reply::Top(view)) => news.push(News::View(Box::new(view))),
            Ok(_) => news.push(News::Fault("the agent answers with something else".to_owned())),
            Err(failure) => news.push(News::Fault(failure.message)),
        }
        if round.is_multiple_of(VIEWS_PER_STATUS) {
            if let Ok(Reply::Status(status)) = client.ask_one(Query::Status) {
                news.push(News::Status(Box::new(status)));
            }
            if let Ok(running) = running(client) {
                news.push(News::Running(running));
            }
        }
        for piece in news {
            if sender.send(piece).is_err() {
                return;
            }
        }
        thread::sleep(every);
    }
}

fn running(client: &Client) -> Result<Vec<Incident>, Failure> {
    let mut all = incidents::newest(client, INCIDENTS)?;
    all.retain(|i| i.state == IncidentState::Running);
    Ok(all)
}

fn obey(client: &Client, sender: &SyncSender<News>, wishes: &Receiver<(IncidentId, Deed)>) {
    for (id, deed) in wishes {
        let outcome = match client.command(Command::Act { id, actions: vec![deed.name().to_owned()] }) {
            Ok(sentence) => sentence,
            Err(failure) => match failure.hint {
                Some(hint) => format!("{}: {hint}", failure.message),
                None => failure.message,
            },
        };
        if sender.send(News::Acted(outcome)).is_err() {
            return;
        }
    }
}
