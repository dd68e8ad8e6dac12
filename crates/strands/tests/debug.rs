//! Dumps, and what is reported unasked.

mod thread_common;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Duration;

use serde_json::Value;
use strands::cancel::{CancelToken, is_cancelled, uncancellable};
use strands::debug::{Dump, dump};
use strands::net::{TcpListener, TcpStream};
use strands::sync::{
    Barrier, Condvar, Mutex, Notify, RwLock, Semaphore, broadcast, channel, mpsc, oneshot, watch,
};
use strands::thread::{self, Builder, Placement};
use strands::time::timeout;
use strands::{FiberGroup, Runtime, select, unblock};
use thread_common::{child, child_case, errors, runtime, stress, text};

/// The reasons for which a test may be skipped.
const SKIPS: [&str; 1] = ["stacks cannot be walked where a fiber is a thread"];

/// Whether stacks can be walked.
fn walks(test: &str) -> bool {
    if cfg!(strands_backend = "thread") {
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {}", SKIPS[0]);
    }
    !cfg!(strands_backend = "thread")
}

/// The fibers of the runtime whose threads' names begin with `runtime`, by name, as a tool sees them.
fn fibers(dump: &Dump, runtime: &str) -> HashMap<String, Value> {
    let json: Value = serde_json::from_str(&dump.to_json()).expect("a dump is JSON");
    assert_eq!((&json["format"], &json["version"]), (&"strands-dump".into(), &1.into()));
    let runtimes = json["runtimes"].as_array().unwrap();
    let runtime = runtimes.iter().find(|other| other["name"] == runtime).expect("it is there");
    let fibers = runtime["fibers"].as_array().unwrap().iter();
    fibers.filter_map(|fiber| Some((fiber["name"].as_str()?.to_string(), fiber.clone()))).collect()
}

/// Dumps until `is_so`, and lets others run in between.
fn dump_when(
    runtime: &str,
    is_so: impl Fn(&HashMap<String, Value>) -> bool,
) -> HashMap<String, Value> {
    loop {
        let fibers = fibers(&dump(), runtime);
        if is_so(&fibers) {
            return fibers;
        }
        thread::yield_now();
    }
}

fn is_parked(fibers: &HashMap<String, Value>, name: &str) -> bool {
    fibers.get(name).is_some_and(|fiber| fiber["state"] == "parked")
}

fn named(name: &str) -> Builder {
    Builder::new().name(name.into())
}

/// Whether a function whose name has `part` is among the frames of `fiber`.
fn stands_in(fiber: &Value, part: &str) -> bool {
    let frames = fiber["frames"].as_array().unwrap();
    let symbols = frames.iter().flat_map(|frame| frame["symbols"].as_array().unwrap());
    symbols.filter_map(|symbol| symbol["name"].as_str()).any(|name| name.contains(part))
}

/// Of no interest.
fn ended<T>(_result: T) {}

#[inline(never)]
fn waits_in_a_function_of_its_own(wait: impl FnOnce()) {
    wait();
    std::hint::black_box(()); // Not a tail call.
}

