//! Soundness: what is guaranteed, by what, and what is not.
//!
//! Nothing in this crate's interface is `unsafe`, and safe code that uses it cannot cause undefined
//! behaviour, with the exceptions that the second half of this page names. They come from *other*
//! code that takes a thread for a stack.
//!
//! # What is guaranteed, and by what
//!
//! **A fiber never changes its worker once it has started.** So whatever is on its stack stays on
//! one OS thread: values that are not `Send` may live across anything that waits, and the compiler
//! may assume, as it does, that the address of a thread-local does not change within a function.
//! [`spawn`](crate::spawn()) asks for `Send` because a fiber that has *not* started, which is only
//! its closure, goes to whichever worker is idle.
//!
//! **A stack is not freed before it has been unwound.** A fiber that shall end is unwound from
//! where it waits, so every destructor that somebody relies on runs. Where that cannot be done
//! (`panic = "abort"`, a `catch_unwind` that swallows the unwinding and waits again) the stack
//! stays, and so does the thread beneath it.
//!
//! **A scope ends after its children**, however its closure and its children end: by value,
//! by panic or by a cancel. This is why children may borrow, as with `std::thread::scope`, in a `try_scope` and in a
//! `map`. The same holds for what [`Runtime::run`](crate::Runtime::run) and [`unblock`](crate::unblock) are given.
//!
//! **A fiber's own values stay while somebody can refer to them.** They are destroyed after its frames,
//! on its own stack, and never move: see [`LocalKey`](crate::thread::LocalKey).
//!
//! **Buffers are borrowed for as long as the kernel may use them.** A read or write that is
//! cancelled or times out does not return before the kernel has let go of the buffer.
//!
//! **The ends of stacks are guarded.** A fiber that overflows its stack ends the process with a
//! message that says which fiber it was and how large its stack; it does not write to other memory.
//!
//! # What is not
//!
//! **A pointer to a stack, kept in a thread-local across something that waits.** The fibers of a
//! worker share its thread-locals. A crate that keeps a reference to a local variable in a
//! thread-local for the length of a call (`scoped-tls`, and what is built on it) trusts that
//! nothing else runs on the thread until that call returns. If the call waits, other fibers run,
//! see the pointer, and may nest their own in another order. With such a crate, safe code can read
//! memory that is gone. Do not wait inside such a call; run it in [`unblock`](crate::unblock) where
//! it might. This is so with all fibers that share a thread.
//!
//! **`std::thread_local!` is per worker.** Sound, but a value kept there is seen by whichever fiber of
//! the worker runs next: a cache or a counter is all right, a "current request" is not. A `RefCell`
//! there that is borrowed across something that waits panics when the next fiber borrows it.
//! [`strands::thread_local!`](crate::thread_local) is per fiber, and has neither fault.
//!
//! **`std::thread::panicking` is per OS thread.** While a fiber waits in the middle of its
//! unwinding (a destructor that sleeps, locks or joins), the other fibers of its worker see
//! `std::thread::panicking() == true`. A `std::sync::Mutex` may then be poisoned by a guard that is
//! dropped without a panic, or not be poisoned by one. Strands' own locks and
//! [`thread::panicking`](crate::thread::panicking) go by the fiber, whose stack tells whether it
//! unwinds. (On Windows with the MSVC tools they cannot: there they go by std, and a fiber gets no
//! cancel while another of its worker is suspended in its unwinding.)
//!
//! **A panic hook that waits.** std aborts the process when a panic begins on a thread that is in
//! its panic hook. If a hook suspends its fiber, a panic of another fiber of that worker is such a
//! one. Hooks must not wait.
//!
//! **A second panic while unwinding** (a destructor that panics) aborts the process, as everywhere
//! in Rust. It is the fiber's own unwinding that counts: a fiber that panics while *another* is
//! suspended in its unwinding unwinds as usual.
//!
//! **Waiting below a callback from C.** Unwinding cannot pass a Rust `extern "C"` function: the
//! process aborts, by Rust's rule. So a fiber that waits inside a callback (a comparison function
//! of `qsort`, say) gets no cancel there, but at its next wait after the callback has returned. A
//! shutdown waits for it, or names it. So a [`timeout`](crate::time::timeout) *inside* of the callback ends no wait
//! either: use what takes a limit of its own there, such as `recv_timeout`. On a plain thread, and with the MSVC tools of Windows,
//! it is not always seen: below a time limit or a token, such a wait has to be wrapped in
//! [`cancel::uncancellable`](crate::cancel::uncancellable).
//!
//! **A bare coroutine that outlives its thread's locals.** `strands_fiber::Coroutine`, the machine
//! layer's own type, may be suspended while it borrows a `thread_local!` (inside
//! `LocalKey::with`). If such a coroutine is forgotten, or kept in a thread-local of its own, and its
//! thread ends, the borrowed value is destroyed while the coroutine (or a thread that it lent the
//! value to in a scope) may still use it: safe code can then read memory that is gone. Fibers are not concerned: a
//! worker's thread does not end before its fibers have. Nor are the values of
//! [`strands::thread_local!`](crate::thread_local) in fibers: one that is lent out when its fiber ends is leaked.
//!
//! **A bare coroutine that outlives its fiber.** If it suspends inside a closure that `strands_sched` calls
//! with or for the running fiber (`with_current_task`, `wait_until`, `Locked::wait`), then that fiber
//! must end no sooner than the coroutine, and no other resume it. The types do not say so. Nothing
//! in *this* crate's interface calls back in such a place. A coroutine that suspends inside of a
//! [`timeout`](crate::time::timeout) or a [token](crate::cancel::CancelToken)'s `run`, and is left there, leaves the
//! limit in force: it may end the fiber, and that is all. One that is left inside of `uncancellable` leaves the fiber uncancellable.
//!
//! **`std::process::exit`, called by a fiber.** Where the system then destroys the thread-locals of
//! the calling thread (glibc, macOS and Windows do), it destroys what *other* fibers of that worker may have lent to
//! fibers or threads elsewhere, in a scope inside of `LocalKey::with`; those run on for a moment and
//! can read what is gone. A plain thread can do so to itself only. Let `main` end the process where
//! thread-locals are lent out.
//!
//! **A guard of `std::sync::Mutex` held across something that waits.** Sound, but it can hold up a
//! worker for ever: if another fiber of the worker locks the same mutex, it blocks the thread that
//! would have run the guard's owner. Use [`sync::Mutex`](crate::sync::Mutex), which suspends the
//! fiber instead.
//!
//! **Blocking calls.** What blocks the OS thread (a file on a slow disk, `std::net`, a foreign
//! library) holds up every fiber of the worker. Use net, or [`unblock`](crate::unblock) for the
//! rest.
//!
//! # Panics, at the edges
//!
//! - **A panic that ends a fiber** is its result:
//!   [`JoinHandle::join`](crate::thread::JoinHandle::join) returns the payload. If the handle was
//!   dropped, the payload is dropped where the fiber ends. The hook prints the *worker's* name, as
//!   std knows no fibers.
//! - **A panic that crosses [`scope`](crate::scope())** goes on after the children have ended.
//!   Children are not told: they run to their end.
//! - **A child's panic** that nobody took by joining makes the scope panic with `a scoped thread
//!   panicked`, after all have ended.
//! - **A destructor that waits while a fiber unwinds** suspends the fiber like any other wait. The
//!   worker runs others meanwhile, and no cancel is delivered to it.
//! - **A panic in the destructor of a fiber's value or payload**: if the handle was dropped first,
//!   the panic ends there, reported by the hook (in a scope it counts as the child's). If the value
//!   was joined, or the handle is dropped last, it is the panic of whoever drops it. During a join
//!   that unwinds, it aborts, as two panics at once do everywhere.
//! - **A panic in a closure given to [`unblock`](crate::unblock) or
//!   [`Runtime::run`](crate::Runtime::run)** goes on in the caller.
//! - **A panic in a hook** of a runtime is reported and goes no further.
//! - **A panic in the destructor of a thread-local**, when a worker's or a pool's thread ends, aborts
//!   the process, as with any thread. Such a destructor may wait, lock and spawn: it runs on a plain
//!   thread. So does a panic in the destructor of a fiber's own value
//!   ([`strands::thread_local!`](crate::thread_local)), which may wait too: it runs on the fiber.
//! - **A panic in a destructor while a fiber is unwound by a cancel** aborts, as amid the unwinding
//!   of a panic: of a message, say, in a channel that the fiber holds when its runtime is shut down.
//!
//! # The life of the process
//!
//! **Its end.** Fibers do not keep a process alive, as threads do not: when `main` returns, or
//! anybody calls `std::process::exit`, a fiber too, the process ends with that code. Nobody is
//! unwound and nobody is waited for. Who wants that joins the fibers, or drops their
//! [`Runtime`](crate::Runtime). With [`#[strands::main]`](crate::main) it is the end of the main
//! fiber that counts; its panic ends the process with code 101.
//!
//! **`panic = "abort"`.** A panic anywhere ends the process, with std's message. All else works but
//! cancellation, which unwinds. [Cancels, time limits and tokens](crate::cancel#where-panics-abort)
//! make I/O fail, and nothing else. A fiber that waits when its runtime is dropped or shut down stays as
//! it is. Its stack, what is on it and the OS thread beneath are leaked, its destructors do not run,
//! and nobody waits for it; who shuts down gets it named in
//! [`Unfinished`](crate::runtime::Unfinished). Fibers that run go on to their next wait; closures
//! that have not started are dropped.
//!
//! **`fork`.** A child that is forked (by `libc::fork`, a raw `clone` …) *before* the process has
//! started its first runtime is a process like any other: a server that binds, forks and then
//! starts its runtimes works. One that is forked *after* has no workers, and shares its descriptors
//! with the parent. It may `exec`, exit, and do whatever does not wait; a lock that is free is
//! taken, data that is there is read, [`unblock`](crate::unblock) does its work in place. What would have
//! to wait says so instead of hanging: I/O, [`thread::Builder::spawn`](crate::thread::Builder::spawn)
//! and [`runtime::Builder::build`](crate::runtime::Builder::build) with an error of kind
//! `Unsupported`, all else (a lock, a channel, `join`, `sleep`, `park`, `spawn`, the end of a scope) with a panic. With
//! a time limit of zero, or on a non-blocking handle, there is nothing to wait for: these time out
//! as anywhere. A
//! runtime of the parent's that is dropped there is left alone. Nothing that the child does to its
//! copies acts on the parent, and no fiber but the one that forked runs there: when that ends, the
//! process does, with code 0, or 101 if it panicked. `std::process::Command` is not concerned.
//! What is said of `fork` in other programs with threads holds besides: a lock of std's or of
//! a library may have been held by a thread that is not there.
//!
//! **Libraries that are unloaded.** A shared library that contains strands stays in memory once it
//! has started a runtime, though `dlclose` succeeds: its handler for stack overflows cannot be taken
//! back, as others may have chained to it, and its workers run. Loaded again, it is found as it
//! was. On Linux, Android, FreeBSD and Apple's systems; elsewhere, do not unload it.
//!
//! **Two versions in one program** have nothing in common but the process: each has its workers, its
//! thread-locals and its overflow handler, which passes on what is not its own. A fiber of the one
//! is a plain thread to the other: there it blocks its worker. Pass values by plain data and by
//! std's types.
