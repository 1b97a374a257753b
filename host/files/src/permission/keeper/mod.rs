//! The process that reads permission events, and answers all of them in time.

mod pending;
mod vouched;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::config::GateCounts;
use super::kernel::{self, DeadMansSwitch};
use super::message::{Message, monotonic, receive, send};
use pending::Pending;
use vouched::Vouched;

/// Questions that may wait for the agent at once; beyond them everything is let through.
const PENDING: usize = 1024;

/// Descriptors that suffice for what waits, what is vouched for and one reading of events. Without a free one the kernel
/// denies what it cannot tell of, so there must always be one.
const DESCRIPTORS: u64 = 2048;

/// Events read at once.
const EVENTS: usize = 64;

/// The keeper is ended by the kernel when it has done nothing for so long.
pub(super) const SWITCH: Duration = Duration::from_secs(2);

/// How often it shows that it lives while nothing happens.
const BEAT: Duration = Duration::from_millis(900);

/// How long after the last push the next is worth a system call.
const PUSH: Duration = Duration::from_millis(200);

/// How often held files are looked at when nobody waits for them.
const LOOK: Duration = Duration::from_millis(500);

/// A question that waits longer than this makes the keeper ask whether the agent lives.
const PATIENCE: Duration = Duration::from_millis(100);

/// Late decisions without one in time between, after which the agent counts as stuck.
const STUCK: u32 = 4;

/// How often the counts are told when they change.
const TELL: Duration = Duration::from_secs(1);

/// What the keeper believes of the agent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judge {
    Present,
    /// It was asked whether it lives, then.
    Pinged(Instant),
    /// It did not say so in time. Nobody waits for it until it does.
    Absent,
    /// It lives, but one decision after the other was late: all its threads wait for something. Nobody waits for it until
    /// one of them decides.
    Stuck,
}

/// Works as the keeper of a [`super::PermissionGate`] until the gate is gone. Standard input and output are the two
/// sockets that the gate gave it. The process must have one thread and nothing else to do.
///
/// # Errors
/// When the first words are not the gate's, or the group cannot be made.
pub fn keep() -> io::Result<()> {
    let asks = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let control = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    let Some((Message::Setup { agent, exec_ms, open_ms, silence_ms, late_allows }, _)) =
        receive(&control, true)?
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let begun = prepare();
    let errno = begun.as_ref().err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO).unsigned_abs());
    send(&control, Message::Ready { errno: errno.into() }, None, true)?;
    let (group, signals, switch) = begun?;
    let millis = Duration::from_millis;
    Keeper {
        group,
        asks,
        control,
        signals,
        switch,
        agent,
        own: std::process::id(),
        exec: millis(exec_ms),
        open: millis(open_ms),
        silence: millis(silence_ms),
        late_allows,
        pending: Pending::new(PENDING),
        vouched: Vouched::default(),
        judge: Judge::Present,
        heard: Instant::now(),
        lates: 0,
        counts: GateCounts::default(),
        told: (GateCounts::default(), Instant::now()),
        pushed: Instant::now(),
    }
    .run()
}

fn prepare() -> io::Result<(OwnedFd, OwnedFd, DeadMansSwitch)> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    if limit.maximum.is_some_and(|most| most < DESCRIPTORS) {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    // What cannot be had of these is done without.
    let _ = kernel::lock_memory();
    let _ = rustix::process::nice(-10);
    let signals = kernel::lease_signals()?;
    let switch = DeadMansSwitch::new()?;
    switch.push(SWITCH)?;
    Ok((kernel::permission_group()?, signals, switch))
}

struct Keeper {
    group: OwnedFd,
    asks: OwnedFd,
    control: OwnedFd,
    signals: OwnedFd,
    switch: DeadMansSwitch,
    agent: u32,
    own: u32,
    exec: Duration,
    open: Duration,
    silence: Duration,
    late_allows: bool,
    pending: Pending,
    vouched: Vouched,
    judge: Judge,
    /// When the agent last said anything.
    heard: Instant,
    /// Late decisions since the last in time.
    lates: u32,
    counts: GateCounts,
    told: (GateCounts, Instant),
    pushed: Instant,
}