/// Runs `look` while fibers wait in every way, each named after the operation.
fn with_every_wait(
    name: &'static str,
    look: impl FnOnce(&HashMap<String, Value>) + Send,
    by_fiber: bool,
) {
    let runtime = Runtime::builder().workers(2).thread_name(name).build().unwrap();
    let mutex = Arc::new(Mutex::new(()));
    let rwlock = Arc::new(RwLock::new(()));
    let condvar = Arc::new((Mutex::new(()), Condvar::new()));
    let semaphore = Arc::new(Semaphore::new(0));
    let (sender, receiver) = mpsc::channel::<()>();
    let (full, _its_receiver) = mpsc::sync_channel::<()>(0);
    let (_its_sender, channel_receiver) = channel::bounded::<()>(1);
    let (release, released) = std_mpsc::channel::<()>();
    let (news, mut to_change) = watch::channel(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpListener::bind("127.0.0.1:0").unwrap(); // Which never accepts.
    let silent = TcpStream::connect(peer.local_addr().unwrap()).unwrap();
    let mut reads = silent.try_clone().unwrap();
    let token = CancelToken::new();
    let (barrier, notify) = (Arc::new(Barrier::new(2)), Arc::new(Notify::new()));
    let _held = (mutex.lock().unwrap(), rwlock.write().unwrap());
    let parked = runtime.spawn(thread::park);
    let joined = runtime.spawn(thread::park);
    type Wait = Box<dyn FnOnce() + Send>;
    let waits: Vec<(&str, Wait)> = vec![
        ("thread::park", Box::new(thread::park)),
        ("thread::sleep", Box::new(|| thread::sleep(Duration::from_secs(1_000_000)))),
        ("Mutex::lock", {
            let mutex = mutex.clone();
            Box::new(move || drop(mutex.lock()))
        }),
        ("RwLock::read", {
            let rwlock = rwlock.clone();
            Box::new(move || drop(rwlock.read()))
        }),
        ("RwLock::write", {
            let rwlock = rwlock.clone();
            Box::new(move || drop(rwlock.write()))
        }),
        ("Barrier::wait", Box::new(move || ended(barrier.wait()))),
        ("Notify::notified", Box::new(move || notify.notified())),
        ("watch::Receiver::changed", Box::new(move || ended(to_change.changed()))),
        ("CancelToken::wait", Box::new(move || ended(token.wait()))),
        ("TcpStream::read", Box::new(move || ended(reads.read(&mut [0])))),
        ("select", {
            let (mut joined, sleep) = (joined, Duration::from_secs(1_000_000));
            let (sender, receiver) = channel::bounded::<()>(1);
            Box::new(move || {
                let _sender = sender;
                select! {
                    result = join(joined) => ended(result),
                    message = recv(receiver) => ended(message),
                    default(sleep) => {}
                }
            })
        }),
        ("Condvar::wait", {
            let condvar = condvar.clone();
            Box::new(move || drop(condvar.1.wait(condvar.0.lock().unwrap())))
        }),
        ("Semaphore::acquire", {
            let semaphore = semaphore.clone();
            Box::new(move || drop(semaphore.acquire()))
        }),
        ("Receiver::recv", Box::new(move || ended(receiver.recv()))),
        ("channel::Sender::send", Box::new(move || ended(full.send(())))),
        ("channel::Receiver::recv", Box::new(move || ended(channel_receiver.recv()))),
        ("TcpListener::accept", Box::new(move || drop(listener.accept()))),
        ("join", Box::new(move || drop(parked.join()))),
        ("unblock", Box::new(move || unblock(move || ended(released.recv())))),
    ];
    let names: Vec<&str> = waits.iter().map(|(name, _)| *name).collect();
    runtime.run(|| {
        for (name, wait) in waits {
            named(name).spawn(move || waits_in_a_function_of_its_own(wait)).unwrap();
        }
    });
    let all_wait =
        |fibers: &HashMap<String, Value>| names.iter().all(|name| is_parked(fibers, name));
    if by_fiber {
        runtime.run(|| look(&dump_when(name, all_wait)));
    } else {
        look(&dump_when(name, all_wait));
    }
    drop((release, sender, news, silent, peer));
}

fn check_every_wait(fibers: &HashMap<String, Value>) {
    for (name, fiber) in fibers.iter().filter(|(_, fiber)| fiber["state"] == "parked") {
        assert_eq!(fiber["wait"]["operation"], **name);
        assert!(
            fiber["spawned_at"]["file"].as_str().unwrap().ends_with("tests/debug.rs"),
            "{fiber}"
        );
        assert!(fiber["worker"].as_u64().unwrap() < 2);
        assert!(fiber["wait"]["waited_ns"].as_u64().is_some());
    }
    assert!(fibers.len() >= 19);
    let wait = |name: &str| fibers[name]["wait"].clone();
    for name in ["TcpListener::accept", "TcpStream::read"] {
        assert!(wait(name)["descriptor"].as_u64().is_some(), "{}", wait(name));
    }
    assert_eq!(wait("unblock")["by_thread"], true);
    for name in ["thread::sleep", "select"] {
        assert!(wait(name)["timeout_ns"].as_u64().unwrap() > 1_000_000_000, "{}", wait(name));
    }
    let arms = wait("select")["arms"].clone();
    let operations = |arms: &Value| -> Vec<String> {
        let arms = arms.as_array().unwrap().iter();
        arms.map(|arm| arm["operation"].as_str().unwrap().into()).collect()
    };
    assert_eq!(operations(&arms)[..2], ["join", "channel::Receiver::recv"], "{arms}");
    assert_eq!(wait("Mutex::lock")["arms"], Value::Array(Vec::new()));
    assert_eq!(wait("Mutex::lock")["timeout_ns"], Value::Null);
}

#[test]
fn a_dump_says_what_is_held() {
    let runtime = Runtime::builder().workers(1).thread_name("holds").build().unwrap();
    let (mutex, rwlock) = (Arc::new(Mutex::new(())), Arc::new(RwLock::new(())));
    let (its_mutex, its_rwlock) = (mutex.clone(), rwlock.clone());
    let holder = runtime.spawn(move || {
        let hold = move || {
            let _held = (its_mutex.lock().unwrap(), its_rwlock.write().unwrap());
            thread::park();
        };
        named("holder").spawn(hold).unwrap().join().unwrap();
    });
    dump_when("holds", |fibers| is_parked(fibers, "holder"));
    let waiters = runtime.run(move || {
        [
            named("locks").spawn(move || drop(mutex.lock())).unwrap(),
            named("reads").spawn(move || drop(rwlock.read())).unwrap(),
        ]
    });
    let wait =
        |fibers: &HashMap<String, Value>| is_parked(fibers, "locks") && is_parked(fibers, "reads");
    let fibers = dump_when("holds", wait);
    let holds = fibers["holder"]["holds"].as_array().unwrap();
    assert_eq!(holds.len(), 2, "{holds:?}");
    for name in ["locks", "reads"] {
        let wait = &fibers[name]["wait"];
        assert_eq!(wait["held_by"], fibers["holder"]["id"]);
        assert!(holds.iter().any(|held| held["object"] == wait["object"]), "{holds:?}");
    }
    let text = dump().to_string();
    assert!(text.contains("holds the Mutex 0x") && text.contains("holds the RwLock 0x"), "{text}");
    drop(runtime); // Cancels them all.
    assert!(holder.join().is_err());
    assert!(waiters.map(|waiter| waiter.join().is_err()).contains(&true));
}

#[test]
fn after_a_shutdown_a_dump_has_nothing_of_the_runtime() {
    let runtime = Runtime::builder().workers(2).thread_name("over").build().unwrap();
    runtime.run(|| drop(named("waits").spawn(thread::park).unwrap()));
    dump_when("over", |fibers| is_parked(fibers, "waits"));
    drop(runtime);
    let text = dump().to_string();
    assert!(!text.contains("'over'"), "{text}");
}

#[test]
fn a_dump_says_of_every_wait_what_it_is_for() {
    with_every_wait("every-wait", check_every_wait, false);
    with_every_wait("every-wait-by-fiber", check_every_wait, true);
}

#[test]
fn a_dump_has_the_stacks_of_all_that_wait() {
    if !walks("a_dump_has_the_stacks_of_all_that_wait") {
        return;
    }
    let check = |fibers: &HashMap<String, Value>| {
        for fiber in fibers.values().filter(|fiber| fiber["state"] == "parked") {
            assert!(stands_in(fiber, "waits_in_a_function_of_its_own"), "{fiber:#}");
            assert_eq!(fiber["truncated"], false);
        }
    };
    with_every_wait("every-stack", check, false);
}

#[test]
fn who_asks_runs_and_what_is_ready_is_ready() {
    let runtime = Runtime::builder().workers(1).thread_name("asks").build().unwrap();
    let ask = || {
        let goes_on = Arc::new(AtomicBool::new(true));
        let has_begun = Arc::new(AtomicBool::new(false));
        let (its, begins) = (goes_on.clone(), has_begun.clone());
        let ready = move || {
            begins.store(true, SeqCst);
            while its.load(SeqCst) {
                thread::yield_now();
            }
        };
        let ready = named("ready").spawn(ready).unwrap();
        while !has_begun.load(SeqCst) {
            thread::yield_now();
        }
        let fibers = fibers(&dump(), "asks");
        goes_on.store(false, SeqCst);
        ready.join().unwrap();
        fibers
    };
    let fibers = runtime.run(|| named("asks").spawn(ask).unwrap().join().unwrap());
    assert_eq!(fibers["asks"]["state"], "running");
    assert_eq!(fibers["asks"]["wait"], Value::Null);
    assert_eq!(fibers["ready"]["state"], "ready");
}

#[test]
fn fibers_that_have_not_started_are_shown_or_counted() {
    let runtime = Runtime::builder().workers(1).thread_name("fresh").build().unwrap();
    let (begins, begun) = std_mpsc::channel();
    let (release, released) = std_mpsc::channel::<()>();
    runtime.spawn(move || {
        // To this worker's own queue, which can only be counted from outside.
        (0..2).for_each(|_| drop(strands::spawn(|| {})));
        begins.send(()).unwrap();
        let _ = released.recv(); // std's: the worker hangs.
    });
    begun.recv().unwrap();
    let others = Runtime::builder().workers(2).thread_name("fresh-2").build().unwrap();
    let json: Value = serde_json::from_str(&dump().to_json()).unwrap();
    let hung =
        json["runtimes"].as_array().unwrap().iter().find(|runtime| runtime["name"] == "fresh");
    let worker = &hung.unwrap()["workers"][0];
    assert_eq!((&worker["answered"], &worker["more_not_started"]), (&false.into(), &2.into()));
    drop(release);
    // Asked from within they are all there: pinned ones and those that may go anywhere, in order.
    let order = others.run(|| {
        let order = Arc::new(Mutex::new(Vec::new()));
        let handles: Vec<_> = (0..5)
            .map(|i| {
                let its = order.clone();
                let start = named(&format!("own {i}")).placement(Placement::Here);
                start.spawn(move || its.lock().unwrap().push(i)).unwrap()
            })
            .collect();
        dump();
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        Arc::into_inner(order).unwrap().into_inner().unwrap()
    });
    assert_eq!(order, [0, 1, 2, 3, 4]);
}

#[test]
fn a_worker_that_hangs_is_not_waited_for() {
    let runtime = Runtime::builder().workers(2).thread_name("hangs").build().unwrap();
    let (begins, begun) = std_mpsc::channel();
    let (release, released) = std_mpsc::channel::<()>();
    let start = |name: &str, worker| named(name).placement(Placement::Worker(worker));
    runtime.run(|| {
        start("beside", 0).spawn(thread::park).unwrap();
        start("well", 1).spawn(thread::park).unwrap();
        dump_when("hangs", |fibers| is_parked(fibers, "beside") && is_parked(fibers, "well"));
        start("hangs", 0)
            .spawn(move || {
                begins.send(()).unwrap();
                waits_in_a_function_of_its_own(|| ended(released.recv())); // std's.
            })
            .unwrap();
    });
    begun.recv().unwrap();
    let dump = dump();
    let shown = fibers(&dump, "hangs");
    let text = dump.to_string();
    drop(release);
    assert_eq!(shown["hangs"]["state"], "running");
    assert_eq!(shown["beside"]["state"], "parked", "that can be seen from outside");
    assert_eq!(shown["beside"]["frames"], Value::Array(Vec::new()));
    assert_eq!(shown["well"]["wait"]["operation"], "thread::park");
    assert!(text.contains("worker 0 does not answer"), "{text}");
    if cfg!(all(target_os = "linux", target_env = "gnu"))
        && walks("a_worker_that_hangs_is_not_waited_for")
    {
        assert!(stands_in(&shown["hangs"], "waits_in_a_function_of_its_own"), "{text}");
        assert!(!stands_in(&shown["hangs"], "handler"), "{text}");
    }
}

#[test]
fn many_fibers_are_dumped_in_slices() {
    let count = 10_000 * stress().min(10);
    let builder = Runtime::builder().workers(1).thread_name("many").stack_size(64 * 1024);
    let runtime = builder.build().unwrap();
    let started = Arc::new(AtomicUsize::new(0));
    runtime.run(|| {
        for _ in 0..count {
            let started = started.clone();
            strands::spawn(move || {
                started.fetch_add(1, SeqCst);
                thread::park();
            });
        }
        while started.load(SeqCst) < count {
            thread::yield_now();
        }
    });
    // Who asks while another is answered is answered later.
    let other = std::thread::spawn(dump);
    let dump = dump();
    assert!(other.join().unwrap().fibers() >= count);
    let _ = writeln!(
        std::io::stderr(),
        "{count} fibers, longest pause {:?}, at most {} in one",
        dump.longest_pause(),
        dump.most_at_once(),
    );
    assert!(dump.fibers() >= count);
    // What bounds the pauses; what they are is measured, see the module's page.
    assert!((1..=32).contains(&dump.most_at_once()));
    let text = dump.to_string();
    assert!(text.lines().count() > count);
}

#[test]
fn fibers_come_and_go_while_they_are_dumped() {
    let runtime = runtime(2);
    let (stop, dumps) = (AtomicBool::new(false), 200 * stress());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            runtime.run(|| {
                while !stop.load(SeqCst) {
                    let handles: Vec<_> =
                        (0..100).map(|_| strands::spawn(thread::yield_now)).collect();
                    handles.into_iter().for_each(|handle| handle.join().unwrap());
                }
            });
        });
        // From two threads, so that requests wait for each other.
        let ask = || (0..dumps).for_each(|_| drop(dump()));
        let other = scope.spawn(ask);
        ask();
        other.join().unwrap();
        stop.store(true, SeqCst);
    });
}

