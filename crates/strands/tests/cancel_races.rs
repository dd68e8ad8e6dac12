//! Every operation that waits, against whatever may end it: one of the two has happened, and wholly.
//!
//! A *case* is an operation that takes one unit of something: a message, a permit, a turn, a byte. In each round
//! a contender attempts it under a time limit, below a token, or in a fiber that is cancelled, while the unit is
//! provided at about the same time. Where others may contend, a patient party attempts the same
//! without limit: it must get what the contender did not take, so nothing may be lost on the way to who
//! gave up. At the end the books must balance to the unit.

mod thread_common;

use std::io::{Read, Write};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc as std_mpsc};

use strands::cancel::{CancelToken, uncancellable, was_cancelled};
use strands::channel;
use strands::net::{TcpListener, TcpStream};
use strands::sync::{
    Barrier, Condvar, Mutex, Notify, Once, RwLock, Semaphore, WaitGroup, broadcast, mpsc, oneshot,
    watch,
};
use strands::thread::{self, Builder, Placement};
use strands::time::{Deadline, Duration, Instant, timeout};
use strands::{Runtime, unblock, yield_now};
use thread_common::{Random, runtime, stress};

/// One operation, for one round.
trait Case: Send + Sync {
    /// Waits for a unit and takes it.
    fn attempt(&self);

    /// Gives one unit. By a plain thread, which may block.
    fn provide(&self);

    /// Whether any number of parties may attempt it at once.
    fn is_shared(&self) -> bool {
        true
    }

    /// `won`: the contender has got its unit; else it was unwound. If the case is not shared, the unit
    /// is still to be had in that case, and must be taken here. Afterwards nothing is left.
    fn settle(&self, won: bool);
}

type Make = fn() -> Arc<dyn Case>;

/// All that waits. A case is made for each round, by a plain thread.
const CASES: [(&str, Make); 34] = [
    ("park", || Arc::new(Park::default())),
    ("sleep", || Arc::new(Sleep(AtomicUsize::new(0)))),
    ("yield_now", || Arc::new(Yield(AtomicUsize::new(0)))),
    ("join", || Arc::new(Join::new())),
    ("scope", || Arc::new(Scope::default())),
    ("Mutex::lock", || Arc::new(Lock::new(|both| drop(both.0.lock().unwrap())))),
    ("RwLock::read", || Arc::new(Lock::new(|both| drop(both.1.read().unwrap())))),
    ("RwLock::write", || Arc::new(Lock::new(|both| drop(both.1.write().unwrap())))),
    ("Condvar::wait", || Arc::new(Tickets::default())),
    ("Barrier::wait", || Arc::new(Meeting::new())),
    ("Once::call_once", || Arc::new(OnceCase::new())),
    ("mpsc::recv", || Arc::new(MpscRecv::new())),
    ("mpsc::send", || Arc::new(MpscSend::new())),
    ("channel::recv", || Arc::new(ChannelRecv(channel::unbounded()))),
    ("channel::recv bounded", || Arc::new(ChannelRecv(channel::bounded(2)))),
    ("channel::send", || Arc::new(ChannelSend::new(1))),
    ("channel::send rendezvous", || Arc::new(ChannelSend::new(0))),
    ("oneshot::recv", || Arc::new(Oneshot::new())),
    ("watch::changed", || Arc::new(Watch::new())),
    ("broadcast::recv", || Arc::new(Broadcast::new())),
    ("Semaphore::acquire", || Arc::new(Permits(Semaphore::new(0), 1))),
    ("Semaphore::acquire_many", || Arc::new(Permits(Semaphore::new(0), 3))),
    ("Notify::notified", || Arc::new(Notified(Notify::new()))),
    ("WaitGroup::wait", || Arc::new(Group::new())),
    ("CancelToken::wait", || Arc::new(TokenWait(CancelToken::new()))),
    ("unblock", || Arc::new(Unblock::default())),
    ("accept", || Arc::new(Accept::new())),
    ("connect", || Arc::new(Connect::new())),
    ("read", || Arc::new(ReadByte::new(false))),
    ("peek", || Arc::new(ReadByte::new(true))),
    ("write", || Arc::new(WriteBytes::new())),
    // With a time limit of their own, which passes much later.
    ("channel::recv_timeout", || Arc::new(RecvTimeout(channel::unbounded()))),
    ("Semaphore::acquire_deadline", || Arc::new(AcquireDeadline(Semaphore::new(0)))),
    ("recv, shielded", || Arc::new(Shielded(channel::unbounded()))),
];

