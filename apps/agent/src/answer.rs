//! What the control sockets answer.

mod sealed;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use davy_model::{ActionRecord, ActionState, IncidentId, Mode, Tier};
use davy_net::map::Filter;
use davy_policy::ActionKind;
use davy_store::{EventFilter, Store};
use davy_trust::Question;
use davy_wire::{AgentStatus, Command, DropCount, ErrorCode, Proof, Query, Reply, StoreStatus};
use tokio::sync::{Notify, broadcast, oneshot};

use crate::arbiter::{BanOrder, IsolationOrder, Order, PortsOrder, SealedOrder};
use crate::bans::{BansDesk, MAX_BAN};
use crate::canary::Poke;
use crate::clock;
use crate::control::{Answer, Client, Hangup, error};
use crate::engine::Live;
use crate::inspection;
use crate::outbound::OutboundDesk;
use crate::port_scans::PortScanDesk;
use crate::ports::{MAX_TRIAL, MIN_TRIAL, PortsDesk};
use crate::protections::{self, Notes};
use crate::reload::reload;
use crate::scan::ScanDesk;
use crate::services::ServiceDesk;
use crate::shared::{Ask, Input, Intake, Shared, lock};
use crate::trust::TrustDesk;

/// How long an answer of the engine or the arbiter is waited for. A kill has its own, shorter deadline.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest disarm, isolation and rehearsal, in seconds: what nobody ends must end by itself.
const MAX_DISARM: u32 = 24 * 3600;
const MAX_ISOLATION: u32 = 7 * 24 * 3600;
const MAX_REHEARSAL: u32 = 3600;

/// The most records one question may ask for.
const MAX_LIMIT: u32 = 100_000;

/// Answers for one agent.
pub(crate) struct Desk {
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Store,
    pub(crate) intake: Intake,
    pub(crate) arbiter: SyncSender<Order>,
    pub(crate) live: Live,
    pub(crate) stop: Arc<Notify>,
    pub(crate) facts: davy_proc::HostFacts,
    pub(crate) canary: Poke,
    /// The worker that reads captures, where the sensors give any.
    pub(crate) worker: Option<inspection::Standing>,
    /// What could not be opened at start.
    pub(crate) notes: Notes,
    /// Which code may run.
    pub(crate) trust: Arc<TrustDesk>,
    /// What services start.
    pub(crate) services: Arc<ServiceDesk>,
    /// Who may connect to what.
    pub(crate) outbound: Arc<OutboundDesk>,
    /// Who may reach which port.
    pub(crate) ports: Arc<PortsDesk>,
    /// Who is banned.
    pub(crate) bans: Arc<BansDesk>,
    /// What was scanned.
    pub(crate) scan: Arc<ScanDesk>,
    /// Who looks for open ports.
    pub(crate) port_scans: Arc<PortScanDesk>,
    /// Why the state lies in memory, where it does.
    pub(crate) temporary: Option<String>,
}

