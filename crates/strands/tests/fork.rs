//! Raw `fork`: what the child may do, and that nothing in it hangs or acts on the parent.
//!
//! Without libtest, so that each case forks in a process where nothing else runs.

mod thread_common;

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::panic::{self, AssertUnwindSafe, resume_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use strands::debug::{dump, dump_on_sigquit, track_locks};
use strands::net::{TcpListener, TcpStream};
use strands::sync::{Condvar, Mutex, mpsc};
use strands::thread::{self, Builder};
use strands::{FiberGroup, Runtime, spawn, try_scope, unblock};
use thread_common::{child, child_case, errors, runtime, stress, text};

/// Forks; in the child a hang is made an end by a signal.
fn fork() -> libc::pid_t {
    // SAFETY: plain calls. What the child does after is what is tested.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork: {}", io::Error::last_os_error());
        if child == 0 {
            libc::alarm(120);
        }
        child
    }
}

/// How the child ended: its exit code, or the signal as a negative number.
fn outcome(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: our child, and a value of ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}

fn exit_at_once(code: i32) -> ! {
    // SAFETY: ends the process without running anything else.
    unsafe { libc::_exit(code) }
}

/// Runs `body` in a forked child, which must not panic.
#[track_caller]
fn in_child(body: impl FnOnce()) {
    let child = fork();
    if child == 0 {
        let good = panic::catch_unwind(AssertUnwindSafe(body)).is_ok();
        exit_at_once(if good { 0 } else { 1 });
    }
    assert_eq!(outcome(child), 0, "the child's checks");
}

/// A wait whose signature has no error says why it cannot end.
#[track_caller]
fn panics<T>(what: &str, wait: impl FnOnce() -> T) {
    let Err(payload) = panic::catch_unwind(AssertUnwindSafe(wait)) else {
        panic!("{what} came back");
    };
    let text = text(&*payload);
    assert!(text.contains("forked") && text.contains("exec"), "{what}: {text}");
}

#[track_caller]
fn errs<T>(what: &str, result: io::Result<T>) {
    let Err(error) = result else { panic!("{what} succeeded") };
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}");
    let text = error.to_string();
    assert!(text.contains("forked") && text.contains("exec"), "{what}: {text}");
}

fn pair() -> (TcpListener, SocketAddr, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let near = TcpStream::connect(addr).unwrap();
    let far = listener.accept().unwrap().0;
    (listener, addr, near, far)
}