const LATE: Duration = Duration::from_secs(1_000_000);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    TimeLimit,
    Token,
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Thread,
    Fiber(usize),
}

/// Passes a little time, so that the two meet now here, now there.
fn dither(random: &mut Random) {
    for _ in 0..random.below(4) * random.below(1_500) {
        std::hint::spin_loop();
    }
}

type Started = Box<dyn FnOnce() -> bool>;

/// Runs `f`; the result says whether it came to its end.
fn start(runtime: &Runtime, who: Who, f: impl FnOnce() -> bool + Send + 'static) -> Started {
    match who {
        Who::Thread => {
            let thread = std::thread::spawn(f);
            Box::new(move || thread.join().unwrap())
        }
        Who::Fiber(worker) => {
            let fiber = spawn_at(runtime, worker, f);
            Box::new(move || fiber.join().unwrap())
        }
    }
}

fn spawn_at<T: Send + 'static>(
    runtime: &Runtime,
    worker: usize,
    f: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let builder = Builder::new().placement(Placement::Worker(worker));
    runtime.run(|| builder.spawn(f)).unwrap()
}

/// Starts the contender. What ends it, and whether it came to its end.
fn contend(
    runtime: &Runtime,
    case: &Arc<dyn Case>,
    ends: Ends,
    who: Who,
    random: &mut Random,
) -> (Box<dyn FnOnce()>, Started) {
    let begun = Arc::new(AtomicBool::new(false));
    let (case, its) = (case.clone(), begun.clone());
    let attempt = move || {
        its.store(true, SeqCst);
        case.attempt();
    };
    let contender: (Box<dyn FnOnce()>, Started) = match (ends, who) {
        (Ends::TimeLimit, _) => {
            let limit = Duration::from_nanos(random.below(3) * random.below(60_000));
            let run = move || timeout(limit, attempt).is_ok();
            (Box::new(|| ()), start(runtime, who, run))
        }
        (Ends::Token, _) => {
            let token = CancelToken::new();
            let its = token.child();
            let run = move || its.run(attempt).is_ok();
            let end = move || {
                token.cancel();
            };
            (Box::new(end), start(runtime, who, run))
        }
        (Ends::Cancel, Who::Fiber(worker)) => {
            let fiber = Arc::new(spawn_at(runtime, worker, attempt));
            let its = fiber.clone();
            let join = move || {
                let fiber = Arc::into_inner(fiber).expect("it was cancelled, or is not to be");
                let result = fiber.join();
                assert!(result.is_ok() || was_cancelled(&result));
                result.is_ok()
            };
            (Box::new(move || its.cancel()), Box::new(join))
        }
        (Ends::Cancel, Who::Thread) => unreachable!("threads are not cancelled"),
    };
    // Now and then it is ended before it has begun.
    let any_time = random.below(8) == 0;
    while !any_time && !begun.load(SeqCst) {
        std::thread::yield_now();
    }
    contender
}

fn round(runtime: &Runtime, make: Make, ends: Ends, who: Who, random: &mut Random) -> bool {
    let case = make();
    let its = case.clone();
    let mut patient = case.is_shared().then_some(move || {
        its.attempt();
        true
    });
    let whose = [Who::Thread, Who::Fiber(0), Who::Fiber(1)][random.below(3) as usize];
    let is_first = random.below(2) == 0;
    let first = patient.take_if(|_| is_first).map(|patient| start(runtime, whose, patient));
    dither(random);
    let (end, contender) = contend(runtime, &case, ends, who, random);
    let second = patient.map(|patient| start(runtime, whose, patient));
    dither(random);
    match random.below(3) {
        0 => {
            end();
            dither(random);
            case.provide();
        }
        _ => {
            case.provide();
            dither(random);
            end();
        }
    }
    let won = contender();
    if let Some(patient) = first.or(second) {
        if won {
            case.provide();
        }
        assert!(patient());
    }
    case.settle(won);
    won
}

