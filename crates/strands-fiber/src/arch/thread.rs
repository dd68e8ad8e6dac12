//! One OS thread for each party: no assembly, for Miri and for ISAs without a file of their own.
//!
//! A [`Context`] is a baton. `switch` hands the baton of `load` over and waits for that of
//! `save`, so exactly one of the threads runs at any time and everything that one party wrote
//! happens before the next goes on. Thread-locals differ from party to party here, which is why
//! the layers above set theirs after each switch and keep no others.
//!
//! The `Stack` that a context is started on is not run on; it may still hold data.
//!
//! The thread of a party that has ended destroys its thread-locals while the next party runs. So a
//! value that is shared with other parties, and not `Send`, must not be left in one. With the ISAs'
//! files there is no such limit, as all parties share one set of thread-locals.

use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex};

use super::{Entry, Word};
use crate::float_control::FloatControl;
use crate::stack::Stack;

/// Where a suspended party goes on: the baton that its thread waits for.
#[derive(Debug)]
pub struct Context {
    baton: Arc<Baton>,
    /// Set until the first switch, which makes the thread.
    entry: Mutex<Option<Entry>>,
}

#[derive(Debug, Default)]
struct Baton {
    handed: Mutex<Option<Handed>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Handed(Word);

// SAFETY: a word is only carried here; whether what it stands for may cross is up to who switches,
// and both sides believe that they are one thread.
unsafe impl Send for Handed {}

impl Baton {
    fn hand(&self, arg: Word) {
        let before = self.handed.lock().unwrap().replace(Handed(arg));
        assert!(before.is_none(), "a context was switched to twice");
        self.changed.notify_one();
    }

    fn wait(&self) -> Word {
        let mut handed = self.handed.lock().unwrap();
        loop {
            match handed.take() {
                Some(Handed(arg)) => return arg,
                None => handed = self.changed.wait(handed).unwrap(),
            }
        }
    }
}

impl Context {
    /// A context that nobody has saved: fit only to be saved into.
    pub fn new() -> Context {
        Context { baton: Arc::default(), entry: Mutex::new(None) }
    }

    /// Makes the first switch to this context call `entry` on a thread of its own.
    ///
    /// # Safety
    ///
    /// As for the ISA backends, though `top` is not used here.
    pub unsafe fn start(&mut self, _top: NonNull<u8>, _stack: &Stack, entry: Entry) {
        *self = Context { baton: Arc::default(), entry: Mutex::new(Some(entry)) };
    }

    /// Null: the party's stack is its thread's.
    pub fn stack_pointer(&self) -> *const u8 {
        std::ptr::null()
    }

    /// Nothing to see: the party's stack is its thread's.
    ///
    /// # Safety
    ///
    /// None is needed here; as for the ISA backends.
    pub unsafe fn walk(&self, _visit: &mut dyn FnMut(usize) -> bool) {}

    /// Nothing to do: each thread has control words of its own.
    pub fn adopt_float_control(&mut self) {}
}

impl Default for Context {
    fn default() -> Context {
        Context::new()
    }
}

/// Lets the party of `load` go on with `arg`.
///
/// # Safety
///
/// `load` is valid until that party goes on; it may be gone by the time this returns.
unsafe fn proceed(load: *const Context, arg: Word) {
    // SAFETY: the party has not gone on yet. No reference to its context outlives the statement.
    let (entry, baton) = unsafe { ((*load).entry.lock().unwrap().take(), (*load).baton.clone()) };
    let Some(entry) = entry else {
        return baton.hand(arg);
    };
    let arg = Handed(arg);
    let run = move || {
        let Handed(arg) = { arg };
        // SAFETY: `start`'s caller promised that `entry` may be called once with the first
        // switch's argument.
        let exit = unsafe { entry(arg) };
        // SAFETY: an Exit names a saved context that is valid until it is switched to.
        unsafe { proceed(exit.next, exit.arg) };
    };
    std::thread::Builder::new()
        .name("strands-fiber".into())
        .spawn(run)
        .expect("the thread backend needs one OS thread for each coroutine");
}

/// Saves the running party in `save` and goes on in `load`, which receives `arg`.
///
/// # Safety
///
/// As for the ISA backends.
pub unsafe fn switch<F: FloatControl>(
    save: *mut Context,
    load: *const Context,
    arg: Word,
) -> (Word, *mut Context) {
    // The baton is held by an Arc of our own: once it is handed to us, the context may move.
    // SAFETY: the caller promises that `save` is valid.
    let baton = unsafe { (*save).baton.clone() };
    // SAFETY: the caller promises that `load` is valid until it is gone on from.
    unsafe { proceed(load, arg) };
    (baton.wait(), save)
}

/// Nothing to fetch.
pub fn prefetch(_address: *const u8) {}