impl Answer for Desk {
    async fn query(&self, query: Query, client: &mut Client) -> Result<(), Hangup> {
        match query {
            Query::Status => client.send(&Reply::Status(self.status().await)).await,
            Query::Top => match self.ask(Ask::Top).await {
                Some(view) => client.send(&Reply::Top(view)).await,
                None => client.send(&gone()).await,
            },
            Query::Process { pid } => match self.ask(|reply| Ask::Process(pid, reply)).await {
                Some(Some(info)) => client.send(&Reply::Process(info)).await,
                Some(None) => {
                    client.send(&error(ErrorCode::NotFound, format!("pid {pid} is not known"))).await
                }
                None => client.send(&gone()).await,
            },
            Query::Events { since, limit, pid, kinds, follow } => {
                let live = follow.then(|| self.live.events.subscribe());
                let filter = EventFilter { since, limit: bounded(limit), pid, kinds: kinds.clone() };
                let events = self.store.events(&filter).await;
                send_all(client, events, Reply::Event).await?;
                let wanted = |reply: &Reply| {
                    matches!(reply, Reply::Event(e)
                        if pid.is_none_or(|p| e.process.is_some_and(|k| k.pid == p))
                            && (kinds.is_empty() || kinds.iter().any(|k| k == e.kind.name())))
                };
                go_on(client, live, wanted).await
            }
            Query::Findings { since, limit, follow } => {
                let live = follow.then(|| self.live.findings.subscribe());
                let findings = self.store.findings(since, bounded(limit)).await;
                send_all(client, findings, Reply::Finding).await?;
                go_on(client, live, |reply| matches!(reply, Reply::Finding(_))).await
            }
            Query::Finding { id } => {
                let found = self.store.finding(id).await;
                send_one(client, found, Reply::Finding, || format!("there is no finding {}", id.0)).await
            }
            Query::Incidents { since, limit } => {
                let incidents = self.store.incidents(since, bounded(limit)).await;
                send_all(client, incidents, Reply::Incident).await
            }
            Query::Incident { id } => {
                let found = self.store.incident(id).await;
                send_one(client, found, Reply::Incident, || no_incident(id)).await
            }
            Query::Quarantine => self.quarantine(client).await,
            Query::QuarantineContent { number } => self.content(number, client).await,
            Query::Trust => client.send(&Reply::Trust(self.trust.summary(clock::now()))).await,
            Query::Outbound => client.send(&Reply::Outbound(self.outbound.summary())).await,
            Query::TrustPending { limit } => {
                for pending in self.trust.pending(limit as usize) {
                    client.send(&Reply::Pending(pending)).await?;
                }
                Ok(())
            }
            Query::ServiceStarts { limit } => {
                for start in self.services.starts(limit as usize, clock::now()) {
                    client.send(&Reply::ServiceStart(start)).await?;
                }
                Ok(())
            }
            Query::Ports => {
                let view = tokio::task::block_in_place(|| self.ports.view());
                client.send(&Reply::Ports(view)).await
            }
            Query::Bans => {
                for entry in tokio::task::block_in_place(|| self.bans.view()) {
                    client.send(&Reply::Ban(entry)).await?;
                }
                Ok(())
            }
            Query::Scans { limit } => {
                for source in self.port_scans.watched(limit as usize) {
                    client.send(&Reply::ScanSource(source)).await?;
                }
                Ok(())
            }
            Query::TrustRuling { sha256, path, nameless } => {
                let question = Question { digest: Some(sha256), path: &path, nameless, failsafe: None };
                let now = clock::now();
                if !nameless && !self.trust.ruling(&question, now).allowed {
                    tokio::task::block_in_place(|| self.trust.look_for_verity(&path, sha256, now));
                }
                let ruling = self.trust.ruling(&question, now);
                client.send(&Reply::Ruling(ruling)).await
            }
            Query::Connections { since, limit, service, process, outside } => {
                let limit = bounded(limit) as usize;
                let filter = Box::new(Filter { since, limit, service, process, outside });
                let Some(rows) = self.ask(|reply| Ask::Connections(filter, reply)).await else {
                    return client.send(&gone()).await;
                };
                for row in rows {
                    client.send(&Reply::Connection(row)).await?;
                }
                Ok(())
            }
            Query::Actions { limit } => {
                let actions = self.store.actions(bounded(limit)).await;
                send_all(client, actions, Reply::Action).await
            }
        }
    }

