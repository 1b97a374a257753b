//! What the control sockets answer about the quarantine.

use std::io::Read;

use base64::{Engine, prelude::BASE64_STANDARD};
use davy_wire::{ErrorCode, Reply};
use tokio::sync::oneshot;

use super::{Desk, PATIENCE};
use crate::arbiter::{Order, Refused, SealedOrder};
use crate::control::{Client, Hangup, error};

/// How much of a content goes into one line, in bytes.
const PIECE: usize = 256 << 10;

impl Desk {
    pub(super) async fn quarantine(&self, client: &mut Client) -> Result<(), Hangup> {
        match self.order(SealedOrder::List).await {
            Ok((files, faults)) => {
                for file in files {
                    client.send(&Reply::Quarantined(file)).await?;
                }
                for fault in faults {
                    client.send(&Reply::QuarantineFault(fault)).await?;
                }
                Ok(())
            }
            Err((code, message)) => client.send(&error(code, message)).await,
        }
    }

    pub(super) async fn content(&self, number: u64, client: &mut Client) -> Result<(), Hangup> {
        let mut content = match self.order(|reply| SealedOrder::Read(number, reply)).await {
            Ok(content) => content,
            Err((code, message)) => return client.send(&error(code, message)).await,
        };
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            piece.clear();
            let read =
                tokio::task::block_in_place(|| content.by_ref().take(PIECE as u64).read_to_end(&mut piece));
            match read {
                Ok(0) => return Ok(()),
                Ok(_) => client.send(&Reply::Content(BASE64_STANDARD.encode(&piece))).await?,
                Err(e) => {
                    let message = format!("file {number} in quarantine does not open: {e}");
                    return client.send(&error(ErrorCode::Failed, message)).await;
                }
            }
        }
    }

    pub(super) async fn sealed(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<String, Refused>>) -> SealedOrder,
    ) -> Reply {
        match self.order(order).await {
            Ok(sentence) => Reply::Done(sentence),
            Err((code, message)) => error(code, message),
        }
    }

    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> SealedOrder,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let sent = tokio::task::block_in_place(|| self.arbiter.send(Order::Sealed(order(reply))));
        sent.map_err(|_| (ErrorCode::Failed, "the arbiter has stopped".to_owned()))?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            _ => Err((ErrorCode::Failed, "the arbiter did not answer; see `davy actions`".to_owned())),
        }
    }
}
