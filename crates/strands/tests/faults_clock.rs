//! Clocks that jump, or stand still.
//!
//! What must hold: the wall clock does not matter. Whatever the monotonic clock does, a timer fires
//! once, not before its time, and in the order of deadlines; and what does not wait for time goes on.
//!
//! The clock that std reads is shadowed in this program: its `clock_gettime` is the one below. The
//! kernel's own clock is left alone, so only what the runtime makes of the time is tested here.
#![cfg(all(target_os = "linux", not(miri)))]

mod faults_support;
mod thread_common;

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use faults_support::{NO_SECCOMP, alone, calls, forbid, skip};
use strands::net::{TcpListener, TcpStream};
use strands::sync::{Condvar, Mutex, mpsc};
use strands::{Runtime, thread};

const SECOND_NS: i64 = 1_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);

/// How often the wall clock was read.
static WALL_READ: AtomicU64 = AtomicU64::new(0);
/// What the monotonic clock is ahead of the kernel's, in ns.
static AHEAD_NS: AtomicI64 = AtomicI64::new(0);
/// The time at which the monotonic clock stands still, in ns; 0 if it goes.
static STILL_AT_NS: AtomicI64 = AtomicI64::new(0);

/// libc's, for this program.
///
/// # Safety
///
/// `time` has room for one.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> i32 {
    // SAFETY: the caller's promise.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    match clock {
        libc::CLOCK_REALTIME => drop(WALL_READ.fetch_add(1, SeqCst)),
        libc::CLOCK_MONOTONIC => {
            // SAFETY: the caller's promise; the kernel has filled it in.
            let time = unsafe { &mut *time };
            let real_ns = time.tv_sec * SECOND_NS + time.tv_nsec;
            let ns = match STILL_AT_NS.load(SeqCst) {
                0 => real_ns + AHEAD_NS.load(SeqCst),
                still => still,
            };
            (time.tv_sec, time.tv_nsec) = (ns / SECOND_NS, ns % SECOND_NS);
        }
        _ => {}
    }
    done as i32
}

fn monotonic_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for one.
    unsafe { clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec * SECOND_NS + time.tv_nsec
}

fn stop_clock() {
    STILL_AT_NS.store(monotonic_ns(), SeqCst);
}

/// The clock goes on, from where it stood.
fn start_clock() {
    let still = STILL_AT_NS.swap(0, SeqCst);
    AHEAD_NS.store(0, SeqCst);
    AHEAD_NS.store(still - monotonic_ns(), SeqCst);
}

fn jump(by: Duration) {
    AHEAD_NS.fetch_add(by.as_nanos() as i64, SeqCst);
}

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).build().unwrap()
}