#[test]
fn every_operation_has_happened_or_has_not() {
    let runtime = runtime(2);
    let seed = std::env::var("STRANDS_SEED").map_or(42, |seed| seed.parse().unwrap());
    let parties = [Who::Thread, Who::Fiber(0), Who::Fiber(1)];
    let (mut all, mut won) = (0, 0);
    for (name, make) in CASES {
        let before = won;
        for ends in [Ends::TimeLimit, Ends::Token, Ends::Cancel] {
            for who in parties {
                if (ends, who) == (Ends::Cancel, Who::Thread) {
                    continue;
                }
                // A run that fails or hangs says where.
                eprintln!("{name}, {ends:?}, {who:?}, seed {seed}");
                let mut random = Random(seed);
                for _ in 0..10 * stress() {
                    all += 1;
                    won += usize::from(round(&runtime, make, ends, who, &mut random));
                }
            }
        }
        assert!(won > before, "{name} never came to its end: it cannot have been tested");
    }
    assert!(won < all, "nothing was ever ended");
    runtime.shutdown_timeout(Duration::MAX).unwrap();
}

// The cases.

/// The token is taken, or stays.
#[derive(Default)]
struct Park {
    party: std::sync::Mutex<Option<thread::Thread>>,
    provided: AtomicBool,
}

impl Case for Park {
    fn attempt(&self) {
        *self.party.lock().unwrap() = Some(thread::current());
        if self.provided.load(SeqCst) {
            thread::current().unpark(); // We came too late to be found.
        }
        if let Err(payload) = catch_unwind(thread::park) {
            // It would wait for ever if the cancel had taken the token.
            uncancellable(thread::park);
            resume_unwind(payload);
        }
    }

    fn provide(&self) {
        self.provided.store(true, SeqCst);
        if let Some(party) = &*self.party.lock().unwrap() {
            party.unpark();
        }
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, _: bool) {}
}

struct Sleep(AtomicUsize);

impl Case for Sleep {
    fn attempt(&self) {
        let start = Instant::now();
        strands::sleep(Duration::from_micros(20));
        assert!(start.elapsed() >= Duration::from_micros(20));
        self.0.fetch_add(1, SeqCst);
    }

    fn provide(&self) {}

    fn settle(&self, won: bool) {
        assert_eq!(self.0.load(SeqCst), 1 + usize::from(won));
    }
}

struct Yield(AtomicUsize);

impl Case for Yield {
    fn attempt(&self) {
        for _ in 0..10 {
            yield_now();
        }
        self.0.fetch_add(1, SeqCst);
    }

    fn provide(&self) {}

    fn settle(&self, won: bool) {
        assert_eq!(self.0.load(SeqCst), 1 + usize::from(won));
    }
}

/// What is dropped once.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

struct Join {
    handle: std::sync::Mutex<Option<thread::JoinHandle<Counted>>>,
    open: channel::Sender<()>,
    drops: Arc<AtomicUsize>,
}

impl Join {
    fn new() -> Join {
        let (open, gate) = channel::unbounded();
        let drops = Arc::new(AtomicUsize::new(0));
        let result = Counted(drops.clone());
        let handle = strands::spawn(move || {
            gate.recv().unwrap();
            result
        });
        Join { handle: std::sync::Mutex::new(Some(handle)), open, drops }
    }
}

impl Case for Join {
    fn attempt(&self) {
        let handle = self.handle.lock().unwrap().take().unwrap();
        drop(handle.join().unwrap());
    }

    fn provide(&self) {
        self.open.send(()).unwrap();
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, won: bool) {
        if let Some(handle) = self.handle.lock().unwrap().take() {
            assert!(!won, "it was not even begun");
            handle.join().unwrap();
        }
        while !won && self.drops.load(SeqCst) == 0 {
            yield_now(); // Detached, it runs to its end.
        }
        assert_eq!(self.drops.load(SeqCst), 1);
    }
}