#[test]
fn a_runtime_may_end_while_it_is_dumped() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            while !stop.load(SeqCst) {
                dump();
            }
        });
        for _ in 0..20 * stress() {
            let runtime = runtime(2);
            runtime.run(|| (0..50).for_each(|_| drop(strands::spawn(thread::park))));
            drop(runtime);
        }
        stop.store(true, SeqCst);
        asks.join().unwrap();
    });
}

fn panic_text(f: impl FnOnce() + Send) -> String {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    text(&*result.expect_err("it panics")).to_string()
}

#[test]
fn who_would_wait_for_itself_panics() {
    let fiber_and_thread = |f: fn()| {
        let by_fiber = runtime(1).run(|| {
            let fiber = named("twice").spawn(move || panic_text(f)).unwrap();
            fiber.join().unwrap()
        });
        assert!(
            by_fiber.contains("fiber 'twice'") && by_fiber.contains("holds itself"),
            "{by_fiber}"
        );
        let by_thread = panic_text(f);
        assert!(by_thread.contains("thread") && by_thread.contains("holds itself"), "{by_thread}");
    };
    fiber_and_thread(|| {
        let mutex = Mutex::new(());
        let _guard = mutex.lock().unwrap();
        drop(mutex.lock());
    });
    fiber_and_thread(|| {
        let mutex = Mutex::new(());
        let _guard = mutex.try_lock().unwrap();
        drop(mutex.lock());
    });
    fiber_and_thread(|| {
        let lock = RwLock::new(());
        let _guard = lock.write().unwrap();
        drop(lock.read());
    });
    fiber_and_thread(|| {
        let lock = RwLock::new(());
        let _guard = lock.try_write().unwrap();
        drop(lock.write());
    });
}