/// Every wait that has a time limit, short ones.
fn timed_waits() {
    let time = Duration::from_millis(2);
    thread::sleep(time);
    thread::park_timeout(time);
    let (sender, receiver) = mpsc::channel::<()>();
    assert!(receiver.recv_timeout(time).is_err());
    drop(sender);
    let mutex = Mutex::new(());
    let waited = Condvar::new().wait_timeout(mutex.lock().unwrap(), time).unwrap();
    assert!(waited.1.timed_out());
    drop(waited);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut stream = TcpStream::connect_timeout(&addr, HOUR).unwrap();
    stream.set_read_timeout(Some(time)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    strands::unblock(|| std::thread::sleep(time));
}

#[test]
fn no_wait_goes_by_the_wall_clock() {
    const TEST: &str = "no_wait_goes_by_the_wall_clock";
    alone(TEST, || {
        let (wall, bit) = (libc::CLOCK_REALTIME, libc::FUTEX_CLOCK_REALTIME);
        let rules = [
            // Without a time limit (argument 3), as pthread_join does, it does not matter.
            calls(libc::SYS_futex).with(3, 0).pass(),
            calls(libc::SYS_futex).with_bits(1, bit as u32, bit as u32).kill(),
            calls(libc::SYS_clock_nanosleep).with(0, wall).kill(),
            calls(libc::SYS_timerfd_create).with(0, wall).kill(),
            calls(libc::SYS_timer_create).with(0, wall).kill(),
            calls(libc::SYS_clock_gettime).with(0, wall).answer(libc::EPERM),
        ];
        // The program's clock is the one above.
        let before = WALL_READ.load(SeqCst);
        let _ = std::time::SystemTime::now();
        assert_eq!(WALL_READ.load(SeqCst), before + 1);
        if forbid(&rules).is_err() {
            return skip(TEST, NO_SECCOMP);
        }
        let before = WALL_READ.load(SeqCst);
        let runtime = runtime(2);
        timed_waits();
        runtime.run(timed_waits);
        thread::spawn(timed_waits).join().unwrap();
        runtime.shutdown_timeout(HOUR).unwrap();
        assert_eq!(WALL_READ.load(SeqCst), before);
    });
}

/// Fibers that sleep so many hours, on one worker; they note their number when they wake.
struct Sleepers {
    fibers: Vec<thread::JoinHandle<()>>,
    woken: Arc<Mutex<Vec<u32>>>,
}

impl Sleepers {
    /// From a fiber. Those that were asked for first sleep longest.
    fn new(hours: u32) -> Sleepers {
        let woken: Arc<Mutex<Vec<u32>>> = Arc::default();
        let (asleep, all_asleep) = mpsc::channel();
        let sleeper = |number: u32| {
            let (woken, asleep) = (woken.clone(), asleep.clone());
            let here = thread::Builder::new().placement(thread::Placement::Here);
            here.spawn(move || {
                asleep.send(()).unwrap();
                thread::sleep(HOUR * number);
                woken.lock().unwrap().push(number);
            })
        };
        let fibers = (1..=hours).rev().map(|number| sleeper(number).unwrap()).collect();
        all_asleep.iter().take(hours as usize).count();
        // The last has said so before it sleeps, on our worker: it does when we let it run.
        strands::yield_now();
        Sleepers { fibers, woken }
    }

    fn woken(&self) -> Vec<u32> {
        self.woken.lock().unwrap().clone()
    }

    fn join(self) -> Vec<u32> {
        self.fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
        Arc::into_inner(self.woken).unwrap().into_inner().unwrap()
    }
}

/// Makes the workers look at the clock, often.
fn some_turns() {
    for _ in 0..300 {
        thread::spawn(|| {}).join().unwrap();
    }
}

#[test]
fn after_a_jump_timers_fire_once_and_in_order() {
    alone("after_a_jump_timers_fire_once_and_in_order", || {
        for workers in [1, 2] {
            runtime(workers).run(|| {
                let sleepers = Sleepers::new(50);
                some_turns();
                assert_eq!(sleepers.woken(), []);
                jump(HOUR * 20 + HOUR / 2);
                some_turns();
                assert_eq!(sleepers.woken(), (1..=20).collect::<Vec<_>>());
                jump(HOUR * 1_000);
                assert_eq!(sleepers.join(), (1..=50).collect::<Vec<_>>());
                timed_waits();
            });
        }
    });
}

#[test]
fn while_the_clock_stands_all_else_goes_on() {
    alone("while_the_clock_stands_all_else_goes_on", || {
        for workers in [1, 2] {
            let runtime = runtime(workers);
            runtime.run(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let sleepers = Sleepers::new(10);
                let short = thread::spawn(|| thread::sleep(Duration::from_millis(1)));
                stop_clock();
                some_turns();
                // A fiber that never waits, and another that waits for bytes from outside.
                let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let mut peer = std::net::TcpStream::from(listener.accept().unwrap().0);
                peer.set_nonblocking(false).unwrap();
                let reading = thread::spawn(move || (&stream).read_exact(&mut [0]).unwrap());
                let writing = std::thread::spawn(move || peer.write_all(b"x").unwrap());
                while !reading.is_finished() {
                    strands::yield_now();
                }
                strands::unblock(|| writing.join().unwrap());
                reading.join().unwrap();
                assert_eq!(sleepers.woken(), []);
                start_clock();
                short.join().unwrap();
                jump(HOUR * 10);
                assert_eq!(sleepers.join(), (1..=10).collect::<Vec<_>>());
            });
            runtime.shutdown_timeout(HOUR).unwrap();
        }
    });
}

/// Which it never should.
#[test]
fn a_clock_that_goes_back_delays_timers_and_no_more() {
    alone("a_clock_that_goes_back_delays_timers_and_no_more", || {
        for workers in [1, 2] {
            jump(HOUR * 100);
            let runtime = runtime(workers);
            runtime.run(|| {
                timed_waits(); // So that the worker has polled by the clock before.
                let sleepers = Sleepers::new(10);
                AHEAD_NS.fetch_sub((HOUR * 50).as_nanos() as i64, SeqCst);
                some_turns();
                assert_eq!(sleepers.woken(), []);
                jump(HOUR * 100);
                assert_eq!(sleepers.join(), (1..=10).collect::<Vec<_>>());
                timed_waits();
            });
            runtime.shutdown_timeout(HOUR).unwrap();
        }
    });
}