#[derive(Default)]
struct Scope {
    gate: Tickets,
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Case for Scope {
    fn attempt(&self) {
        struct Ends<'a>(&'a Scope);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.ended.fetch_add(1, SeqCst);
            }
        }
        thread::scope(|scope| {
            self.begun.fetch_add(1, SeqCst);
            let ends = Ends(self);
            scope.spawn(move || {
                let _ends = ends;
                self.gate.attempt();
            });
        });
        assert!(self.ended.load(SeqCst) > 0);
    }

    fn provide(&self) {
        self.gate.provide();
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, won: bool) {
        assert_eq!(self.begun.load(SeqCst), self.ended.load(SeqCst), "a child outlives its scope");
        let left = *self.gate.free.lock().unwrap();
        assert!(left <= 1 && (!won || left == 0));
    }
}

type Both = (Mutex<()>, RwLock<()>);

/// A lock that is held until it is provided.
struct Lock {
    locks: Arc<Both>,
    lock: fn(&Both),
    release: std_mpsc::Sender<()>,
    holder: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
    got: AtomicUsize,
}

impl Lock {
    fn new(lock: fn(&Both)) -> Lock {
        let locks = Arc::new(Both::default());
        let its = locks.clone();
        let (tells, told) = std_mpsc::channel();
        let (release, released) = std_mpsc::channel();
        let holder = std::thread::spawn(move || {
            let _guards = (its.0.lock().unwrap(), its.1.write().unwrap());
            tells.send(()).unwrap();
            released.recv().unwrap();
        });
        told.recv().unwrap();
        let holder = std::sync::Mutex::new(Some(holder));
        Lock { locks, lock, release, holder, got: AtomicUsize::new(0) }
    }
}

impl Case for Lock {
    fn attempt(&self) {
        (self.lock)(&self.locks);
        self.got.fetch_add(1, SeqCst);
    }

    fn provide(&self) {
        let _ = self.release.send(()); // Once is enough for all.
    }

    fn settle(&self, won: bool) {
        self.holder.lock().unwrap().take().unwrap().join().unwrap();
        assert_eq!(self.got.load(SeqCst), 1 + usize::from(won));
        assert!(self.locks.0.try_lock().is_ok() && self.locks.1.try_write().is_ok());
    }
}

/// As many may pass as tickets are put down.
#[derive(Default)]
struct Tickets {
    free: Mutex<usize>,
    more: Condvar,
}

impl Case for Tickets {
    fn attempt(&self) {
        let mut free = self.free.lock().unwrap();
        while *free == 0 {
            free = self.more.wait(free).unwrap();
        }
        *free -= 1;
    }

    fn provide(&self) {
        *self.free.lock().unwrap() += 1;
        self.more.notify_one();
    }

    fn settle(&self, _: bool) {
        assert_eq!(*self.free.try_lock().unwrap(), 0, "a ticket too many");
    }
}

/// A barrier of two; the other comes by `provide`.
struct Meeting {
    barrier: Arc<Barrier>,
    other: std::sync::Mutex<Option<std::thread::JoinHandle<bool>>>,
    leads: AtomicUsize,
}

impl Meeting {
    fn new() -> Meeting {
        let barrier = Arc::new(Barrier::new(2));
        Meeting { barrier, other: std::sync::Mutex::default(), leads: AtomicUsize::new(0) }
    }
}

impl Case for Meeting {
    fn attempt(&self) {
        let leads = self.barrier.wait().is_leader();
        self.leads.fetch_add(usize::from(leads), SeqCst);
    }

    fn provide(&self) {
        let barrier = self.barrier.clone();
        let other = std::thread::spawn(move || barrier.wait().is_leader());
        *self.other.lock().unwrap() = Some(other);
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, won: bool) {
        if !won {
            self.attempt(); // Who gave up is not counted, so the other still waits.
        }
        let other = self.other.lock().unwrap().take().unwrap();
        let leads = self.leads.load(SeqCst) + usize::from(other.join().unwrap());
        assert_eq!(leads, 1);
    }
}