    async fn command(&self, command: Command, by: Option<u32>) -> Reply {
        tracing::warn!(
            "by order of user {}: {command:?}",
            by.map_or("unknown".to_owned(), |u| u.to_string())
        );
        let outcome = match command {
            Command::UndoIncident { id } => self.undo_incident(id).await,
            Command::UndoAction { id } => match self.store.action(id).await {
                Ok(Some(record)) => self.undo(vec![record]).await,
                Ok(None) => return error(ErrorCode::NotFound, format!("there is no action {}", id.0)),
                Err(e) => Err(e.to_string()),
            },
            Command::Act { id, actions } => match kinds(&actions) {
                Ok(kinds) => self.arbitrate(|reply| Order::Act(id, kinds, reply)).await,
                Err(unknown) => return error(ErrorCode::Invalid, unknown),
            },
            Command::Quarantine { path, .. } if !Path::new(&path).is_absolute() => {
                return error(ErrorCode::Invalid, format!("{path} is not absolute"));
            }
            Command::Quarantine { path, file, reason } => {
                self.arbitrate(|reply| Order::Quarantine { path, file, reason, reply }).await
            }
            Command::QuarantineRestore { number } => {
                return self.sealed(|reply| SealedOrder::Restore(number, reply)).await;
            }
            Command::QuarantineDelete { number } => {
                return self.sealed(|reply| SealedOrder::Delete(number, reply)).await;
            }
            Command::Disarm { seconds } if seconds == 0 || seconds > MAX_DISARM => {
                return error(ErrorCode::Invalid, format!("disarm for 1 to {MAX_DISARM} seconds"));
            }
            Command::Disarm { seconds } => {
                let until = clock::now().plus_secs(f64::from(seconds));
                lock(&self.shared.standing).disarm(until);
                Ok(format!(
                    "disarmed: every protection only observes for {seconds} s; `davy disarm --end` ends it"
                ))
            }
            Command::Arm => {
                lock(&self.shared.standing).arm();
                self.canary.now();
                Ok("armed: the policy holds again".to_owned())
            }
            Command::Isolate { seconds, .. } if seconds == 0 || seconds > MAX_ISOLATION => {
                return error(ErrorCode::Invalid, format!("isolate for 1 to {MAX_ISOLATION} seconds"));
            }
            Command::Isolate { cgroup: Some(cgroup), .. } if below_root(&cgroup).is_none() => {
                return error(
                    ErrorCode::Invalid,
                    format!("{cgroup:?} is no cgroup below the root; {BELOW_ROOT}"),
                );
            }
            Command::Isolate { cgroup, keep, seconds, anyway } => {
                let cgroup = cgroup.as_deref().and_then(below_root).map(str::to_owned);
                self.arbitrate(|reply| {
                    Order::Isolation(IsolationOrder::Begin { cgroup, keep, seconds, anyway, reply })
                })
                .await
            }
            Command::Rejoin => self.arbitrate(|reply| Order::Isolation(IsolationOrder::End(reply))).await,
            Command::Rehearse { cgroup, seconds, code, mount } => {
                tokio::task::block_in_place(|| self.rehearse(&cgroup, seconds, code, mount.as_deref()))
            }
            Command::Ban { seconds, .. } if seconds == 0 || seconds > MAX_BAN => {
                return error(ErrorCode::Invalid, format!("ban for 1 to {MAX_BAN} seconds"));
            }
            Command::Ban { who, ports, reject, seconds } => {
                let ban = |reply| BanOrder::Begin { who, ports, reject, seconds, by, reply };
                self.arbitrate(|reply| Order::Ban(ban(reply))).await
            }
            Command::Unban { who } => self.arbitrate(|reply| Order::Ban(BanOrder::End { who, reply })).await,
            Command::PortsApply { seconds, .. } if !(MIN_TRIAL..=MAX_TRIAL).contains(&seconds) => {
                let message = format!("confirm within {MIN_TRIAL} to {MAX_TRIAL} seconds");
                return error(ErrorCode::Invalid, message);
            }
            Command::PortsApply { seconds, unused, anyway } => {
                let apply = |reply| PortsOrder::Apply { seconds, unused, anyway, reply };
                self.arbitrate(|reply| Order::Ports(apply(reply))).await
            }
            Command::PortsConfirm => self.arbitrate(|reply| Order::Ports(PortsOrder::Confirm(reply))).await,
            Command::PortsOpen => self.arbitrate(|reply| Order::Ports(PortsOrder::Open(reply))).await,
            Command::Reload => reload(&self.shared, &self.canary, &self.outbound),
            Command::Drilled(tally) => {
                let proof = Proof { time: clock::now(), tally: tally.bounded() };
                *lock(&self.shared.last_drill) = Some(proof);
                Ok("noted for `davy status`".to_owned())
            }
            Command::TrustApprove { id, seconds } => {
                let now = clock::now();
                let until = seconds.map(|seconds| now.plus_secs(seconds as f64));
                self.trust.approve(id, until, now)
            }
            Command::TrustApproveContent { sha256, path, seconds } => {
                let now = clock::now();
                let until = seconds.map(|seconds| now.plus_secs(seconds as f64));
                self.trust.approve_content(sha256, &path, until, now)
            }
            Command::TrustAccept => self.trust.accept(clock::now()),
            Command::TrustWithdraw { sha256 } => self.trust.withdraw(sha256, clock::now()),
            Command::Stop => {
                self.stop.notify_one();
                Ok("stopping: what enforces is taken away".to_owned())
            }
        };
        match outcome {
            Ok(sentence) => Reply::Done(sentence),
            Err(message) => error(ErrorCode::Failed, message),
        }
    }
}