/// Every kind of wait, in a child forked by the caller of this; `parents` runs in the parent.
fn every_wait(parents: Runtime) {
    let (listener, addr, mut near, _far) = pair();
    let (held, free) = (Arc::new(Mutex::new(0)), Mutex::new(0));
    let (holds, holding) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let its = held.clone();
    let holder = parents.spawn(move || {
        let _guard = its.lock().unwrap();
        holds.send(()).unwrap();
        let _ = released.recv();
    });
    holding.recv().unwrap();
    let changed = Condvar::new();
    let (sender, receiver) = mpsc::channel();
    let (bounded, _bounded_receiver) = mpsc::sync_channel(1);
    bounded.send(0).unwrap();
    // Taken in the child only.
    let (mut second, mut third, mut holder) = (Some(runtime(1)), Some(runtime(2)), Some(holder));
    let mut kept = Some(pair());
    let mut group = Some(parents.run(|| {
        let group = FiberGroup::new();
        group.spawn(thread::park);
        group
    }));
    in_child(|| {
        errs("accept", listener.accept());
        errs("read", near.read(&mut [0]));
        near.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        errs("read with a time limit", near.read(&mut [0]));
        errs("connect", TcpStream::connect(addr));
        errs("Builder::spawn", Builder::new().spawn(|| ()));
        errs("Runtime::new", Runtime::new());

        panics("spawn", || spawn(|| ()));
        panics("Runtime::spawn", || parents.spawn(|| ()));
        panics("Runtime::run", || parents.run(|| ()));
        panics("a scoped spawn", || thread::scope(|scope| drop(scope.spawn(|| ()))));
        panics("join", || holder.take().unwrap().join());
        panics("join_next", || group.as_ref().unwrap().join_next());
        drop(group.take()); // Its fibers are in the parent: it does not wait for them.
        panics("lock", || drop(held.lock()));
        let waits = Mutex::new(0);
        panics("Condvar::wait", || drop(changed.wait(waits.lock().unwrap())));
        assert!(waits.is_poisoned() && waits.try_lock().is_err(), "unlocked, and by a panic");
        panics("wait_timeout", || {
            let _ = changed.wait_timeout(free.lock().unwrap(), Duration::from_millis(1));
        });
        panics("recv", || receiver.recv());
        panics("recv_timeout", || receiver.recv_timeout(Duration::from_millis(1)));
        panics("send to a full channel", || bounded.send(1));
        panics("sleep", || thread::sleep(Duration::from_millis(1)));
        panics("park", thread::park);
        panics("park_timeout", || thread::park_timeout(Duration::from_millis(1)));

        // What would wait for no time has come to its end.
        thread::park_timeout(Duration::ZERO);
        thread::sleep(Duration::ZERO);
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(mpsc::RecvTimeoutError::Timeout));
        let unpoisoned = Mutex::new(0);
        let waited = changed.wait_timeout(unpoisoned.lock().unwrap(), Duration::ZERO).unwrap();
        assert!(waited.1.timed_out() && unpoisoned.try_lock().is_err(), "locked again");
        drop(waited);
        drop(unpoisoned.try_lock().unwrap());
        near.set_nonblocking(true).unwrap();
        assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        near.set_nonblocking(false).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut accepted = std::iter::from_fn(|| Some(listener.accept()));
        let refused = accepted.find_map(Result::err).unwrap(); // There may be that `connect`'s.
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);

        // What need not wait is done.
        assert_eq!(near.write(b"x").unwrap(), 1);
        assert!(held.try_lock().is_err());
        *free.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
        sender.send(5).unwrap();
        assert_eq!(receiver.recv(), Ok(5));
        for _ in 0..1_000 {
            thread::yield_now(); // More than the budget.
            drop(free.try_lock());
        }
        thread::current().unpark();
        thread::park();
        assert_eq!(thread::scope(|_| 6), 6);
        assert_eq!(unblock(|| 7), 7);
        release.send(()).unwrap();
        // A runtime of the parent's is not there to be waited for.
        second.take().unwrap().shutdown_timeout(Duration::MAX).unwrap();
        drop(third.take());
        drop(kept.take());
    });
    drop(release);
    holder.take().unwrap().join().unwrap();
    assert_eq!(second.take().unwrap().run(|| 8), 8, "in the parent all goes on");
}

fn from_a_plain_thread() {
    every_wait(runtime(2));
}

fn from_a_fiber() {
    for workers in [1, 2] {
        runtime(workers).run(|| every_wait(runtime(2)));
    }
    // Of the runtime itself.
    spawn(|| every_wait(runtime(1))).join().unwrap();
}

/// The child goes on as the fiber that forked, and as no other.
fn no_other_fiber_runs_in_the_child() {
    let (mut read_end, write_end) = io::pipe().unwrap();
    let write_end = Arc::new(write_end);
    runtime(1).run(|| {
        let others: Vec<_> = (0..10)
            .map(|i| {
                let its = write_end.clone();
                spawn(move || {
                    for _ in 0..i {
                        thread::yield_now();
                    }
                    (&*its).write_all(b"x").unwrap();
                })
            })
            .collect();
        thread::yield_now(); // Some have begun, and some have not.
        let child = fork();
        for _ in 0..100 {
            thread::yield_now();
        }
        if child == 0 {
            return; // To the worker, which is not there.
        }
        assert_eq!(outcome(child), 0);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
    drop(write_end);
    let mut written = Vec::new();
    read_end.read_to_end(&mut written).unwrap();
    assert_eq!(written, b"xxxxxxxxxx");
}

fn a_child_s_end_is_its_process_s() {
    let runtime = runtime(1);
    let status = |body: fn()| {
        let child = Arc::new(std::sync::Mutex::new(0));
        let its = child.clone();
        let fiber = runtime.spawn(move || {
            let forked = fork();
            if forked == 0 {
                return body();
            }
            *its.lock().unwrap() = forked;
        });
        fiber.join().unwrap();
        let child = *child.lock().unwrap();
        outcome(child)
    };
    assert_eq!(status(|| ()), 0);
    assert_eq!(status(|| panic!("in the child")), 101, "as where a main thread panics");
    assert_eq!(status(|| thread::sleep(Duration::from_secs(1))), 101);
    assert_eq!(status(|| std::process::exit(7)), 7);
    let exec = || {
        let error = Command::new("sh").args(["-c", "exit 9"]).exec();
        panic!("exec: {error}");
    };
    assert_eq!(status(exec), 9);
    // Forked on a thread of the pool.
    let child = runtime.run(|| unblock(fork));
    assert_eq!(outcome(child), 0);
    // Forked in a hook.
    let (children, forked) = std::sync::mpsc::channel();
    let hook = move || children.send(fork()).unwrap();
    drop(Runtime::builder().workers(1).on_start(hook).build().unwrap());
    assert_eq!(outcome(forked.recv().unwrap()), 0);
}

/// Echoes one byte on each of three connections, all in this process.
fn serve(listener: &TcpListener, addr: SocketAddr, runtime: &Runtime) {
    runtime.run(|| {
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut stream = listener.accept().unwrap().0;
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    stream.write_all(&byte).unwrap();
                });
                scope.spawn(|| {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    stream.write_all(b"y").unwrap();
                    let mut byte = [0];
                    // The parent may have accepted it, and echoes too.
                    stream.read_exact(&mut byte).unwrap();
                    assert_eq!(&byte, b"y");
                });
            }
        });
    });
}