struct OnceCase {
    once: Arc<Once>,
    open: std_mpsc::Sender<()>,
    runner: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl OnceCase {
    fn new() -> OnceCase {
        let once = Arc::new(Once::new());
        let its = once.clone();
        let ((tells, told), (open, gate)) = (std_mpsc::channel(), std_mpsc::channel());
        let runner = std::thread::spawn(move || {
            its.call_once(|| {
                tells.send(()).unwrap();
                gate.recv().unwrap();
            });
        });
        told.recv().unwrap();
        OnceCase { once, open, runner: std::sync::Mutex::new(Some(runner)) }
    }
}

impl Case for OnceCase {
    fn attempt(&self) {
        self.once.call_once(|| unreachable!("another is at it"));
    }

    fn provide(&self) {
        let _ = self.open.send(());
    }

    fn settle(&self, _: bool) {
        self.runner.lock().unwrap().take().unwrap().join().unwrap();
        assert!(self.once.is_completed());
    }
}

struct MpscRecv {
    sender: mpsc::Sender<u32>,
    receiver: std::sync::Mutex<Option<mpsc::Receiver<u32>>>,
}

impl MpscRecv {
    fn new() -> MpscRecv {
        let (sender, receiver) = mpsc::channel();
        MpscRecv { sender, receiver: std::sync::Mutex::new(Some(receiver)) }
    }
}

impl Case for MpscRecv {
    fn attempt(&self) {
        struct Back<'a>(&'a MpscRecv, Option<mpsc::Receiver<u32>>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                *self.0.receiver.lock().unwrap() = self.1.take();
            }
        }
        let taken = self.receiver.lock().unwrap().take();
        let receiver = Back(self, taken);
        assert_eq!(receiver.1.as_ref().unwrap().recv(), Ok(7));
    }

    fn provide(&self) {
        self.sender.send(7).unwrap();
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, won: bool) {
        let receiver = self.receiver.lock().unwrap().take().unwrap();
        assert_eq!(receiver.try_iter().count(), usize::from(!won));
    }
}

/// A channel with room for one, which is taken; providing makes room.
struct MpscSend {
    sender: mpsc::SyncSender<usize>,
    receiver: std::sync::Mutex<mpsc::Receiver<usize>>,
    sent: AtomicUsize,
}

impl MpscSend {
    fn new() -> MpscSend {
        let (sender, receiver) = mpsc::sync_channel(1);
        sender.send(0).unwrap();
        MpscSend { sender, receiver: std::sync::Mutex::new(receiver), sent: AtomicUsize::new(1) }
    }
}

impl Case for MpscSend {
    fn attempt(&self) {
        self.sender.send(1).unwrap();
        self.sent.fetch_add(1, SeqCst);
    }

    fn provide(&self) {
        self.receiver.lock().unwrap().recv().unwrap();
        self.sent.fetch_sub(1, SeqCst);
    }

    fn settle(&self, _: bool) {
        // One provided for each that was sent, so the first message is what is in excess.
        let left = self.receiver.lock().unwrap().try_iter().count();
        assert_eq!((left, self.sent.load(SeqCst)), (1, 1));
    }
}

struct ChannelRecv((channel::Sender<u32>, channel::Receiver<u32>));

impl Case for ChannelRecv {
    fn attempt(&self) {
        assert_eq!(self.0.1.recv(), Ok(7));
    }

    fn provide(&self) {
        self.0.0.send(7).unwrap();
    }

    fn settle(&self, _: bool) {
        assert!(self.0.1.try_recv().is_err(), "a message was doubled");
    }
}

struct ChannelSend {
    ends: (channel::Sender<usize>, channel::Receiver<usize>),
    sent: AtomicUsize,
    received: AtomicUsize,
}

impl ChannelSend {
    fn new(capacity: usize) -> ChannelSend {
        let ends = if capacity == 0 { channel::rendezvous() } else { channel::bounded(capacity) };
        for _ in 0..capacity {
            ends.0.send(1).unwrap();
        }
        ChannelSend { ends, sent: AtomicUsize::new(capacity), received: AtomicUsize::new(0) }
    }
}

impl Case for ChannelSend {
    fn attempt(&self) {
        self.ends.0.send(1).unwrap();
        self.sent.fetch_add(1, SeqCst);
    }