#[test]
fn who_waits_for_itself_below_a_time_limit_waits_for_that() {
    let fiber_and_thread = |f: fn()| {
        runtime(1).run(f);
        f();
    };
    fiber_and_thread(|| {
        let (mutex, lock) = (Mutex::new(()), RwLock::new(()));
        let _guards = (mutex.lock().unwrap(), lock.write().unwrap());
        for limit in [Duration::ZERO, Duration::from_millis(1)] {
            timeout(limit, || drop(mutex.lock())).unwrap_err();
            timeout(limit, || drop(lock.read())).unwrap_err();
            timeout(limit, || drop(lock.write())).unwrap_err();
        }
        let token = CancelToken::new();
        let cancelled = token.run(|| {
            token.cancel();
            drop(mutex.lock());
        });
        cancelled.unwrap_err();
        // A limit that cannot end it does not count.
        let text = timeout(Duration::from_hours(1), || {
            uncancellable(|| panic_text(|| drop(mutex.lock())))
        });
        assert!(text.unwrap().contains("holds itself"));
    });
    // Who is to end anyway ends for that.
    runtime(1).run(|| {
        let fiber = strands::spawn(|| {
            let mutex = Mutex::new(());
            let _guard = mutex.lock().unwrap();
            while !is_cancelled() {
                uncancellable(thread::yield_now);
            }
            drop(mutex.lock());
        });
        fiber.cancel();
        assert!(fiber.join().unwrap_err().is::<strands::cancel::Cancelled>());
    });
}