/// A server that forks first and starts its runtimes then.
fn a_runtime_first_started_in_the_child_works() {
    let (listener, addr, mut near, mut far) = pair();
    // The plain thread waits, without any runtime.
    far.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let both = |this: &str| {
        serve(&listener, addr, &runtime(2));
        assert_eq!(spawn(move || 1).join().unwrap(), 1, "the default runtime of the {this}");
    };
    let child = fork();
    if child == 0 {
        let good = panic::catch_unwind(AssertUnwindSafe(|| {
            near.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            both("child");
            // And a child of the child.
            in_child(|| errs("spawn", Builder::new().spawn(|| ())));
        }));
        exit_at_once(if good.is_ok() { 0 } else { 1 });
    }
    // One after the other: each accepts as often as it connects.
    assert_eq!(outcome(child), 0, "the child's checks");
    both("parent");
    near.write_all(b"z").unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 1);
}

/// The children are in the parent: a scope cannot wait for them, and says so instead.
fn a_scope_that_has_children_ends_by_a_panic() {
    /// `scope` forks once, by what it is handed.
    fn fork_amid(what: &str, scope: impl FnOnce(&dyn Fn() -> bool)) {
        let child = Cell::new(-1);
        let is_child = || {
            child.set(fork());
            child.get() == 0
        };
        let ended = panic::catch_unwind(AssertUnwindSafe(|| scope(&is_child)));
        if child.get() == 0 {
            let told = || panics(what, || ended.unwrap_or_else(|payload| resume_unwind(payload)));
            let good = panic::catch_unwind(AssertUnwindSafe(told)).is_ok();
            exit_at_once(if good { 0 } else { 1 });
        }
        ended.unwrap();
        assert_eq!(outcome(child.get()), 0, "{what}");
    }
    let cases = || {
        fork_amid("the end of a scope", |is_child| {
            thread::scope(|scope| {
                let waits = scope.spawn(thread::park);
                is_child();
                waits.thread().unpark();
            });
        });
        fork_amid("the end of a scope whose closure panics", |is_child| {
            thread::scope(|scope| {
                let waits = scope.spawn(thread::park);
                if is_child() {
                    drop(waits.join());
                } else {
                    waits.thread().unpark();
                }
            });
        });
        fork_amid("the end of a scope that failed", |is_child| {
            let failed = try_scope(|scope| {
                scope.spawn(|| {
                    thread::park();
                    Ok(())
                });
                is_child();
                Err::<(), _>("failed")
            });
            assert_eq!(failed, Err("failed"));
        });
    };
    runtime(1).run(cases);
    cases();
}

/// Forks at times when others hold locks.
fn amid_contention() {
    let runtime = runtime(2);
    let (mutex, stop) = (Arc::new(Mutex::new(0)), Arc::new(AtomicBool::new(false)));
    let (sender, receiver) = mpsc::channel();
    let sender = Arc::new(sender);
    let busy: Vec<_> = (0..6)
        .map(|_| {
            let (mutex, stop, sender) = (mutex.clone(), stop.clone(), sender.clone());
            runtime.spawn(move || {
                while !stop.load(SeqCst) {
                    *mutex.lock().unwrap() += 1;
                    sender.send(()).unwrap();
                    thread::yield_now();
                }
            })
        })
        .collect();
    let draining = runtime.spawn(move || while receiver.recv().is_ok() {});
    panic::set_hook(Box::new(|_| ()));
    for _ in 0..50 * stress() {
        in_child(|| {
            let ends = |wait: &dyn Fn()| drop(panic::catch_unwind(AssertUnwindSafe(wait)));
            ends(&|| drop(mutex.lock()));
            ends(&|| sender.send(()).unwrap());
            ends(&|| drop(runtime.spawn(|| ())));
        });
    }
    drop(panic::take_hook());
    stop.store(true, SeqCst);
    busy.into_iter().for_each(|fiber| fiber.join().unwrap());
    drop(sender);
    draining.join().unwrap();
    drop(runtime);
}