    fn provide(&self) {
        self.received.fetch_add(self.ends.1.recv().unwrap(), SeqCst);
    }

    fn settle(&self, won: bool) {
        let left = self.ends.1.try_iter().count();
        assert_eq!(self.sent.load(SeqCst), self.received.load(SeqCst) + left);
        assert_eq!(self.received.load(SeqCst), 1 + usize::from(won));
    }
}

struct Oneshot {
    sender: std::sync::Mutex<Option<oneshot::Sender<Counted>>>,
    receiver: std::sync::Mutex<Option<oneshot::Receiver<Counted>>>,
    drops: Arc<AtomicUsize>,
}

impl Oneshot {
    fn new() -> Oneshot {
        let (sender, receiver) = oneshot::channel();
        let some = |receiver| std::sync::Mutex::new(Some(receiver));
        let sender = std::sync::Mutex::new(Some(sender));
        Oneshot { sender, receiver: some(receiver), drops: Arc::default() }
    }
}

impl Case for Oneshot {
    fn attempt(&self) {
        let receiver = self.receiver.lock().unwrap().take().unwrap();
        drop(receiver.recv().unwrap());
    }

    fn provide(&self) {
        let sender = self.sender.lock().unwrap().take().unwrap();
        drop(sender.send(Counted(self.drops.clone())));
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, won: bool) {
        drop(self.receiver.lock().unwrap().take());
        assert_eq!(self.drops.load(SeqCst), 1, "won: {won}");
    }
}

/// Each party has a receiver of its own, of which the patient one comes first.
struct Watch {
    sender: watch::Sender<u32>,
    /// The contender's.
    mine: std::sync::Mutex<Option<watch::Receiver<u32>>>,
}

impl Watch {
    fn new() -> Watch {
        let (sender, receiver) = watch::channel(0);
        Watch { sender, mine: std::sync::Mutex::new(Some(receiver)) }
    }
}

impl Case for Watch {
    fn attempt(&self) {
        struct Back<'a>(&'a Watch, Option<watch::Receiver<u32>>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                *self.0.mine.lock().unwrap() = self.1.take();
            }
        }
        let taken = self.mine.lock().unwrap().take();
        let mut receiver = Back(self, taken);
        receiver.1.as_mut().unwrap().changed().unwrap();
    }

    fn provide(&self) {
        self.sender.send(1).unwrap();
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, won: bool) {
        let receiver = self.mine.lock().unwrap().take().unwrap();
        assert_eq!(receiver.has_changed(), Ok(!won), "the change was seen twice, or not at all");
    }
}

struct Broadcast {
    sender: broadcast::Sender<u32>,
    mine: std::sync::Mutex<Option<broadcast::Receiver<u32>>>,
}

impl Broadcast {
    fn new() -> Broadcast {
        let (sender, receiver) = broadcast::channel(4);
        Broadcast { sender, mine: std::sync::Mutex::new(Some(receiver)) }
    }
}

impl Case for Broadcast {
    fn attempt(&self) {
        struct Back<'a>(&'a Broadcast, Option<broadcast::Receiver<u32>>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                *self.0.mine.lock().unwrap() = self.1.take();
            }
        }
        let taken = self.mine.lock().unwrap().take();
        let mut receiver = Back(self, taken);
        assert_eq!(receiver.1.as_mut().unwrap().recv(), Ok(7));
    }

    fn provide(&self) {
        self.sender.send(7).unwrap();
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, won: bool) {
        let mut receiver = self.mine.lock().unwrap().take().unwrap();
        assert_eq!(receiver.try_recv().is_ok(), !won);
        assert!(receiver.try_recv().is_err());
    }
}

struct Permits(Semaphore, u32);

impl Case for Permits {
    fn attempt(&self) {
        self.0.acquire_many(self.1).unwrap().forget();
    }

    fn provide(&self) {
        for _ in 0..self.1 {
            self.0.add_permits(1);
        }
    }

    fn settle(&self, _: bool) {
        assert_eq!(self.0.available_permits(), 0);
    }
}

struct Notified(Notify);