/// Who took a lock may have ended while its guard lives on, with another fiber of its worker. Those who come after
/// are not taken for it, wherever their memory lies.
#[test]
fn who_comes_after_a_taker_that_has_ended_waits() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    runtime(1).run(|| {
        let handed_over = Rc::new(RefCell::new(None));
        let begun = Rc::new(Cell::new(0));
        // One closure for both, so that what is allocated for it has one size.
        let start = |hands_over| {
            let (handed_over, begun) = (handed_over.clone(), begun.clone());
            strands::thread::spawn_local(move || {
                begun.set(begun.get() + 1);
                let mut guard = MUTEX.lock().unwrap();
                *guard += 1;
                if hands_over {
                    *handed_over.borrow_mut() = Some(guard);
                }
            })
        };
        for taken in 0..100 {
            start(true).join().unwrap();
            let others = [0; 4].map(|_| start(false));
            while begun.get() < (taken + 1) * 5 {
                thread::yield_now(); // Now they wait.
            }
            assert_eq!(**handed_over.borrow_mut().as_mut().unwrap(), taken * 5 + 1);
            handed_over.take();
            others.into_iter().for_each(|other| other.join().unwrap());
        }
    });
}

/// Runs `case` of `test` in a child process, until it has said `enough` on standard error; all that it said.
fn said(test: &str, case: &str, enough: &str) -> String {
    let mut child = spawn_child(test, case);
    let mut errors = child.stderr.take().unwrap();
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    let is_enough = |all: &[u8]| String::from_utf8_lossy(all).contains(enough);
    while !is_enough(&all) {
        let count = errors.read(&mut part).unwrap();
        assert_ne!(count, 0, "it has ended: {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&part[..count]);
    }
    let _ = child.kill();
    let _ = child.wait();
    String::from_utf8_lossy(&all).into_owned()
}

fn spawn_child(test: &str, case: &str) -> std::process::Child {
    let mut command: Command = child(test, case);
    command.stderr(Stdio::piped()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Fibers that each lock one mutex, and once all have, the next one's.
fn philosophers(names: &[&'static str]) {
    let forks: Vec<_> = names.iter().map(|_| Arc::new(Mutex::new(()))).collect();
    let seated = Arc::new(strands::sync::Barrier::new(names.len()));
    let handles: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let (left, right) = (forks[i].clone(), forks[(i + 1) % names.len()].clone());
            let seated = seated.clone();
            let dine = move || {
                let _left = left.lock().unwrap();
                seated.wait();
                waits_in_a_function_of_its_own(|| drop(right.lock()));
            };
            named(name).spawn(dine).unwrap()
        })
        .collect();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
}

#[test]
fn a_deadlock_is_reported_by_name() {
    const TEST: &str = "a_deadlock_is_reported_by_name";
    match child_case().as_deref() {
        // What is reported is reported past those who have locked it.
        Some("two") => {
            let _held = std::io::stderr().lock();
            return runtime(2).run(|| philosophers(&["Ann", "Bob"]));
        }
        // The worker does not answer when it is looked at first, and nobody waits anew after that.
        Some("late") => {
            return runtime(1).run(|| {
                strands::spawn(|| philosophers(&["Ann", "Bob"]));
                (0..10_000).for_each(|_| thread::yield_now());
                std::thread::sleep(Duration::from_millis(1_500));
                thread::park();
            });
        }
        Some("five") => {
            return runtime(2).run(|| philosophers(&["Plato", "Kant", "Hume", "Marx", "Mill"]));
        }
        Some("join") => {
            return runtime(2).run(|| {
                let (give, take) = mpsc::channel::<thread::JoinHandle<()>>();
                let first =
                    named("first").spawn(move || take.recv().unwrap().join().unwrap()).unwrap();
                let second = named("second").spawn(move || first.join().unwrap()).unwrap();
                give.send(second).unwrap();
                thread::park();
            });
        }
        _ => {}
    }
    let stacks = walks(TEST);
    let two = said(TEST, "two", "for these\n");
    assert!(two.contains("deadlock: 2 fibers wait for each other"), "{two}");
    for (name, other) in [("Ann", "Bob"), ("Bob", "Ann")] {
        let line = two.lines().find(|line| line.starts_with(&format!("fiber '{name}'")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {two}"));
        assert!(line.contains("waits in Mutex::lock 0x"), "{line}");
        assert!(line.contains(&format!("which fiber '{other}'")), "{line}");
        assert!(line.contains("debug.rs:"), "{line}");
    }
    assert_eq!(two.matches("holds the Mutex 0x").count(), 2, "{two}");
    assert!(!stacks || two.matches("waits_in_a_function_of_its_own").count() >= 2, "{two}");
    assert!(two.contains("more wait for these"), "who joins them: {two}");

    let late = said(TEST, "late", "for these\n");
    assert!(late.contains("deadlock: 2 fibers wait for each other"), "{late}");

    let five = said(TEST, "five", "for these\n");
    assert!(five.contains("deadlock: 5 fibers"), "{five}");
    for name in ["Plato", "Kant", "Hume", "Marx", "Mill"] {
        assert!(five.contains(&format!("\nfiber '{name}' (id")), "{five}");
    }

    let join = said(TEST, "join", "spawned at");
    assert!(join.contains("deadlock: 2 fibers wait for each other"), "{join}");
    assert!(join.contains("waits to join fiber '"), "{join}");
}

#[test]
fn a_standstill_is_reported_by_name() {
    const TEST: &str = "a_standstill_is_reported_by_name";
    match child_case().as_deref() {
        // Who writes what it reads, which nobody notes.
        Some("rwlock") => {
            return runtime(2).run(|| {
                let reads_and_writes = || {
                    let lock = RwLock::new(());
                    let _reads = lock.read().unwrap();
                    waits_in_a_function_of_its_own(|| drop(lock.write()));
                };
                named("writer").spawn(reads_and_writes).unwrap().join().unwrap();
            });
        }
        // Each waits for a message of the other. No fiber is joined, no thread waits.
        Some("channels") => {
            let runtime = runtime(2);
            let (first, of_first) = mpsc::channel::<()>();
            let (second, of_second) = mpsc::channel::<()>();
            drop(runtime.run(move || {
                named("left").spawn(move || {
                    waits_in_a_function_of_its_own(|| ended(of_first.recv()));
                    ended(second.send(()));
                })
            }));
            drop(runtime.run(move || {
                named("right").spawn(move || {
                    waits_in_a_function_of_its_own(|| ended(of_second.recv()));
                    ended(first.send(()));
                })
            }));
            std::thread::park();
            return;
        }
        _ => {}
    }
    let rwlock = said(TEST, "rwlock", "help:");
    assert!(rwlock.contains("deadlock: all 2 fibers of runtime"), "{rwlock}");
    assert!(rwlock.contains("fiber 'writer' (id"), "{rwlock}");
    assert!(rwlock.contains("waits in RwLock::write 0x"), "{rwlock}");
    assert!(rwlock.contains("waits to join fiber 'writer'"), "{rwlock}");
    let channels = said(TEST, "channels", "help:");
    assert!(channels.contains("deadlock: all 2 fibers of runtime"), "{channels}");
    for name in ["left", "right"] {
        assert!(channels.contains(&format!("\nfiber '{name}' (id")), "{channels}");
    }
    assert!(
        channels.contains("waits in channel::Receiver::recv")
            || channels.contains("waits in Receiver::recv"),
        "{channels}"
    );
    if walks(TEST) {
        assert!(channels.matches("waits_in_a_function_of_its_own").count() >= 2, "{channels}");
    }
}

#[test]
fn no_standstill_is_reported_where_something_is_armed() {
    const TEST: &str = "no_standstill_is_reported_where_something_is_armed";
    if child_case().is_none() {
        let output = child(TEST, "armed").output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        assert!(!errors(&output).contains("deadlock"), "{}", errors(&output));
        return;
    }
    static KEPT: std::sync::Mutex<Vec<Runtime>> = std::sync::Mutex::new(Vec::new());
    type Wait = Box<dyn FnOnce() + Send>;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to_select = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_sender, receiver) = channel::bounded::<()>(1);
    let waits: [Wait; 5] = [
        Box::new(move || drop(listener.accept())),
        Box::new(|| thread::sleep(Duration::from_secs(1_000_000))),
        Box::new(|| unblock(std::thread::park)),
        Box::new(move || {
            select! {
                message = recv(receiver) => ended(message),
                connection = readable(to_select) => ended(connection),
            }
        }),
        Box::new(move || {
            let minute = Duration::from_secs(60);
            let _ = strands::time::timeout(minute, thread::park);
        }),
    ];
    for wait in waits {
        let runtime = runtime(1);
        runtime.run(move || {
            drop(strands::spawn(wait));
            drop(strands::spawn(thread::park));
        });
        // Never shut down, as one of them waits for a thread that does not end.
        KEPT.lock().unwrap().push(runtime);
    }
    let silent = Runtime::builder().workers(1).deadlock_reports(false).build().unwrap();
    silent.run(|| drop(strands::spawn(thread::park)));
    // For longer than it takes to be reported.
    std::thread::sleep(Duration::from_millis(1_700));
    std::process::exit(0);
}

#[test]
fn a_fiber_that_drops_its_runtime_panics() {
    let runtime = runtime(1);
    let (give, take) = std_mpsc::channel::<Runtime>();
    let drops = runtime.spawn(move || {
        let runtime = unblock(move || take.recv().unwrap());
        panic_text(move || drop(runtime))
    });
    let other = runtime.spawn(thread::park);
    give.send(runtime).unwrap();
    let text = drops.join().unwrap();
    assert!(text.contains("a fiber has dropped the runtime that it is of"), "{text}");
    assert!(other.join().unwrap_err().is::<strands::cancel::Cancelled>());
}

#[test]
fn no_deadlock_is_reported_where_somebody_may_help() {
    const TEST: &str = "no_deadlock_is_reported_where_somebody_may_help";
    if child_case().is_none() {
        let mut child = child(TEST, "none");
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        assert!(!errors(&output).contains("deadlock"), "{}", errors(&output));
        return;
    }
    // Each waits for the other, but one by a channel, which a plain thread feeds in the end.
    let mutex = Arc::new(Mutex::new(()));
    let (sender, receiver) = mpsc::channel();
    let (runtime, its) = (runtime(2), mutex.clone());
    let holder = runtime.spawn(move || {
        let _guard = its.lock().unwrap();
        receiver.recv().unwrap();
    });
    let waiter = runtime.spawn(move || drop(mutex.lock()));
    // Longer than the watch waits before it looks.
    std::thread::sleep(Duration::from_millis(300));
    sender.send(()).unwrap();
    holder.join().unwrap();
    waiter.join().unwrap();
    // Each waits for the other, below a time limit, which ends that later than the watch looks.
    let mutexes = Arc::new([Mutex::new(()), Mutex::new(())]);
    let both = Arc::new(Barrier::new(2));
    let waits = [(0, 1), (1, 0)].map(|(own, other)| {
        let (mutexes, both) = (mutexes.clone(), both.clone());
        runtime.spawn(move || {
            let _guard = mutexes[own].lock().unwrap();
            both.wait();
            timeout(Duration::from_millis(300), || drop(mutexes[other].lock())).is_err()
        })
    });
    assert!(waits.map(|it| it.join().unwrap()).contains(&true));
    // Contended, and never stuck.
    let counter = Arc::new(Mutex::new(0));
    runtime.run(|| {
        let add = |counter: Arc<Mutex<u32>>| {
            for _ in 0..2_000 {
                let mut guard = counter.lock().unwrap();
                thread::yield_now();
                *guard += 1;
            }
        };
        let handles = [0; 8].map(|_| {
            let counter = counter.clone();
            strands::spawn(move || add(counter))
        });
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    });
    assert_eq!(*counter.lock().unwrap(), 16_000);
}

#[test]
fn a_stall_is_reported_by_name() {
    const TEST: &str = "a_stall_is_reported_by_name";
    if child_case().is_some() {
        let limit = Duration::from_millis(50);
        let runtime = Runtime::builder().workers(1).stall_limit(limit).build().unwrap();
        return runtime.run(|| {
            // Not by dumps: to look symbols up takes so long that it is a stall.
            let begun = Arc::new(AtomicUsize::new(0));
            for _ in 0..3 {
                let begun = begun.clone();
                strands::spawn(move || {
                    begun.fetch_add(1, SeqCst);
                    thread::park();
                });
            }
            while begun.load(SeqCst) < 3 {
                thread::yield_now();
            }
            let hog = || {
                waits_in_a_function_of_its_own(|| {
                    loop {
                        std::hint::spin_loop()
                    }
                })
            };
            drop(named("hog").spawn(hog).unwrap());
            drop(
                named("ready")
                    .spawn(|| {
                        loop {
                            thread::yield_now()
                        }
                    })
                    .unwrap(),
            );
            thread::park();
        });
    }
    let stall = said(TEST, "hog", "help:");
    assert!(stall.contains("fiber 'hog' (id"), "{stall}");
    assert!(stall.contains("holds up 5 fibers"), "{stall}");
    assert!(stall.contains("debug.rs:"), "{stall}");
    assert!(stall.contains("holds up fiber 'ready'"), "{stall}");
    if cfg!(all(target_os = "linux", target_env = "gnu")) && walks(TEST) {
        assert!(stall.contains("waits_in_a_function_of_its_own"), "{stall}");
    }
}

/// What a fiber should not do; it never returns.
#[cfg(unix)]
fn hangs(how: &str) {
    match how {
        "spins" => {}
        "sleeps" => loop {
            std::thread::sleep(Duration::from_secs(1_000));
        },
        "reads" => {
            let (mut reader, _writer) = std::io::pipe().unwrap();
            let _ = reader.read(&mut [0]);
        }
        "has locked stderr" => {
            let mut stderr = std::io::stderr().lock();
            stderr.write_all(b"hangs now\n").unwrap();
            loop {
                std::hint::spin_loop();
            }
        }
        _ => unreachable!(),
    }
    loop {
        std::hint::spin_loop();
    }
}

#[test]
#[cfg(unix)]
fn sigquit_prints_a_dump_though_all_workers_hang() {
    const TEST: &str = "sigquit_prints_a_dump_though_all_workers_hang";
    if let Some(how) = child_case() {
        strands::debug::dump_on_sigquit().unwrap();
        strands::debug::dump_on_sigquit().unwrap(); // Once is enough.
        let runtime = Runtime::builder().workers(1).build().unwrap();
        return runtime.run(|| {
            drop(named("patient").spawn(thread::park).unwrap());
            let is_ready = || {
                loop {
                    thread::yield_now();
                }
            };
            drop(named("ready").spawn(is_ready).unwrap());
            let all = |fibers: &HashMap<String, Value>| {
                is_parked(fibers, "patient") && fibers["ready"]["state"] == "ready"
            };
            dump_when("strands", all);
            if how != "has locked stderr" {
                eprintln!("hangs now");
            }
            waits_in_a_function_of_its_own(|| hangs(&how));
        });
    }
    for how in ["spins", "sleeps", "reads", "has locked stderr"] {
        let mut child = spawn_child(TEST, how);
        let mut errors = child.stderr.take().unwrap();
        let (mut all, mut part, mut asked) = (String::new(), [0; 4096], 0);
        let answers = |all: &str| {
            all.matches("fiber 'patient'").count().min(all.matches("fiber 'ready'").count())
        };
        while !(asked == 2 && answers(&all) == 2) {
            let count = errors.read(&mut part).unwrap();
            assert_ne!(count, 0, "it has ended: {all}");
            all.push_str(&String::from_utf8_lossy(&part[..count]));
            // Again when the first has been answered.
            if all.contains("hangs now") && asked == answers(&all) && asked < 2 {
                let pid = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process(pid, rustix::process::Signal::QUIT).unwrap();
                asked += 1;
            }
        }
        assert!(all.contains("waits in thread::park"), "{all}");
        let line = "does not let others run, and holds up 2 fibers, 1 of them ready";
        assert_eq!(all.matches(line).count(), 2, "{all}");
        assert!(all.contains("could not be read"), "{all}");
        if cfg!(all(target_os = "linux", target_env = "gnu")) && walks(TEST) {
            assert!(all.contains("waits_in_a_function_of_its_own"), "{how}: {all}");
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[test]
fn a_dump_says_of_each_operation_of_a_select_what_it_is_for() {
    let runtime = Runtime::builder().workers(1).thread_name("selects").build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (full, _receiver) = channel::rendezvous::<()>();
    let (_oneshot_sender, oneshot_receiver) = oneshot::channel::<()>();
    let (_watch_sender, watch_receiver) = watch::channel(());
    let (_broadcast_sender, broadcast_receiver) = broadcast::channel::<()>(1);
    let group = Arc::new(FiberGroup::new());
    let token = CancelToken::new();
    let parked = runtime.spawn(|| named("parked").spawn(thread::park).unwrap()).join().unwrap();
    runtime.run(|| group.spawn(thread::park));
    let selects: [Box<dyn FnOnce() + Send>; 4] = [
        Box::new(move || {
            let mut oneshot_receiver = oneshot_receiver;
            select! {
                sent = send(full, ()) => ended(sent),
                message = recv(oneshot_receiver) => ended(message),
            }
        }),
        Box::new(move || {
            let (mut watch_receiver, mut broadcast_receiver) = (watch_receiver, broadcast_receiver);
            select! {
                news = changed(watch_receiver) => ended(news),
                message = recv(broadcast_receiver) => ended(message),
            }
        }),
        {
            let group = group.clone();
            Box::new(move || {
                let (notify, semaphore) = (Notify::new(), Semaphore::new(0));
                select! {
                    () = notified(notify) => {}
                    permit = acquire(semaphore) => ended(permit),
                    next = join_next(group) => ended(next),
                }
            })
        },
        Box::new(move || {
            let mut parked = parked;
            select! {
                connection = readable(listener) => ended(connection),
                cancel = cancelled(token) => ended(cancel),
                result = join(parked) => ended(result),
                default(Duration::from_secs(1_000_000)) => {}
            }
        }),
    ];
    runtime.run(|| {
        for (select, name) in selects.into_iter().zip(["0", "1", "2", "3"]) {
            drop(named(name).spawn(select).unwrap());
        }
    });
    dump_when("selects", |fibers| ["0", "1", "2", "3"].iter().all(|name| is_parked(fibers, name)));
    let text = dump().to_string();
    for part in [
        " over channel::Sender::send 0x",
        ", oneshot::Receiver::recv 0x",
        " over watch::Receiver::changed 0x",
        ", broadcast::Receiver::recv 0x",
        " over Notify::notified 0x",
        ", Semaphore::acquire 0x",
        ", FiberGroup::join_next 0x",
        " over readable of descriptor ",
        ", CancelToken::wait 0x",
        ", join of fiber 'parked'",
        "; time is up in 9",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