/// What the child does with a handle that is registered with the parent's reactor stays with it.
fn a_registered_handle_is_the_child_s_own() {
    let runtime = runtime(1);
    let (_listener, _addr, mut near, far) = pair();
    let far = Arc::new(far);
    let its = far.clone();
    let (waits, waiting) = mpsc::channel();
    let reading = runtime.spawn(move || {
        waits.send(()).unwrap();
        (&*its).read(&mut [0; 4]).unwrap()
    });
    waiting.recv().unwrap();
    runtime.run(thread::yield_now);
    in_child(|| {
        far.close();
        assert!((&*far).write(b"x").is_err(), "closed for the child");
    });
    near.write_all(b"on").unwrap();
    assert_eq!(reading.join().unwrap(), 2, "the parent's registration is still there");
}

/// A fiber's values are destroyed where it ends: in the parent and in the child.
fn a_fiber_that_forks_destroys_its_values_in_both_processes() {
    const DROPPED: i32 = 5;
    struct Value(AtomicBool, mpsc::Sender<()>);
    impl Drop for Value {
        fn drop(&mut self) {
            if self.0.load(SeqCst) {
                exit_at_once(DROPPED);
            }
            self.1.send(()).unwrap();
        }
    }
    strands::thread_local!(static KEY: RefCell<Option<Value>> = const { RefCell::new(None) });
    let (sender, dropped) = mpsc::channel();
    let runtime = runtime(1);
    let forks = runtime.spawn(move || {
        KEY.set(Some(Value(AtomicBool::new(false), sender)));
        let child = fork();
        if child == 0 {
            KEY.with_borrow(|value| value.as_ref().unwrap().0.store(true, SeqCst));
            return;
        }
        assert_eq!(outcome(child), DROPPED);
    });
    forks.join().unwrap();
    assert_eq!(dropped.recv(), Ok(()));
}

fn a_dump_is_the_process_s_own() {
    dump_on_sigquit().unwrap();
    let parents = runtime(1);
    let waits = parents.spawn(thread::park);
    in_child(|| {
        let mutex = Mutex::new(());
        let _held = mutex.lock().unwrap();
        assert_eq!(dump().fibers(), 0);
        assert!(track_locks(false) && !track_locks(true));
    });
    let child = fork();
    if child == 0 {
        // SAFETY: to raise a signal does not harm memory.
        unsafe { libc::raise(libc::SIGQUIT) };
        exit_at_once(0);
    }
    assert_eq!(outcome(child), -libc::SIGQUIT, "the parent's dump is not for the child's signal");
    waits.thread().unpark();
    waits.join().unwrap();
}

const CASES: &[(&str, fn())] = &[
    ("from a plain thread", from_a_plain_thread),
    ("from a fiber", from_a_fiber),
    ("no other fiber runs in the child", no_other_fiber_runs_in_the_child),
    (
        "a fiber that forks destroys its values in both processes",
        a_fiber_that_forks_destroys_its_values_in_both_processes,
    ),
    ("a child's end is its process's", a_child_s_end_is_its_process_s),
    ("a runtime first started in the child works", a_runtime_first_started_in_the_child_works),
    ("a scope that has children ends by a panic", a_scope_that_has_children_ends_by_a_panic),
    ("amid contention", amid_contention),
    ("a registered handle is the child's own", a_registered_handle_is_the_child_s_own),
    ("a dump is the process's own", a_dump_is_the_process_s_own),
];

pub fn main() {
    if let Some(case) = child_case() {
        let (_, run) = CASES.iter().find(|(name, _)| *name == case).expect("a case");
        return run();
    }
    for (name, _) in CASES {
        let output = child("fork", name).output().unwrap();
        assert!(output.status.success(), "{name}: {}\n{}", output.status, errors(&output));
        println!("{name} ... ok");
    }
}
