//! `thread_local!` and `LocalKey`.
#![allow(clippy::missing_const_for_thread_local, reason = "both forms are meant")]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};

#[path = "../thread_common/mod.rs"]
mod thread_common;

use self::thread_common::{child, child_case};
use super::text;

/// Whether a type has a trait that it need not have: `has!(T: Copy)`.
macro_rules! has {
    ($type:ty: $trait:path) => {{
        // The inherent constant, where its bound holds, comes before that of the trait.
        #[allow(dead_code)]
        struct Of<T>(std::marker::PhantomData<T>);
        #[allow(dead_code)]
        trait Otherwise {
            const HAS: bool = false;
        }
        impl<T> Otherwise for Of<T> {}
        #[allow(dead_code)]
        impl<T: $trait> Of<T> {
            const HAS: bool = true;
        }
        Of::<$type>::HAS
    }};
}
pub(super) use has;

const GONE: &str =
    "cannot access a Thread Local Storage value during or after destruction: AccessError";

mirrored! {
    fn each_has_its_own() {
        use imp::thread;
        imp::thread_local!(static COUNT: Cell<u32> = Cell::new(1));
        imp::thread_local!(static CONST: Cell<u32> = const { Cell::new(1) });
        for key in [&COUNT, &CONST] {
            assert_eq!(key.get(), 1);
            key.set(2);
            let others: Vec<_> = (10..20)
                .map(|i| {
                    thread::spawn(move || {
                        let first = key.replace(i);
                        thread::yield_now();
                        (first, key.get())
                    })
                })
                .collect();
            for (other, i) in others.into_iter().zip(10..) {
                assert_eq!(other.join().unwrap(), (1, i));
            }
            assert_eq!(key.get(), 2);
        }
    }

    fn is_written_as_std_writes_it() {
        imp::thread_local! {}
        imp::thread_local! {
            /// Documented, and with a path.
            #[allow(dead_code)]
            pub static A: std::cell::Cell<u8> = const { std::cell::Cell::new(1) };
            #[doc = "another"]
            pub(crate) static B: Cell<u8> = Cell::new({
                let one = 1;
                one + 1
            });
            pub(super) static C: [u8; 3] = [3; 3];
            static D: RefCell<Vec<&'static str>> = const {
                const FIRST: Vec<&str> = Vec::new();
                RefCell::new(FIRST)
            };
            #[cfg(any())]
            static E: Missing = Missing;
            #[cfg_attr(all(), allow(dead_code))]
            static F: u32 = const { 1 } + 1;
            static G: fn(u8) -> u8 = |x| x + 1
        }
        imp::thread_local!(static H: u8 = const { 8 });
        imp::thread_local!(
            static I: Option<Box<dyn Fn() -> u8>> = Some(Box::new(|| H.with(|h| *h + 1)));
        );
        imp::thread_local! { static J: &'static str = const { "j" }; static K: () = (); }
        imp::thread_local! {
            #[allow(non_upper_case_globals)]
            static lower: Cell<i8> = const { Cell::new(-1) };
        }
        assert_eq!((A.get(), B.get(), C.with(|c| c[2])), (1, 2, 3));
        assert!(D.with_borrow(|d| d.is_empty()));
        assert_eq!((F.with(|f| *f), G.with(|g| g(6)), lower.get()), (2, 7, -1));
        assert_eq!(I.with(|i| i.as_ref().map(|i| i())), Some(9));
        assert_eq!((J.with(|j| *j), K.with(|k| *k)), ("j", ()));
    }

    #[allow(dead_code, non_camel_case_types, clippy::unused_unit)]
    fn is_not_in_the_way_of_other_names() {
        type LocalKey = ();
        type FiberKey = ();
        type T = u8;
        type F = ();
        type usize = ();
        fn init() -> u8 {
            5
        }
        const INIT: u8 = 6;
        static FIBER: u8 = 7;
        imp::thread_local! {
            static KEY: LocalKey = const { () };
            static OTHER: FiberKey = ();
            static FROM_FN: T = init();
            static FROM_CONST: T = const { INIT };
            static FROM_STATIC: T = FIBER;
            static NOTHING: F = ();
            static USIZE: usize = ();
        }
        assert_eq!((KEY.with(|k| *k), OTHER.with(|o| *o)), ((), ()));
        assert_eq!(FROM_FN.with(|f| *f), 5);
        assert_eq!(FROM_CONST.with(|f| *f), 6);
        assert_eq!(FROM_STATIC.with(|f| *f), 7);
    }

    fn keys_are_values_that_may_be_named() {
        use imp::thread::{self, LocalKey};
        struct Holder {
            key: &'static LocalKey<Cell<u64>>,
        }
        const fn hold(key: &'static LocalKey<Cell<u64>>) -> Holder {
            Holder { key }
        }
        fn add<T: Copy + std::ops::Add<Output = T>>(key: &'static LocalKey<Cell<T>>, more: T) -> T {
            key.set(key.get() + more);
            key.get()
        }
        fn within_a_generic_function<T: Default>() -> (T, u64) {
            imp::thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) });
            (T::default(), add(&CALLS, 1))
        }
        imp::thread_local!(static KEY: Cell<u64> = const { Cell::new(5) });
        static HOLDER: Holder = hold(&KEY);
        assert_eq!(add(HOLDER.key, 1), 6);
        let key = thread::spawn(|| {
            HOLDER.key.set(100);
            HOLDER.key
        });
        assert_eq!(key.join().unwrap().get(), 6);
        within_a_generic_function::<u8>();
        within_a_generic_function::<String>();
        // One item, whatever the function is called with.
        assert_eq!(within_a_generic_function::<u8>().1, 3);
    }

    fn the_initializer_runs_at_first_use_and_once() {
        use imp::sync::atomic::{AtomicU32, Ordering::SeqCst};
        use imp::thread;
        static RUNS: AtomicU32 = AtomicU32::new(0);
        imp::thread_local!(static KEY: u32 = RUNS.fetch_add(1, SeqCst));
        RUNS.store(0, SeqCst);
        thread::spawn(|| ()).join().unwrap();
        assert_eq!(RUNS.load(SeqCst), 0);
        let first = KEY.with(|value| *value);
        assert_eq!((first, KEY.with(|value| *value), RUNS.load(SeqCst)), (0, 0, 1));
        let other = thread::spawn(|| (KEY.with(|value| *value), KEY.with(|value| *value)));
        assert_eq!((other.join().unwrap(), RUNS.load(SeqCst)), ((1, 1), 2));
    }

    fn an_initializer_that_panics_is_run_again() {
        imp::thread_local! {
            static TRIES: Cell<u32> = const { Cell::new(0) };
            static KEY: String = {
                TRIES.set(TRIES.get() + 1);
                assert!(TRIES.get() > 2, "try {}", TRIES.get());
                "made".into()
            };
        }
        assert_eq!(text(catch_unwind(|| KEY.with(String::len)).unwrap_err()), "try 1");
        let tried = catch_unwind(|| KEY.try_with(String::len)).map(drop);
        assert_eq!(text(tried.unwrap_err()), "try 2");
        assert_eq!((KEY.with(|made| made.clone()), TRIES.get()), ("made".into(), 3));
    }

    fn a_panic_of_the_caller_leaves_the_value() {
        imp::thread_local!(static KEY: RefCell<Vec<i32>> = RefCell::new(vec![1]));
        let caught = catch_unwind(|| {
            KEY.with_borrow_mut(|numbers| {
                numbers.push(2);
                panic!("within");
            })
        });
        let caught: Result<(), _> = caught;
        assert_eq!(text(caught.unwrap_err()), "within");
        assert_eq!(KEY.take(), [1, 2]);
    }

    fn cells() {
        imp::thread_local! {
            static KEY: Cell<i32> = Cell::new(1);
            static CONST: Cell<i32> = const { Cell::new(1) };
            static TEXT: Cell<String> = Cell::new("a".into());
            static NEVER: Cell<i32> = panic!("the initializer ran");
        }
        for key in [&KEY, &CONST] {
            assert_eq!((key.get(), key.replace(2), key.take(), key.get()), (1, 1, 2, 0));
            key.set(3);
            key.set(4);
            assert_eq!((key.with(Cell::get), key.try_with(Cell::get)), (4, Ok(4)));
        }
        assert_eq!(
            (TEXT.replace("b".into()), TEXT.take(), TEXT.take()),
            ("a".into(), "b".into(), String::new())
        );
        NEVER.set(7);
        assert_eq!(NEVER.get(), 7);
    }

    fn ref_cells() {
        imp::thread_local! {
            static KEY: RefCell<Vec<u8>> = RefCell::new(vec![1]);
            static CONST: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
            static NEVER: RefCell<u8> = panic!("the initializer ran");
        }
        CONST.set(vec![1]);
        for key in [&KEY, &CONST] {
            assert_eq!(key.with_borrow(Vec::len), 1);
            assert_eq!(
                key.with_borrow_mut(|bytes| {
                    bytes.push(2);
                    bytes.len()
                }),
                2
            );
            assert_eq!(
                (key.replace(vec![3]), key.take(), key.take()),
                (vec![1, 2], vec![3], vec![])
            );
            key.set(vec![4]);
            assert_eq!(key.with(|bytes| bytes.borrow().clone()), [4]);
            // Nested, of both kinds.
            key.with_borrow(|a| key.with_borrow(|b| assert_eq!(a, b)));
            let refused = |f: &dyn Fn()| text(catch_unwind(AssertUnwindSafe(f)).unwrap_err());
            key.with_borrow(|_| {
                assert!(refused(&|| key.with_borrow_mut(Vec::clear)).contains("already borrowed"));
                assert!(refused(&|| key.set(vec![5])).contains("already borrowed"));
                assert!(refused(&|| drop(key.take())).contains("already borrowed"));
                assert!(refused(&|| drop(key.replace(vec![]))).contains("already borrowed"));
            });
            key.with_borrow_mut(|_| {
                let text = refused(&|| key.with_borrow(|_| ()));
                assert!(text.contains("already mutably borrowed"), "{text}");
            });
            assert_eq!(key.take(), [4]);
        }
        NEVER.set(7);
        assert_eq!(NEVER.take(), 7);
    }

    fn a_constant_is_there_before_it_is_set() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Loud(&'static str);
        impl Drop for Loud {
            fn drop(&mut self) {
                SENDER.with_borrow(|sender| sender.as_ref().unwrap().send(self.0).unwrap());
            }
        }
        imp::thread_local! {
            static SENDER: RefCell<Option<mpsc::Sender<&'static str>>> = RefCell::new(None);
            static CONST: Cell<Loud> = const { Cell::new(Loud("first of const")) };
            static LAZY: Cell<Loud> = Cell::new(Loud("first of lazy"));
        }
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            SENDER.set(Some(sender));
            LAZY.set(Loud("second of lazy")); // Its initializer does not run:
            CONST.set(Loud("second of const")); // but this drops the constant.
        })
        .join()
        .unwrap();
        let seen: Vec<_> = receiver.iter().collect();
        assert_eq!(seen, ["first of const", "second of const", "second of lazy"]);
    }

    fn destructors_run_before_the_end_newest_first() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Note(&'static str, mpsc::Sender<&'static str>);
        impl Drop for Note {
            fn drop(&mut self) {
                self.1.send(self.0).unwrap();
            }
        }
        imp::thread_local! {
            static A: RefCell<Option<Note>> = const { RefCell::new(None) };
            static B: RefCell<Option<Note>> = RefCell::new(None);
            static C: RefCell<Option<Note>> = const { RefCell::new(None) };
            static D: RefCell<Option<Note>> = RefCell::new(None);
            static UNUSED: RefCell<Option<Note>> = panic!("nobody uses it");
        }
        let (sender, receiver) = mpsc::channel();
        for _ in 0..3 {
            let sender = sender.clone();
            thread::spawn(move || {
                // The first access counts, not the filling.
                B.with(|_| ());
                A.with(|_| ());
                D.with(|_| ());
                A.set(Some(Note("a", sender.clone())));
                B.set(Some(Note("b", sender.clone())));
                C.set(Some(Note("c", sender.clone())));
                D.set(Some(Note("d", sender)));
            })
            .join()
            .unwrap();
            assert_eq!(receiver.try_iter().collect::<String>(), "cdab");
        }
    }

    fn an_initializer_may_use_other_keys() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Note(&'static str);
        impl Drop for Note {
            fn drop(&mut self) {
                OUT.with_borrow(|out| out.as_ref().unwrap().send(self.0).unwrap());
            }
        }
        imp::thread_local! {
            static OUT: RefCell<Option<mpsc::Sender<&'static str>>> = const { RefCell::new(None) };
            static INNER: Note = Note("inner");
            static OUTER: (Note, usize) = (Note("outer"), INNER.with(|inner| inner.0.len()));
        }
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            OUT.set(Some(sender));
            assert_eq!(OUTER.with(|outer| outer.1), 5);
        })
        .join()
        .unwrap();
        // The inner one was made first, so it goes last.
        assert_eq!(receiver.iter().collect::<Vec<_>>(), ["outer", "inner"]);
    }

    fn a_value_is_gone_when_its_destructor_runs_and_after() {
        use imp::sync::mpsc;
        use imp::thread::{self, AccessError, LocalKey};
        type Report = (bool, bool, AccessErrorTexts, String);
        type AccessErrorTexts = (String, String);
        struct Late(
            &'static LocalKey<Late>,
            &'static LocalKey<Cell<Option<Box<u8>>>>,
            Cell<Option<mpsc::Sender<Report>>>,
        );
        impl Drop for Late {
            fn drop(&mut self) {
                let Some(sender) = self.2.take() else { return };
                let own = self.0.try_with(|_| ());
                let newer = self.1.try_with(|_| ());
                let error: AccessError = own.unwrap_err();
                let payload = catch_unwind(AssertUnwindSafe(|| self.1.set(None))).unwrap_err();
                let key = self.0;
                let again = catch_unwind(|| key.with(|_| ())).unwrap_err();
                assert_eq!(text(again), text(payload));
                let payload =
                    catch_unwind(AssertUnwindSafe(|| self.1.take())).map(drop).unwrap_err();
                let texts = (format!("{error:?}"), error.to_string());
                sender.send((own.is_err(), newer.is_err(), texts, text(payload))).unwrap();
            }
        }
        imp::thread_local! {
            static OLD: Late = Late(&OLD, &NEW, Cell::new(None));
            static NEW: Cell<Option<Box<u8>>> = Cell::new(None);
            static CONST_OLD: Late = const { Late(&CONST_OLD, &CONST_NEW, Cell::new(None)) };
            static CONST_NEW: Cell<Option<Box<u8>>> = const { Cell::new(None) };
        }
        for (old, new) in [(&OLD, &NEW), (&CONST_OLD, &CONST_NEW)] {
            let (sender, receiver) = mpsc::channel();
            thread::spawn(move || {
                old.with(|old| old.2.set(Some(sender)));
                new.set(Some(Box::new(1)));
            })
            .join()
            .unwrap();
            let (own, newer, texts, panic) = receiver.recv().unwrap();
            assert!(own && newer);
            assert_eq!(texts, ("AccessError".into(), "already destroyed".into()));
            assert_eq!(panic, GONE);
        }
    }

    fn what_has_no_destructor_is_there_to_the_last() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Late(RefCell<Option<mpsc::Sender<[u32; 4]>>>);
        impl Drop for Late {
            fn drop(&mut self) {
                // Two that were made, and two that are made now.
                CONST.set(CONST.get() + 1);
                let now = [LAZY.get(), CONST.get(), FRESH.get(), FRESH_CONST.get()];
                if let Some(sender) = self.0.take() {
                    sender.send(now).unwrap();
                }
            }
        }
        imp::thread_local! {
            static LATE: Late = const { Late(RefCell::new(None)) };
            static LAZY: Cell<u32> = Cell::new(1);
            static CONST: Cell<u32> = const { Cell::new(1) };
            static FRESH: Cell<u32> = Cell::new(1);
            static FRESH_CONST: Cell<u32> = const { Cell::new(1) };
        }
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            LATE.with(|late| *late.0.borrow_mut() = Some(sender));
            LAZY.set(2);
            CONST.set(2);
        })
        .join()
        .unwrap();
        assert_eq!(receiver.recv().unwrap(), [2, 3, 1, 1]);
    }

    fn destructors_make_values_that_are_destroyed_too() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Chain(u8, mpsc::Sender<u8>);
        impl Drop for Chain {
            fn drop(&mut self) {
                self.1.send(self.0).unwrap();
                let next = || Some(Chain(self.0 + 1, self.1.clone()));
                match self.0 {
                    0 => SECOND.set(next()),
                    1 => THIRD.set(next()),
                    2 => {
                        // The first is gone; a lazy key that was not used is not.
                        assert!(FIRST.try_with(|_| ()).is_err());
                        assert!(SECOND.try_with(|_| ()).is_err());
                        FOURTH.with_borrow_mut(|fourth| *fourth = next());
                    }
                    _ => {}
                }
            }
        }
        imp::thread_local! {
            static FIRST: RefCell<Option<Chain>> = const { RefCell::new(None) };
            static SECOND: RefCell<Option<Chain>> = RefCell::new(None);
            static THIRD: RefCell<Option<Chain>> = const { RefCell::new(None) };
            static FOURTH: RefCell<Option<Chain>> = RefCell::new(None);
        }
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || FIRST.set(Some(Chain(0, sender)))).join().unwrap();
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    fn two_keys_that_revive_each_other_end() {
        use imp::sync::atomic::{AtomicU32, Ordering::SeqCst};
        use imp::thread;
        static DROPS: AtomicU32 = AtomicU32::new(0);
        struct One;
        struct Two;
        impl Drop for One {
            fn drop(&mut self) {
                DROPS.fetch_add(1, SeqCst);
                let _ = TWOS.try_with(|twos| *twos.borrow_mut() = Some(Two));
            }
        }
        impl Drop for Two {
            fn drop(&mut self) {
                DROPS.fetch_add(100, SeqCst);
                let _ = ONES.try_with(|ones| *ones.borrow_mut() = Some(One));
            }
        }
        imp::thread_local! {
            static ONES: RefCell<Option<One>> = RefCell::new(None);
            static TWOS: RefCell<Option<Two>> = RefCell::new(None);
        }
        DROPS.store(0, SeqCst);
        // Not in a key: it makes a Two, which makes a One, which finds the Twos gone.
        thread::spawn(|| drop(One)).join().unwrap();
        assert_eq!(DROPS.load(SeqCst), 102);
    }

    fn of_values_made_one_within_the_other_the_outer_wins() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Loud(u8);
        impl Drop for Loud {
            fn drop(&mut self) {
                OUT.with_borrow(|out| out.as_ref().unwrap().send(self.0).unwrap());
            }
        }
        imp::thread_local! {
            static OUT: RefCell<Option<mpsc::Sender<u8>>> = const { RefCell::new(None) };
            static DEPTH: Cell<u8> = const { Cell::new(0) };
            static BETWEEN: Loud = const { Loud(50) };
            static KEY: Loud = {
                let depth = DEPTH.replace(DEPTH.get() + 1);
                if depth < 3 {
                    KEY.with(|inner| assert_eq!(inner.0, depth + 1));
                    BETWEEN.with(|_| ());
                }
                Loud(depth)
            };
        }
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            OUT.set(Some(sender));
            KEY.with(|outer| assert_eq!(outer.0, 0));
            OUT.with_borrow(|out| out.as_ref().unwrap().send(100).unwrap());
        })
        .join()
        .unwrap();
        // The place in the order is that of the first that was made.
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [3, 2, 1, 100, 50, 0]);
    }

    fn destructors_may_wait_and_spawn() {
        use imp::sync::{Arc, Mutex, mpsc};
        use imp::thread;
        use imp::time::Duration;
        struct Worker {
            turn: mpsc::Receiver<u32>,
            out: Arc<Mutex<Vec<u32>>>,
        }
        impl Drop for Worker {
            fn drop(&mut self) {
                thread::sleep(Duration::from_micros(10));
                thread::yield_now();
                let n = self.turn.recv().unwrap();
                let out = self.out.clone();
                let child = thread::spawn(move || out.lock().unwrap().push(n));
                child.join().unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| self.out.lock().unwrap().push(n + 1));
                });
                thread::current().unpark();
                thread::park();
            }
        }
        imp::thread_local!(static KEY: RefCell<Option<Worker>> = const { RefCell::new(None) });
        let out = Arc::new(Mutex::new(Vec::new()));
        let (sender, turn) = mpsc::channel();
        let its = out.clone();
        let one = thread::spawn(move || KEY.set(Some(Worker { turn, out: its })));
        sender.send(5).unwrap();
        one.join().unwrap();
        assert_eq!(*out.lock().unwrap(), [5, 6]);
    }

    fn destructors_run_as_the_one_that_ends() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Who(mpsc::Sender<(thread::ThreadId, Option<String>, bool)>);
        impl Drop for Who {
            fn drop(&mut self) {
                let me = thread::current();
                self.0.send((me.id(), me.name().map(String::from), thread::panicking())).unwrap();
            }
        }
        imp::thread_local!(static KEY: RefCell<Option<Who>> = RefCell::new(None));
        let (sender, receiver) = mpsc::channel();
        for panics in [false, true] {
            let who = Who(sender.clone());
            let builder = thread::Builder::new().name("its name".into());
            let handle = builder.spawn(move || {
                KEY.set(Some(who));
                assert!(!panics, "on purpose");
            });
            let handle = handle.unwrap();
            let id = handle.thread().id();
            assert_eq!(handle.join().is_err(), panics);
            assert_eq!(receiver.recv().unwrap(), (id, Some("its name".into()), false));
        }
    }

    fn frames_that_unwind_still_have_the_values() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Reader(mpsc::Sender<String>);
        impl Drop for Reader {
            fn drop(&mut self) {
                self.0.send(KEY.with_borrow(|text| text.clone())).unwrap();
            }
        }
        imp::thread_local!(static KEY: RefCell<String> = RefCell::new("initial".into()));
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let _reader = Reader(sender);
            KEY.set("changed".into());
            panic!("on purpose");
        })
        .join()
        .unwrap_err();
        assert_eq!(receiver.recv().unwrap(), "changed");
    }

    fn a_result_that_nobody_wants_goes_before_the_values() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Reader(mpsc::Sender<Result<u8, thread::AccessError>>);
        impl Drop for Reader {
            fn drop(&mut self) {
                self.0.send(KEY.try_with(|value| **value)).unwrap();
            }
        }
        struct Note(mpsc::Sender<Result<u8, thread::AccessError>>);
        impl Drop for Note {
            fn drop(&mut self) {
                self.0.send(Ok(2)).unwrap();
            }
        }
        imp::thread_local! {
            static KEY: Box<u8> = Box::new(1);
            static NOTE: RefCell<Option<Note>> = const { RefCell::new(None) };
        }
        let (go, wait) = mpsc::channel();
        let (sender, receiver) = mpsc::channel();
        drop(thread::spawn(move || {
            wait.recv().unwrap(); // Until the handle has been dropped.
            KEY.with(|_| ());
            NOTE.set(Some(Note(sender.clone())));
            Reader(sender)
        }));
        go.send(()).unwrap();
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [Ok(1), Ok(2)]);
    }

    fn scoped_ones_have_their_own() {
        use imp::sync::mpsc;
        use imp::thread;
        struct Note(u32, mpsc::Sender<u32>);
        impl Drop for Note {
            fn drop(&mut self) {
                self.1.send(self.0).unwrap();
            }
        }
        imp::thread_local!(static KEY: RefCell<Option<Note>> = const { RefCell::new(None) });
        let (sender, receiver) = mpsc::channel();
        KEY.set(Some(Note(0, sender.clone())));
        thread::scope(|scope| {
            for i in 1..=3 {
                let sender = sender.clone();
                let child = scope.spawn(move || {
                    assert!(KEY.replace(Some(Note(i, sender))).is_none());
                });
                child.join().unwrap();
                assert_eq!(receiver.try_recv(), Ok(i));
            }
        });
        assert_eq!(KEY.take().unwrap().0, 0);
    }

    fn a_value_may_be_lent_to_children() {
        use imp::sync::Mutex;
        use imp::thread;
        imp::thread_local!(static SUM: Mutex<u64> = const { Mutex::new(0) });
        SUM.with(|sum| {
            thread::scope(|scope| {
                for i in 1..=10 {
                    scope.spawn(move || *sum.lock().unwrap() += i);
                }
            });
            assert_eq!(*sum.lock().unwrap(), 55);
        });
        assert_eq!(thread::spawn(|| SUM.with(|sum| *sum.lock().unwrap())).join().unwrap(), 0);
    }

    fn values_stay_where_they_are_while_others_are_made() {
        macro_rules! many {
            ($($name:ident)*) => {
                imp::thread_local! { $(static $name: Cell<u64> = Cell::new(0);)* }
                const KEYS: &[&imp::thread::LocalKey<Cell<u64>>] = &[$(&$name),*];
            };
        }
        many!(A B C D E F G H I J K L M N O P Q R S T U V W X Y Z);
        fn visit(left: &[&'static imp::thread::LocalKey<Cell<u64>>]) -> u64 {
            let Some((key, rest)) = left.split_first() else { return 0 };
            key.with(|value| {
                let at = std::ptr::from_ref(value);
                value.set(value.get() + left.len() as u64);
                imp::thread::yield_now();
                let sum = visit(rest);
                key.with(|value| assert_eq!(std::ptr::from_ref(value), at));
                sum + value.get()
            })
        }
        assert_eq!(visit(KEYS), 26 * 27 / 2);
        // Others make them in another order.
        let other = imp::thread::spawn(|| {
            KEYS[25].set(100);
            KEYS[3].set(100);
            visit(KEYS)
        });
        assert_eq!(other.join().unwrap(), 26 * 27 / 2 + 200);
        assert_eq!(visit(KEYS), 26 * 27);
    }

    fn any_type_will_do() {
        use imp::thread;
        use std::rc::Rc;
        #[repr(align(256))]
        struct Aligned(u8);
        struct Empty;
        impl Drop for Empty {
            fn drop(&mut self) {}
        }
        #[derive(Clone, Copy)]
        enum Never {}
        imp::thread_local! {
            static ALIGNED: Aligned = const { Aligned(1) };
            static LAZY_ALIGNED: Aligned = Aligned(2);
            static EMPTY: Empty = Empty;
            static UNIT: () = ();
            static LARGE: [Cell<u64>; 1000] = const { [const { Cell::new(3) }; 1000] };
            static NOT_SEND: Rc<Cell<u8>> = Rc::new(Cell::new(4));
            static REFERENCE: &'static str = "text";
            static NEVER: Option<Never> = None;
            static FUNCTION: for<'a> fn(&'a str) -> &'a str = str::trim;
        }
        let look = || {
            for key in [&ALIGNED, &LAZY_ALIGNED] {
                key.with(|a| assert_eq!((std::ptr::from_ref(a).addr() % 256, a.0 != 0), (0, true)));
            }
            EMPTY.with(|_| ());
            UNIT.with(|_| ());
            assert_eq!(LARGE.with(|large| large.iter().map(Cell::get).sum::<u64>()), 3000);
            let shared = NOT_SEND.with(Rc::clone);
            shared.set(5);
            assert_eq!(NOT_SEND.with(|own| own.get()), 5);
            assert_eq!(REFERENCE.with(|text| text.len()), 4);
            assert!(NEVER.with(Option::is_none));
            assert_eq!(FUNCTION.with(|trim| trim(" a ")), "a");
        };
        look();
        thread::spawn(look).join().unwrap();
    }

    fn what_is_forgotten_is_not_destroyed() {
        use imp::thread;
        use std::mem::ManuallyDrop;
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("it was dropped");
            }
        }
        imp::thread_local!(static KEY: ManuallyDrop<Bomb> = ManuallyDrop::new(Bomb));
        thread::spawn(|| KEY.with(|_| ())).join().unwrap();
    }

    fn keys_and_errors_have_the_traits_and_texts_of_std() {
        use imp::thread::{AccessError, LocalKey};
        imp::thread_local!(static KEY: Cell<u8> = const { Cell::new(0) });
        assert_eq!(format!("{KEY:?}"), "LocalKey { .. }");
        assert_eq!(format!("{KEY:#?}"), "LocalKey { .. }");
        type Key = LocalKey<Cell<*mut u8>>;
        assert!(has!(Key: Send) && has!(Key: Sync) && has!(Key: Unpin));
        assert!(has!(Key: UnwindSafe) && has!(Key: RefUnwindSafe));
        assert!(!has!(Key: Clone) && !has!(Key: Default) && !has!(Key: PartialEq));
        assert!(!std::mem::needs_drop::<Key>());
        assert!(
            has!(AccessError: Copy)
                && has!(AccessError: Eq)
                && has!(AccessError: std::error::Error)
        );
        assert!(!has!(AccessError: std::hash::Hash) && !has!(AccessError: Default));
        assert!(
            has!(AccessError: Send) && has!(AccessError: Sync) && has!(AccessError: UnwindSafe)
        );
    }

    fn a_destructor_that_panics_aborts() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("from a destructor");
            }
        }
        if child_case().is_some() {
            imp::thread_local!(static KEY: Bomb = const { Bomb });
            let _ = imp::thread::spawn(|| KEY.with(|_| ())).join();
            return; // Not reached; else the parent sees no abort.
        }
        let (_, module) = module_path!().split_once("::").unwrap();
        let test = format!("{module}::a_destructor_that_panics_aborts");
        let output = child(&test, "panics").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{text}");
        assert!(text.contains("from a destructor"), "{text}");
        assert!(text.contains("thread local panicked on drop"), "{text}");
    }
}