impl Case for Notified {
    fn attempt(&self) {
        self.0.notified();
    }

    fn provide(&self) {
        // Two notifications that nobody takes are one, so the other must have been taken.
        self.0.notify_one();
    }

    fn settle(&self, _: bool) {
        assert!(!self.0.notified_timeout(Duration::ZERO), "a notification was doubled");
    }
}

struct Group {
    /// The contender's handle, one that counts as work, and that of another who waits from when it is provided.
    handles: [std::sync::Mutex<Option<WaitGroup>>; 3],
    other: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Group {
    fn new() -> Group {
        let group = WaitGroup::new();
        let handles = std::array::from_fn(|_| std::sync::Mutex::new(Some(group.clone())));
        Group { handles, other: std::sync::Mutex::default() }
    }

    fn take(&self, which: usize) -> Option<WaitGroup> {
        self.handles[which].lock().unwrap().take()
    }
}

impl Case for Group {
    fn attempt(&self) {
        self.take(0).unwrap().wait();
    }

    fn provide(&self) {
        drop(self.take(1));
        let other = self.take(2).unwrap();
        *self.other.lock().unwrap() = Some(std::thread::spawn(|| other.wait()));
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, _: bool) {
        drop(self.take(0));
        // Who gave up is not waited for.
        self.other.lock().unwrap().take().unwrap().join().unwrap();
    }
}

struct TokenWait(CancelToken);

impl Case for TokenWait {
    fn attempt(&self) {
        assert_eq!(self.0.wait().to_string(), "provided");
    }

    fn provide(&self) {
        self.0.cancel_with("provided");
    }

    fn settle(&self, _: bool) {
        assert!(self.0.is_cancelled());
    }
}

/// What was begun has ended, and has returned its value.
#[derive(Default)]
struct Unblock {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Case for Unblock {
    fn attempt(&self) {
        unblock(|| {
            self.begun.fetch_add(1, SeqCst);
            std::thread::yield_now();
            self.ended.fetch_add(1, SeqCst);
        });
    }

    fn provide(&self) {}

    fn settle(&self, won: bool) {
        let counts = (self.begun.load(SeqCst), self.ended.load(SeqCst));
        assert_eq!(counts, [(1, 1), (2, 2)][usize::from(won)]);
    }
}

struct Accept {
    listener: TcpListener,
    clients: std::sync::Mutex<Vec<std::net::TcpStream>>,
}

impl Accept {
    fn new() -> Accept {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Accept { listener, clients: std::sync::Mutex::default() }
    }
}

impl Case for Accept {
    fn attempt(&self) {
        self.listener.accept().unwrap();
    }

    fn provide(&self) {
        let client = std::net::TcpStream::connect(self.listener.local_addr().unwrap());
        self.clients.lock().unwrap().push(client.unwrap());
    }

    fn settle(&self, _: bool) {
        self.listener.set_nonblocking(true).unwrap();
        assert!(self.listener.accept().is_err(), "a connection is left");
    }
}

struct Connect {
    listener: std::net::TcpListener,
    mine: std::sync::Mutex<Option<TcpStream>>,
}

impl Connect {
    fn new() -> Connect {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Connect { listener, mine: std::sync::Mutex::default() }
    }
}

impl Case for Connect {
    fn attempt(&self) {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        *self.mine.lock().unwrap() = Some(stream);
    }

    fn provide(&self) {}

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, won: bool) {
        let mine = self.mine.lock().unwrap().take();
        assert_eq!(mine.is_some(), won);
        if let Some(mut mine) = mine {
            let (mut peer, address) = self.listener.accept().unwrap();
            assert_eq!(mine.local_addr().unwrap(), address);
            mine.write_all(b"x").unwrap();
            peer.read_exact(&mut [0]).unwrap();
        }
        // One that gave up has closed its end, if the system had made the connection.
        self.listener.set_nonblocking(true).unwrap();
        if let Ok((mut peer, _)) = self.listener.accept() {
            assert!(!won);
            peer.set_nonblocking(false).unwrap();
            assert!(matches!(peer.read(&mut [0]), Ok(0) | Err(_)));
        }
    }
}

fn tcp_pair() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, peer)
}