impl Desk {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let intake = self.intake.clone();
        let input = Input::Ask(question(reply));
        // The queue may be full, and waiting for room must not hold up the runtime.
        tokio::task::block_in_place(|| intake.must(input)).then_some(())?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }

    async fn arbitrate(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<String, String>>) -> Order,
    ) -> Result<String, String> {
        let (reply, answer) = oneshot::channel();
        let sent = tokio::task::block_in_place(|| self.arbiter.send(order(reply)));
        sent.map_err(|_| "the arbiter has stopped".to_owned())?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            _ => Err("the arbiter did not answer; see `davy actions`".to_owned()),
        }
    }

    async fn undo_incident(&self, id: IncidentId) -> Result<String, String> {
        let incident = self.store.incident(id).await.map_err(|e| e.to_string())?;
        let incident = incident.ok_or_else(|| no_incident(id))?;
        // The journal knows more than the incident's text, which is written a little later.
        let records = self.store.actions_of(incident.id).await.map_err(|e| e.to_string())?;
        self.undo(records).await
    }

    async fn undo(&self, records: Vec<ActionRecord>) -> Result<String, String> {
        if records.iter().all(|r| r.state == ActionState::WouldHave) && !records.is_empty() {
            return Err("nothing was done, only observed: there is nothing to undo".to_owned());
        }
        self.arbitrate(|reply| Order::Undo(records, reply)).await
    }

    fn rehearse(
        &self,
        cgroup: &str,
        seconds: u32,
        code: bool,
        mount: Option<&str>,
    ) -> Result<String, String> {
        if seconds > MAX_REHEARSAL {
            return Err(format!("rehearse for at most {MAX_REHEARSAL} seconds"));
        }
        let trimmed = below_root(cgroup).ok_or(BELOW_ROOT)?;
        let now = clock::now();
        let until = now.plus_secs(f64::from(seconds));
        if code {
            self.trust.rehearse(trimmed, mount.map(Path::new), until, now)?;
        }
        let begun = lock(&self.shared.standing).rehearse(trimmed, until, now);
        if begun {
            // Whoever asked for it connects next.
            self.outbound.follow(&mut davy_proc::Users::new(), now);
            Ok(format!("every protection enforces inside {trimmed} for {seconds} s"))
        } else {
            Err("too many rehearsals at once; wait for one to end".to_owned())
        }
    }

    async fn status(&self) -> AgentStatus {
        let now = clock::now();
        let probes = lock(&self.shared.probes).clone();
        let rulebook = lock(&self.shared.rulebook);
        let (policy, summary) = (rulebook.policy(), rulebook.summary());
        drop(rulebook);
        let mut standing = lock(&self.shared.standing);
        let (disarmed_until, fallen_back) = (standing.disarmed_until(now), standing.fallen_back(now));
        drop(standing);
        let last_canary = lock(&self.shared.last_canary).clone();
        let canary = last_canary.as_ref().map(|proof| &proof.tally);
        let mut protections = protections::all(&policy, &probes, &self.notes, canary);
        protections.extend(self.ports.protection(&policy));
        let scans = policy.scan.mode != Mode::Off;
        if let Some(scan) = protections.iter_mut().find(|p| scans && p.name == "scan") {
            scan.note = format!("{}; {}", scan.note, self.scan.words());
        }
        self.port_scans.complete(&mut protections, || self.bans.fault());
        self.outbound.complete(&mut protections);
        let counters = &self.shared.counters;
        let mut drops: Vec<DropCount> = lock(&self.shared.sensor_drops)
            .iter()
            .map(|(kind, count)| DropCount { kind: kind.clone(), count: *count })
            .collect();
        let own = [
            ("events, the engine's queue was full", &counters.queue_full),
            ("captures, the inspect worker fell behind or failed", &counters.captures_lost),
            ("findings, the arbiter's queue was full", &counters.arbiter_full),
        ];
        let own = own.map(|(kind, counter)| (kind, counter.load(Ordering::Relaxed)));
        let counted = own.into_iter().chain(self.trust.unjudged()).filter(|(_, count)| *count > 0);
        let counted = counted.chain(self.scan.lost()).chain(self.port_scans.lost());
        drops.extend(counted.map(|(kind, count)| DropCount { kind: kind.to_owned(), count }));
        let (resident, cpu_ns) = own_use();
        let running_incidents = lock(&self.shared.running).clone();
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.shared.started,
            pid: std::process::id(),
            host: self.facts.hostname.clone(),
            kernel: self.facts.kernel.clone(),
            tier: protections.iter().filter_map(|p| p.tier).max().unwrap_or(Tier::Poll),
            protections,
            probes,
            disarmed_until,
            fallen_back,
            isolated: lock(&self.shared.isolated).clone(),
            banned: self.bans.count(),
            policy: summary,
            events: counters.events.load(Ordering::Relaxed),
            drops,
            store: StoreStatus { temporary: self.temporary.clone(), ..self.store.status() },
            running_incidents,
            resident,
            cpu_ns,
            processes: counters.processes.load(Ordering::Relaxed),
            flows: counters.flows.load(Ordering::Relaxed),
            workers: self
                .worker
                .iter()
                .map(|worker| lock(worker).clone())
                .chain(scans.then(|| self.scan.worker()))
                .collect(),
            dashboard: None,
            last_canary,
            last_drill: lock(&self.shared.last_drill).clone(),
        }
    }
}

