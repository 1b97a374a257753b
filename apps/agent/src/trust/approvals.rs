//! What the administrator lets run and takes back, and how it is remembered.

use davy_model::{CodeKind, Pending, PendingId, Sha256, Source, Timestamp, Voucher};
use davy_policy::TrustSource;
use davy_trust::host::{Memory, approval};

use super::desk::{Inner, TrustDesk};
use crate::opening;
use crate::shared::lock;

/// The most characters kept of a path that somebody tells.
const MAX_PATH: usize = 4096;

impl TrustDesk {
    /// Lets what waits under this number run from now on, for a time or for good.
    pub(crate) fn approve(
        &self,
        id: PendingId,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<String, String> {
        let waiting = lock(&self.inner).pendings.get(id).cloned();
        let Some(waiting) = waiting else {
            return Err(format!("nothing waits under the number {}; see `davy trust pending`", id.0));
        };
        self.approve_content(waiting.sha256, &waiting.path, until, now)
    }

    /// Lets a content run from now on, whether or not it was seen.
    pub(crate) fn approve_content(
        &self,
        digest: Sha256,
        path: &str,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<String, String> {
        let path: String = path.chars().take(MAX_PATH).collect();
        let mut inner = lock(&self.inner);
        if let Some(why) = inner.config.blocked(&digest, now) {
            return Err(format!("{path} cannot be approved: {why}"));
        }
        inner
            .vouch(digest, approval(now, &path, until), now)
            .map_err(|why| format!("{path} does not run where trust enforces: {why}"))?;
        if let Some(waiting) = inner.pendings.of(&digest).cloned() {
            inner.read_again(&waiting);
        }
        inner.pendings.settle(&digest);
        drop(inner);
        Ok(format!("{path} may run: SHA-256 {digest}{}", self.saved()))
    }

    /// Takes back an approval, or what was learned.
    pub(crate) fn withdraw(&self, digest: Sha256, now: Timestamp) -> Result<String, String> {
        let mut inner = lock(&self.inner);
        let taken_back = |source: &Source| {
            matches!(source, Source::Approval { .. } | Source::Learned { .. } | Source::Written { .. })
        };
        if !inner.book.vouchers(&digest, now).any(|voucher| taken_back(&voucher.source)) {
            return Err(format!(
                "{digest} was neither approved nor learned; packages, manifests and the policy are changed at their own places"
            ));
        }
        inner.book.withdraw(digest, taken_back);
        inner.dirty = true;
        let told = inner.tell(&[digest], now);
        drop(inner);
        let saved = self.saved();
        told.map_err(|why| format!("{digest} is withdrawn{saved}, but {why}"))?;
        Ok(format!("{digest} is no longer approved or learned{saved}"))
    }

    /// Lets everything run from now on that waits and is not odd.
    pub(crate) fn accept(&self, now: Timestamp) -> Result<String, String> {
        let mut inner = lock(&self.inner);
        if !inner.config.asks(TrustSource::Learned) {
            return Err("the policy does not take `learned` for a source (trust.sources)".to_owned());
        }
        let all: Vec<Pending> = inner.pendings.all().into_iter().cloned().collect();
        let (odd, plain): (Vec<_>, Vec<_>) = all.into_iter().partition(|pending| !pending.odd.is_empty());
        let (mut learned, mut trouble) = (0, None);
        for pending in &plain {
            let source = Source::Learned { time: pending.first, path: pending.path.clone() };
            if let Err(why) = inner.vouch(pending.sha256, Voucher::lasting(source), now) {
                trouble = Some(why);
                continue;
            }
            inner.read_again(pending);
            inner.pendings.settle(&pending.sha256);
            learned += 1;
        }
        drop(inner);
        let said =
            format!("{learned} learned; {} odd ones are left for you to look at{}", odd.len(), self.saved());
        match trouble {
            None => Ok(said),
            Some(why) => {
                Err(format!("{said}; {} do not run where trust enforces: {why}", plain.len() - learned))
            }
        }
    }

    /// Writes down what nothing else on the host remembers, if anything of it changed. Gives what is to be added to an answer
    /// when it cannot be written.
    pub(super) fn saved(&self) -> String {
        let _one = lock(&self.writing);
        let memory = {
            let mut inner = lock(&self.inner);
            if !std::mem::take(&mut inner.dirty) {
                return String::new();
            }
            inner.memory()
        };
        let Err(error) = memory.save(&self.file) else { return String::new() };
        lock(&self.inner).dirty = true;
        let file = self.file.display();
        tracing::error!("what was approved and learned is not written down: {file}: {error}");
        format!(" (until the agent ends: it could not be written to {file}: {error})")
    }
}

impl Inner {
    /// What there was no room for, to be shown.
    pub(super) fn crowded(&self) -> Vec<String> {
        let (refused, forgotten) = (self.book.refused(), self.book.forgotten());
        let refused = (refused > 0).then(|| {
            format!(
                "{refused} words for contents were not taken: there is room for {} contents beside those of packages",
                self.book.room()
            )
        });
        let forgotten = (forgotten > 0).then(|| {
            format!(
                "{forgotten} contents that trusted writers wrote were forgotten before their time: there were too many"
            )
        });
        refused.into_iter().chain(forgotten).collect()
    }

    /// A script that was read when nobody vouched for it is read again, where it cannot be when it is opened.
    fn read_again(&self, waiting: &Pending) {
        let Some(gate) = self.gate.as_ref().filter(|gate| gate.wants_scripts_ahead()) else { return };
        if !waiting.kinds.contains(&CodeKind::Script) {
            return;
        }
        let read = opening::regular(&waiting.path).map_err(anyhow::Error::from);
        if let Err(error) = read.and_then(|file| gate.read(&file)) {
            tracing::warn!("{} could not be read ahead: {error:#}", waiting.path);
        }
    }

    /// What nothing else on the host remembers.
    fn memory(&self) -> Memory {
        let kept = |source: &Source| {
            matches!(source, Source::Approval { .. } | Source::Learned { .. } | Source::Written { .. })
        };
        let vouchers = self.book.entries().flat_map(|entry| {
            let mine = entry.vouchers.iter().filter(|voucher| kept(&voucher.source));
            mine.map(move |voucher| (entry.digest, voucher.clone()))
        });
        Memory { vouchers: vouchers.collect(), pendings: self.pendings.clone() }
    }
}