/// Each reads one byte of a connection; a peek leaves it.
struct ReadByte {
    stream: TcpStream,
    peer: std::net::TcpStream,
    peeks: bool,
}

impl ReadByte {
    fn new(peeks: bool) -> ReadByte {
        let (stream, peer) = tcp_pair();
        ReadByte { stream, peer, peeks }
    }
}

impl Case for ReadByte {
    fn attempt(&self) {
        let mut byte = [0];
        let bytes = match self.peeks {
            true => self.stream.peek(&mut byte),
            false => (&self.stream).read(&mut byte),
        };
        assert_eq!((bytes.unwrap(), byte), (1, *b"x"));
    }

    fn provide(&self) {
        (&self.peer).write_all(b"x").unwrap();
    }

    fn settle(&self, won: bool) {
        self.peer.shutdown(std::net::Shutdown::Write).unwrap();
        let mut left = Vec::new();
        (&self.stream).read_to_end(&mut left).unwrap();
        let provided = 1 + usize::from(won);
        assert_eq!(left.len(), if self.peeks { provided } else { 0 });
    }
}

/// A connection whose buffers are full; providing empties them.
struct WriteBytes {
    stream: TcpStream,
    peer: std::net::TcpStream,
    sent: AtomicUsize,
    received: AtomicUsize,
}

impl WriteBytes {
    fn new() -> WriteBytes {
        let (stream, peer) = tcp_pair();
        socket2::SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
        let case = WriteBytes { stream, peer, sent: 0.into(), received: 0.into() };
        case.stream.set_nonblocking(true).unwrap();
        while let Ok(bytes) = (&case.stream).write(&[0; 65536]) {
            case.sent.fetch_add(bytes, SeqCst);
        }
        case.stream.set_nonblocking(false).unwrap();
        case
    }
}

impl Case for WriteBytes {
    fn attempt(&self) {
        let bytes = (&self.stream).write(&[0; 100_000]).unwrap();
        assert!(bytes > 0);
        self.sent.fetch_add(bytes, SeqCst);
    }

    fn provide(&self) {
        let bytes = (&self.peer).read(&mut vec![0; 8 << 20]).unwrap();
        self.received.fetch_add(bytes, SeqCst);
    }

    fn is_shared(&self) -> bool {
        false // Room is not counted in writes.
    }

    fn settle(&self, _: bool) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let left = std::io::copy(&mut &self.peer, &mut std::io::sink()).unwrap() as usize;
        let received = self.received.load(SeqCst) + left;
        assert_eq!(received, self.sent.load(SeqCst), "bytes were sent that nobody was told of");
    }
}

struct RecvTimeout((channel::Sender<u32>, channel::Receiver<u32>));

impl Case for RecvTimeout {
    fn attempt(&self) {
        assert_eq!(self.0.1.recv_timeout(LATE), Ok(7));
    }

    fn provide(&self) {
        self.0.0.send(7).unwrap();
    }

    fn settle(&self, _: bool) {
        assert!(self.0.1.try_recv().is_err());
    }
}

struct AcquireDeadline(Semaphore);

impl Case for AcquireDeadline {
    fn attempt(&self) {
        self.0.acquire_deadline(Deadline::after(LATE)).unwrap().forget();
    }

    fn provide(&self) {
        self.0.add_permits(1);
    }

    fn settle(&self, _: bool) {
        assert_eq!(self.0.available_permits(), 0);
    }
}

/// Nothing ends it; only where it waits afterwards.
struct Shielded((channel::Sender<u32>, channel::Receiver<u32>));

impl Case for Shielded {
    fn attempt(&self) {
        uncancellable(|| {
            // A time limit inside is of no consequence here.
            assert_eq!(timeout(LATE, || self.0.1.recv()), Ok(Ok(7)));
            self.0.0.send(8).unwrap();
            assert!(self.0.1.recv().is_ok());
        });
    }

    fn provide(&self) {
        self.0.0.send(7).unwrap();
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn settle(&self, won: bool) {
        // A fiber may have been cancelled before it started.
        assert_eq!(self.0.1.try_recv().is_ok(), !won);
    }
}