const BELOW_ROOT: &str = "name a cgroup below the root, such as /davy-drill-4711";

/// The path of a cgroup below the root of the tree, without a slash at its end; `None` for anything else.
fn below_root(cgroup: &str) -> Option<&str> {
    let trimmed = cgroup.trim_end_matches('/');
    (trimmed.starts_with('/') && !Path::new(trimmed).iter().any(|part| part == "..")).then_some(trimmed)
}

/// The agent's own resident bytes and CPU time.
fn own_use() -> (u64, u64) {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse().ok())
        .unwrap_or(0);
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_ns = spent.tv_sec.cast_unsigned() * 1_000_000_000 + spent.tv_nsec.cast_unsigned();
    (pages * rustix::param::page_size() as u64, cpu_ns)
}

fn bounded(limit: u32) -> u32 {
    limit.clamp(1, MAX_LIMIT)
}

fn gone() -> Reply {
    error(ErrorCode::Failed, "the engine did not answer; the agent is stopping or overloaded")
}

fn no_incident(id: IncidentId) -> String {
    format!("there is no incident {}; see `davy incidents`", id.0)
}

fn kinds(names: &[String]) -> Result<Vec<ActionKind>, String> {
    names
        .iter()
        .map(|name| {
            ActionKind::from_name(name)
                .ok_or_else(|| format!("{name} is no action; expected freeze, cut, quarantine or kill"))
        })
        .collect()
}

async fn send_all<T>(
    client: &mut Client,
    found: Result<Vec<T>, davy_store::Error>,
    wrap: impl Fn(T) -> Reply,
) -> Result<(), Hangup> {
    match found {
        Ok(all) => {
            for one in all {
                client.send(&wrap(one)).await?;
            }
            Ok(())
        }
        Err(e) => client.send(&error(ErrorCode::Failed, e.to_string())).await,
    }
}

async fn send_one<T>(
    client: &mut Client,
    found: Result<Option<T>, davy_store::Error>,
    wrap: impl Fn(T) -> Reply,
    missing: impl Fn() -> String,
) -> Result<(), Hangup> {
    let reply = match found {
        Ok(Some(one)) => wrap(one),
        Ok(None) => error(ErrorCode::NotFound, missing()),
        Err(e) => error(ErrorCode::Failed, e.to_string()),
    };
    client.send(&reply).await
}

/// Sends what comes, until the client hangs up. A client that is too slow is told how much it missed.
async fn go_on(
    client: &mut Client,
    live: Option<broadcast::Receiver<Arc<Reply>>>,
    wanted: impl Fn(&Reply) -> bool,
) -> Result<(), Hangup> {
    let Some(mut live) = live else { return Ok(()) };
    loop {
        match live.recv().await {
            Ok(reply) if wanted(&reply) => client.send(&reply).await?,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                let message = format!("{missed} were not sent: this client reads too slowly");
                client.send(&error(ErrorCode::Failed, message)).await?;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}