impl Keeper {
    fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; EVENTS * kernel::METADATA];
        let mut looked = Instant::now();
        loop {
            let ready = self.wait();
            let now = Instant::now();
            if now - self.pushed >= PUSH {
                self.switch.push(SWITCH)?;
                self.pushed = now;
            }
            if ready.answers && !self.take_answers(now) || ready.orders && !self.take_orders(now) {
                break;
            }
            if ready.events {
                self.take_events(&mut buffer, now);
            }
            self.answer_late(now);
            self.mind_the_judge(now);
            if ready.signals {
                let mut signal = [0; 128 * 8];
                while rustix::io::read(&self.signals, &mut signal).is_ok_and(|n| n == signal.len()) {}
            }
            // Every held file is asked about, which is too much for every event.
            if ready.signals || now - looked >= LOOK {
                self.vouched.look(now);
                looked = now;
            }
            self.vouched.give_back(now);
            if now - self.told.1 >= TELL && self.counts != self.told.0 {
                self.tell(now);
            }
        }
        self.let_all_through();
        self.tell(Instant::now());
        Ok(())
    }

    /// Waits until there is something to do.
    fn wait(&self) -> Ready {
        let ping = match self.judge {
            Judge::Present => self.pending.since().map(|since| since.max(self.heard) + PATIENCE),
            Judge::Pinged(since) => Some(since + self.silence),
            Judge::Absent | Judge::Stuck => None,
        };
        let now = Instant::now();
        let until = [self.pending.deadline(), self.vouched.due(), ping].into_iter().flatten().min();
        let time = until.map_or(BEAT, |until| until.saturating_duration_since(now).min(BEAT));
        // A little later than asked, so that it is over when it is looked at.
        let nanos = time.subsec_nanos().saturating_add(50_000).min(999_999_999);
        let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: nanos.into() };
        let mut waits =
            [&self.group, &self.asks, &self.control, &self.signals].map(|fd| PollFd::new(fd, PollFlags::IN));
        if poll(&mut waits, Some(&time)).is_err() {
            // Interrupted: everything is looked at, which does no harm.
            return Ready { events: true, answers: true, orders: true, signals: true };
        }
        let [events, answers, orders, signals] = waits.map(|w| !w.revents().is_empty());
        Ready { events, answers, orders, signals }
    }

    fn take_events(&mut self, buffer: &mut [u8], now: Instant) {
        let Ok(length) = rustix::io::read(&self.group, &mut *buffer) else { return };
        for event in kernel::events(&buffer[..length]) {
            if event.mask & libc::FAN_Q_OVERFLOW != 0 {
                self.counts.overflows += 1;
            }
            let Some(file) = event.file else { continue };
            if event.pid == self.agent || event.pid == self.own || event.pid == 1 {
                self.counts.own += 1;
                self.answer(&file, true);
                continue;
            }
            self.counts.asked += 1;
            self.ask(file, event.pid, event.mask & libc::FAN_OPEN_EXEC_PERM != 0, now);
        }
    }

    fn ask(&mut self, file: OwnedFd, pid: u32, exec: bool, now: Instant) {
        if self.vouched.knows(&file, now) {
            self.counts.remembered += 1;
            return self.answer(&file, true);
        }
        if matches!(self.judge, Judge::Absent | Judge::Stuck) {
            self.counts.absent += 1;
            return self.answer(&file, true);
        }
        let sent = self.pending.next().and_then(|number| {
            let ask = Message::Ask { number, pid, exec, since: monotonic() };
            send(&self.asks, ask, Some(file.as_fd()), false).ok().map(|()| number)
        });
        match sent {
            Some(number) => {
                let patience = if exec { self.exec } else { self.open };
                self.pending.add(number, file, now, now + patience);
            }
            None => {
                self.counts.crowded += 1;
                self.answer(&file, true);
            }
        }
    }

    /// What the agent decided; false when it has hung up.
    fn take_answers(&mut self, now: Instant) -> bool {
        loop {
            match receive(&self.asks, false) {
                Ok(Some((Message::Verdict { number, allow, keep }, _))) => {
                    (self.judge, self.heard, self.lates) = (Judge::Present, now, 0);
                    // One that was answered late is not there any more.
                    let Some(waiting) = self.pending.take(number) else { continue };
                    self.counts.judged += 1;
                    self.answer(&waiting.file, allow);
                    if allow {
                        self.vouched.hold(waiting.file, keep, now);
                    } else {
                        kernel::drop_lease(&waiting.file);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                _ => return false,
            }
        }
    }

    /// What the agent wants; false when it has hung up.
    fn take_orders(&mut self, now: Instant) -> bool {
        loop {
            match receive(&self.control, false) {
                Ok(Some((Message::Mark { file_system, opens }, Some(folder)))) => {
                    let marked = kernel::mark(&self.group, folder.as_fd(), file_system, opens);
                    let errno =
                        marked.err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO).unsigned_abs());
                    let _ = send(&self.control, Message::Marked { errno: errno.into() }, None, false);
                }
                Ok(Some((Message::Forget, _))) => self.vouched.forget(),
                Ok(Some((Message::Pong, _))) if self.judge != Judge::Stuck => {
                    (self.judge, self.heard) = (Judge::Present, now);
                }
                Ok(Some((Message::Pong, _))) => self.heard = now,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                _ => return false,
            }
        }
    }

    fn answer_late(&mut self, now: Instant) {
        while let Some(waiting) = self.pending.take_late(now) {
            self.counts.late += 1;
            self.lates += 1;
            self.answer(&waiting.file, self.late_allows);
            kernel::drop_lease(&waiting.file);
        }
        if self.lates >= STUCK && self.judge != Judge::Absent {
            self.judge = Judge::Stuck;
            self.let_all_through();
        }
    }

    /// Finds out whether the agent lives when it lets a question wait, and waits for it no more when it does not.
    fn mind_the_judge(&mut self, now: Instant) {
        match self.judge {
            Judge::Present
                if self.pending.since().is_some_and(|since| now >= since.max(self.heard) + PATIENCE) =>
            {
                // A socket that is full says as much as a ping that is not answered.
                let _ = send(&self.control, Message::Ping, None, false);
                self.judge = Judge::Pinged(now);
            }
            Judge::Pinged(since) if now >= since + self.silence => {
                self.judge = Judge::Absent;
                self.let_all_through();
            }
            // An agent that comes back finds this and says so.
            Judge::Absent if now >= self.heard + TELL => {
                let _ = send(&self.control, Message::Ping, None, false);
                self.heard = now;
            }
            _ => {}
        }
    }

    fn let_all_through(&mut self) {
        while let Some(waiting) = self.pending.take_any() {
            self.counts.absent += 1;
            self.answer(&waiting.file, true);
            kernel::drop_lease(&waiting.file);
        }
    }

    fn answer(&self, file: &OwnedFd, allow: bool) {
        // Whoever asked may have been killed meanwhile: then there is nothing to answer.
        let _ = rustix::io::write(&self.group, &kernel::response(file, allow));
    }

    fn tell(&mut self, now: Instant) {
        if send(&self.control, Message::Counts(self.counts), None, false).is_ok() {
            self.told = (self.counts, now);
        }
    }
}

/// Which descriptors have something.
struct Ready {
    events: bool,
    answers: bool,
    orders: bool,
    signals: bool,
}
