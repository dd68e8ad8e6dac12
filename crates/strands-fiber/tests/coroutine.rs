//! Coroutines: what goes in and comes out, what is dropped and when. The same on every backend.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::thread;

use strands_fiber::float_control::Shared;
use strands_fiber::stack::{GuardKind, MIN_STACK_BYTES, PoolConfig, Stack, StackPool, guard_kind};
use strands_fiber::{CAN_UNWIND, Coroutine, CoroutineResult, Suspender};

/// On the `thread` backend a coroutine that has started holds an OS thread, whose stack has a size
/// of its own.
const THREADS: bool = cfg!(strands_backend = "thread");

/// How many coroutines a test keeps alive at once.
const MANY: usize = if THREADS { 64 } else { 5_000 };

/// Counts how often it is dropped.
struct Token(Rc<Cell<usize>>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[derive(Clone, Default)]
struct Drops(Rc<Cell<usize>>);

impl Drops {
    fn token(&self) -> Token {
        Token(self.0.clone())
    }

    fn count(&self) -> usize {
        self.0.get()
    }
}

/// Runs a closure when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)()
    }
}

fn yielded<Y, R>(result: CoroutineResult<Y, R>) -> Y {
    match result {
        CoroutineResult::Yield(value) => value,
        CoroutineResult::Return(_) => panic!("it returned"),
    }
}

fn returned<Y, R>(result: CoroutineResult<Y, R>) -> R {
    match result {
        CoroutineResult::Yield(_) => panic!("it suspended"),
        CoroutineResult::Return(value) => value,
    }
}

/// Panics without a word, as the panics of these tests are expected.
fn quiet_panic(text: &'static str) -> ! {
    resume_unwind(Box::new(text))
}

/// The payload that `f` panics with.
#[track_caller]
fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).err().expect("it did not panic");
    match payload.downcast::<&'static str>() {
        Ok(text) => text.to_string(),
        Err(payload) => *payload.downcast::<String>().expect("a text"),
    }
}

/// Hands values of one type in, out, and back as the result.
fn hand_around<T: Clone + PartialEq + Debug + 'static>(values: [T; 3]) {
    let aligned = |value: &T| (&raw const *value).addr().is_multiple_of(align_of::<T>());
    let mut echo = Coroutine::<T, T, T>::new(move |suspender, first| {
        assert!(aligned(&first));
        let second = suspender.suspend(first);
        assert!(aligned(&second));
        let third = suspender.suspend(second);
        assert!(aligned(&third));
        third
    });
    let [first, second, third] = values;
    let one = yielded(echo.resume(first.clone()));
    assert!(aligned(&one));
    assert_eq!(one, first);
    assert_eq!(yielded(echo.resume(second.clone())), second);
    assert!(!echo.done());
    assert_eq!(returned(echo.resume(third.clone())), third);
    assert!(echo.done());
}

#[derive(Clone, PartialEq, Debug)]
#[repr(align(64))]
struct Wide([u8; 70]);

#[test]
fn values_of_every_shape_are_handed_over() {
    hand_around([(), (), ()]);
    hand_around([1u8, 0, 255]);
    hand_around([true, false, true]);
    hand_around([u128::MAX, 1, 0]);
    hand_around([(1u8, 2u32), (3, 4), (5, 6)]);
    hand_around([[1u8; 10 * 1024], [2; 10 * 1024], [3; 10 * 1024]]);
    hand_around([Wide([1; 70]), Wide([2; 70]), Wide([3; 70])]);
    hand_around([Box::new(1), Box::new(2), Box::new(3)]);
    hand_around(["a".to_string(), String::new(), "c".repeat(1000)]);
    hand_around([None, Some(Rc::new(1)), None]);
    hand_around([[0u64; 0]; 3]);
    hand_around([f64::MAX, -0.0, 1e-300]);
}

#[test]
fn every_value_is_dropped_once() {
    let (inputs, yields, results, captures, locals) =
        <(Drops, Drops, Drops, Drops, Drops)>::default();
    let counts = || [&inputs, &yields, &results, &captures, &locals].map(Drops::count);
    let make = || {
        let (captured, local) = (captures.token(), locals.clone());
        let (yields, results) = (yields.clone(), results.clone());
        Coroutine::<Token, Token, Token>::new(move |suspender, first| {
            let _captured = &captured;
            let _local = local.token();
            drop(suspender.suspend(yields.token()));
            drop(first);
            let _last = suspender.suspend(yields.token());
            results.token()
        })
    };

    drop(make());
    assert_eq!(counts(), [0, 0, 0, 1, 0], "never resumed");

    let mut coroutine = make();
    drop(yielded(coroutine.resume(inputs.token())));
    assert_eq!(counts(), [0, 1, 0, 1, 0]);
    drop(yielded(coroutine.resume(inputs.token())));
    assert_eq!(counts(), [2, 2, 0, 1, 0]);
    let result = returned(coroutine.resume(inputs.token()));
    assert_eq!(counts(), [3, 2, 0, 2, 1]);
    drop(result);
    assert_eq!(counts(), [3, 2, 1, 2, 1]);
    let error = panic_of(|| coroutine.resume(inputs.token()));
    assert_eq!(error, "a coroutine that has returned was resumed");
    assert_eq!(counts(), [4, 2, 1, 2, 1]);
    drop(coroutine);
    assert_eq!(counts(), [4, 2, 1, 2, 1], "returned");

    let mut coroutine = make();
    drop(coroutine.resume(inputs.token()));
    assert_eq!(counts(), [4, 3, 1, 2, 1]);
    drop(coroutine);
    assert_eq!(counts(), [5, 3, 1, 3, 2], "suspended");

    let mut coroutine = make();
    drop(coroutine.resume(inputs.token()));
    std::mem::forget(coroutine);
    assert_eq!(counts(), [5, 4, 1, 3, 2], "forgotten");
}

#[test]
fn a_panic_comes_out_of_resume() {
    let drops = Drops::default();
    let (captured, local, payload) = (drops.token(), drops.token(), drops.token());
    let mut coroutine = Coroutine::<Token, (), ()>::new(move |suspender, input| {
        let _all = (&captured, &local, &input);
        suspender.suspend(());
        // `payload` goes on as what the panic carries.
        let payload: Box<dyn std::any::Any + Send> = Box::new(SendToken(payload));
        resume_unwind(payload);
    });
    yielded(coroutine.resume(drops.token()));
    let caught = catch_unwind(AssertUnwindSafe(|| coroutine.resume(drops.token()))).err().unwrap();
    // Dropped: the second input (as the value of `suspend`), the first, both captured ones.
    assert_eq!(drops.count(), 4);
    assert!(coroutine.done());
    assert!(caught.is::<SendToken>());
    drop(caught);
    assert_eq!(drops.count(), 5);
    assert!(panic_of(|| coroutine.resume(drops.token())).contains("has returned"));
    drop(coroutine);
    assert_eq!(drops.count(), 6);
    assert!(!thread::panicking());
}

/// A payload must be Send.
#[expect(dead_code, reason = "held to be dropped")]
struct SendToken(Token);

// SAFETY: the tests catch it on the thread that threw it; the `thread` backend runs one at a time.
unsafe impl Send for SendToken {}

#[test]
fn a_panic_can_be_caught_inside() {
    let mut coroutine = Coroutine::<u32, u32, u32>::new(|suspender, mut input| {
        for _ in 0..3 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let next = suspender.suspend(input + 1);
                if next > 100 { resume_unwind(Box::new(next)) } else { next }
            }));
            input = caught.unwrap_or_else(|payload| *payload.downcast::<u32>().unwrap() - 100);
        }
        input
    });
    assert_eq!(yielded(coroutine.resume(1)), 2);
    assert_eq!(yielded(coroutine.resume(105)), 6);
    assert_eq!(yielded(coroutine.resume(7)), 8);
    assert_eq!(returned(coroutine.resume(109)), 9);
}

#[test]
fn a_panic_passes_through_nested_coroutines() {
    fn nest(depth: usize, drops: Drops) -> Coroutine<(), usize, ()> {
        Coroutine::new(move |suspender, ()| {
            let _token = drops.token();
            if depth == 0 {
                suspender.suspend(0);
                quiet_panic("from the innermost");
            }
            let mut inner = nest(depth - 1, drops.clone());
            while let CoroutineResult::Yield(value) = inner.resume(()) {
                suspender.suspend(value + 1);
            }
        })
    }
    let drops = Drops::default();
    let mut outer = nest(20, drops.clone());
    assert_eq!(yielded(outer.resume(())), 20);
    assert_eq!(panic_of(|| outer.resume(())), "from the innermost");
    assert_eq!(drops.count(), 21);

    let mut outer = nest(20, drops.clone());
    assert_eq!(yielded(outer.resume(())), 20);
    drop(outer);
    assert_eq!(drops.count(), 42, "each unwinds the one within");
}

#[test]
fn a_destructor_may_resume_and_drop_coroutines_during_a_panic() {
    let drops = Drops::default();
    let make = || {
        let token = drops.token();
        Coroutine::<(), (), ()>::new(move |suspender, ()| {
            let _token = token;
            suspender.suspend(());
        })
    };
    let text = panic_of(|| {
        let mut suspended = make();
        suspended.resume(());
        let fresh = make();
        let mut resumed = make();
        resumed.resume(());
        let _resume = OnDrop(move || {
            assert!(thread::panicking());
            returned(resumed.resume(()));
        });
        let _both = (suspended, fresh);
        quiet_panic("ours")
    });
    assert_eq!(text, "ours");
    assert_eq!(drops.count(), 3);
    assert!(!thread::panicking());

    // One that suspends meanwhile is none the worse for it.
    let coroutine = RefCell::new(make());
    panic_of(|| {
        let _resume = OnDrop(|| yielded(coroutine.borrow_mut().resume(())));
        quiet_panic("ours")
    });
    assert_eq!(drops.count(), 3);
    returned(coroutine.borrow_mut().resume(()));
    assert_eq!(drops.count(), 4);

    // Nor does one unwind any less that suspends once more after the panic.
    let token = drops.token();
    let coroutine = RefCell::new(Coroutine::<(), (), ()>::new(move |suspender, ()| {
        let _token = token;
        suspender.suspend(());
        suspender.suspend(());
    }));
    panic_of(|| {
        let _resume = OnDrop(|| yielded(coroutine.borrow_mut().resume(())));
        quiet_panic("ours")
    });
    yielded(coroutine.borrow_mut().resume(()));
    drop(coroutine);
    assert_eq!(drops.count(), 5);
}

#[test]
fn swallowed_unwinding_leaks_the_stack() {
    let drops = Drops::default();
    let token = drops.token();
    let place = Rc::new(Cell::new(std::ptr::null::<Cell<u32>>()));
    let its = place.clone();
    let mut coroutine = Coroutine::<(), u32, ()>::new(move |suspender, ()| {
        let _token = token;
        let local = Cell::new(7);
        its.set(&local);
        let mut caught = 0;
        loop {
            caught += catch_unwind(AssertUnwindSafe(|| suspender.suspend(caught))).is_err() as u32;
        }
    });
    assert_eq!(yielded(coroutine.resume(())), 0);
    assert_eq!(yielded(coroutine.resume(())), 0);
    drop(coroutine);
    assert_eq!(drops.count(), 0);
    // SAFETY: the stack that it lies on is leaked.
    assert_eq!(unsafe { (*place.get()).get() }, 7);
    assert!(!thread::panicking());
}

#[test]
fn swallowed_unwinding_may_end_in_a_return() {
    let drops = Drops::default();
    let (captured, result) = (drops.token(), drops.token());
    let mut coroutine = Coroutine::<(), (), Token>::new(move |suspender, ()| {
        let _captured = captured;
        assert!(catch_unwind(AssertUnwindSafe(|| suspender.suspend(()))).is_err());
        result
    });
    yielded(coroutine.resume(()));
    drop(coroutine);
    assert_eq!(drops.count(), 2);
}

/// Runs `test` on a thread whose panic count may be off afterwards.
fn on_a_thread<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    thread::Builder::new().stack_size(64 << 20).spawn(test).unwrap().join().unwrap()
}

#[test]
fn a_destructor_that_suspends_during_forced_unwinding_leaks_the_stack() {
    on_a_thread(|| {
        let (before, after) = <(Drops, Drops)>::default();
        let (outer, inner) = (before.token(), after.token());
        let mut coroutine = Coroutine::<(), (), ()>::new(move |suspender, ()| {
            let _outer = outer;
            let _suspends = OnDrop(|| suspender.suspend(()));
            let _inner = inner;
            suspender.suspend(());
        });
        yielded(coroutine.resume(()));
        drop(coroutine);
        assert_eq!((before.count(), after.count()), (0, 1), "unwound as far as the suspension");
    });
}

#[test]
fn a_coroutine_suspended_during_its_panic_can_be_resumed_or_leaked() {
    on_a_thread(|| {
        let make = |drops: &Drops| {
            let token = drops.token();
            Coroutine::<(), (), ()>::new(move |suspender, ()| {
                let _token = token;
                let _suspends = OnDrop(|| suspender.suspend(()));
                quiet_panic("its own");
            })
        };
        let drops = Drops::default();
        let mut coroutine = make(&drops);
        yielded(coroutine.resume(()));
        assert_eq!(panic_of(|| coroutine.resume(())), "its own");
        assert_eq!(drops.count(), 1);
        assert!(!thread::panicking());
        drop(coroutine);

        let mut coroutine = make(&drops);
        yielded(coroutine.resume(()));
        drop(coroutine);
        assert_eq!(drops.count(), 1, "the stack is leaked");
    });
}

#[test]
fn a_destructor_that_panics_when_a_coroutine_is_dropped_panics_there() {
    // Never resumed: the captured values are dropped where the coroutine is.
    let drops = Drops::default();
    let captured = (OnDrop(|| quiet_panic("captured")), drops.token());
    let fresh = Coroutine::<(), (), ()>::new(move |_, ()| drop(captured));
    assert_eq!(panic_of(|| drop(fresh)), "captured");
    assert_eq!(drops.count(), 1);

    // Returned while it was being dropped: so is the result.
    let mut coroutine = Coroutine::<(), (), OnDrop<fn()>>::new(|suspender, ()| {
        assert!(catch_unwind(AssertUnwindSafe(|| suspender.suspend(()))).is_err());
        OnDrop(|| quiet_panic("result"))
    });
    assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
    assert_eq!(panic_of(|| drop(coroutine)), "result");
}

/// A closure that owns `N` bytes.
fn with_closure_of<const N: usize>() {
    let bytes = std::hint::black_box([7u8; N]);
    let mut coroutine = Coroutine::<usize, u8, usize>::new(move |suspender, first| {
        let mut index = first;
        for _ in 0..3 {
            index = suspender.suspend(if N == 0 { 7 } else { bytes[index % N.max(1)] });
        }
        size_of_val(&bytes)
    });
    for index in [0, N / 2, N.saturating_sub(1)] {
        assert_eq!(yielded(coroutine.resume(index)), 7);
    }
    assert_eq!(returned(coroutine.resume(0)), N);

    let bytes = std::hint::black_box([7u8; N]);
    drop(Coroutine::<(), (), usize>::new(move |_, ()| bytes.len()));
}

#[test]
fn closures_of_any_size_fit() {
    on_a_thread(|| {
        with_closure_of::<0>();
        with_closure_of::<1>();
        with_closure_of::<1024>();
        with_closure_of::<{ 64 * 1024 }>();
        if !THREADS {
            with_closure_of::<{ 4 * 1024 * 1024 }>();
        }
    });
}

#[test]
fn large_values_fit() {
    const LARGE: usize = 1024 * 1024;
    on_a_thread(|| {
        if THREADS {
            return; // The values would overflow the threads' stacks.
        }
        let mut last = Coroutine::<[u8; LARGE], u8, u8>::new(|suspender, first| {
            suspender.suspend(first[LARGE - 1])[0]
        });
        assert_eq!(yielded(last.resume([1; LARGE])), 1);
        assert_eq!(returned(last.resume([2; LARGE])), 2);
        let mut coroutine = Coroutine::<u8, (), [u8; LARGE]>::new(|suspender, first| {
            suspender.suspend(());
            [first; LARGE]
        });
        assert!(matches!(coroutine.resume(9), CoroutineResult::Yield(())));
        assert_eq!(returned(coroutine.resume(0))[LARGE - 1], 9);
    });
}

#[test]
fn over_aligned_closures_and_results_fit() {
    #[derive(Clone, Copy)]
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let page = Page([5; 4096]);
    let mut coroutine = Coroutine::<(), usize, Page>::new(move |suspender, ()| {
        let page = page;
        suspender.suspend((&raw const page).addr());
        page
    });
    assert_eq!(yielded(coroutine.resume(())) % 4096, 0);
    assert_eq!(returned(coroutine.resume(())).0[4095], 5);
}

#[test]
fn a_stack_too_small_for_the_closure_is_refused() {
    let drops = Drops::default();
    let captured = (drops.token(), [0u8; MIN_STACK_BYTES]);
    let stack = Stack::new(MIN_STACK_BYTES).unwrap();
    let text = panic_of(|| {
        Coroutine::<(), (), ()>::with_stack(stack, move |_, ()| {
            let _all = &captured;
        })
    });
    assert!(text.starts_with("a stack of 16384 bytes is too small for a closure of "), "{text}");
    assert_eq!(drops.count(), 1);
}

/// What the tests above show of the others, in short. Whose the control words are: `arch.rs`.
#[test]
fn a_sharing_coroutine_does_what_others_do() {
    type Sharing = Coroutine<u64, String, Token, Shared>;
    let drops = Drops::default();
    let make = |ends: fn(&Suspender<u64, String, Shared>)| -> Sharing {
        let (local, result) = (drops.token(), drops.token());
        let stack = Stack::new(MIN_STACK_BYTES.max(64 << 10)).unwrap();
        Coroutine::sharing_float_control(stack, move |suspender, first: u64| {
            let _local = local;
            let mut sum = first;
            while sum < 10 {
                sum += suspender.suspend(sum.to_string());
            }
            ends(suspender);
            result
        })
    };
    let returns = || make(|_| ());
    let mut all = returns();
    for sum in ["1", "3", "5", "7", "9"] {
        assert_eq!(yielded(all.resume(if sum == "1" { 1 } else { 2 })), sum);
    }
    let result = returned(all.resume(2));
    assert!(all.done());
    assert!(panic_of(|| all.resume(2)).contains("has returned"));
    assert_eq!(drops.count(), 1);
    drop((all, result));
    assert_eq!(drops.count(), 2);

    let mut panics = make(|_| quiet_panic("its own"));
    yielded(panics.resume(1));
    assert_eq!(panic_of(|| panics.resume(100)), "its own");
    assert_eq!(drops.count(), 4);

    let mut suspended = returns();
    yielded(suspended.resume(1));
    drop((suspended, returns()));
    assert_eq!(drops.count(), 8, "unwound, and never started");

    on_a_thread(|| {
        let drops = Drops::default();
        let token = drops.token();
        let stack = Stack::new(64 << 10).unwrap();
        let mut leaked =
            Coroutine::<(), (), (), Shared>::sharing_float_control(stack, |suspender, ()| {
                let _token = token;
                let _suspends = OnDrop(|| suspender.suspend(()));
                quiet_panic("its own");
            });
        yielded(leaked.resume(()));
        drop(leaked);
        assert_eq!(drops.count(), 0, "suspended in its panic");
    });
}

#[test]
fn debug_tells_the_state() {
    let mut coroutine = Coroutine::<(), String, ()>::new(|suspender, ()| {
        suspender.suspend(format!("{suspender:?}"));
    });
    assert_eq!(format!("{coroutine:?}"), "Coroutine { state: Fresh, .. }");
    assert_eq!(yielded(coroutine.resume(())), "Suspender { .. }");
    assert_eq!(format!("{coroutine:?}"), "Coroutine { state: Suspended, .. }");
    assert_eq!(coroutine.resume(()), CoroutineResult::Return(()));
    assert_eq!(format!("{coroutine:?}"), "Coroutine { state: Done, .. }");
}

/// Adds up what it is given, from a start of its own.
fn adder(start: u64) -> Coroutine<u64, u64, ()> {
    Coroutine::new(move |suspender: &Suspender<u64, u64>, mut input| {
        let mut sum = start;
        loop {
            sum += input;
            input = suspender.suspend(sum);
        }
    })
}

#[test]
fn coroutines_interleave_and_move() {
    let mut coroutines: Vec<_> = (0..MANY as u64).map(adder).collect();
    for round in 1..=10 {
        for coroutine in &mut coroutines {
            yielded(coroutine.resume(round));
        }
        // Each moves to another place in memory.
        let half = coroutines.len() / 2;
        let mut next: Vec<_> = coroutines.drain(half..).collect();
        next.reverse();
        next.append(&mut coroutines);
        coroutines = next;
    }
    let mut sums: Vec<_> = coroutines.iter_mut().map(|c| yielded(c.resume(0))).collect();
    sums.sort();
    assert!(sums.into_iter().eq((0..MANY as u64).map(|start| start + 55)));
}

enum Tree {
    Leaf(u32),
    Node(Box<Tree>, Box<Tree>),
}

impl Tree {
    fn build(depth: u32, first: u32) -> Tree {
        match depth {
            0 => Tree::Leaf(first),
            _ => {
                let half = 1 << (depth - 1);
                let (left, right) =
                    (Self::build(depth - 1, first), Self::build(depth - 1, first + half));
                Tree::Node(left.into(), right.into())
            }
        }
    }

    /// A generator within a generator for each level.
    fn leaves(self: Box<Self>) -> Coroutine<(), u32, ()> {
        Coroutine::new(move |suspender, ()| match *self {
            Tree::Leaf(value) => suspender.suspend(value),
            Tree::Node(left, right) => {
                for side in [left, right] {
                    let mut leaves = side.leaves();
                    while let CoroutineResult::Yield(value) = leaves.resume(()) {
                        suspender.suspend(value);
                    }
                }
            }
        })
    }

    /// One generator, recursing on its own stack.
    fn walk(&self, suspender: &Suspender<(), u32>) {
        match self {
            Tree::Leaf(value) => suspender.suspend(*value),
            Tree::Node(left, right) => {
                left.walk(suspender);
                right.walk(suspender);
            }
        }
    }
}

fn collect(mut generator: Coroutine<(), u32, ()>) -> Vec<u32> {
    let mut values = Vec::new();
    while let CoroutineResult::Yield(value) = generator.resume(()) {
        values.push(value);
    }
    values
}

#[test]
fn generators_recurse() {
    let depth = if THREADS { 5 } else { 9 };
    let expected: Vec<u32> = (0..1 << depth).collect();
    assert_eq!(collect(Box::new(Tree::build(depth, 0)).leaves()), expected);
    let tree = Tree::build(depth, 0);
    assert_eq!(collect(Coroutine::new(move |suspender, ()| tree.walk(suspender))), expected);
}

#[test]
fn a_hundred_thousand_are_alive_at_once() {
    let count = match (THREADS, guard_kind().unwrap()) {
        (true, _) => 200,
        // Each guard is a mapping, and a process may have 65,530.
        (_, GuardKind::Mprotect) => 20_000,
        (_, GuardKind::Madvise) => 100_000,
    };
    let mut pool = StackPool::new(PoolConfig::default()).unwrap();
    let drops = Drops::default();
    let mut coroutines: Vec<_> = (0..count)
        .map(|number| {
            let token = drops.token();
            let stack = pool.take(MIN_STACK_BYTES).unwrap();
            let mut coroutine =
                Coroutine::<usize, usize, usize>::with_stack(stack, move |suspender, first| {
                    let _token = token;
                    let second = suspender.suspend(first + number);
                    first + second + number
                });
            assert_eq!(yielded(coroutine.resume(1)), number + 1);
            coroutine
        })
        .collect();
    for (number, coroutine) in coroutines.iter_mut().enumerate().step_by(2) {
        assert_eq!(returned(coroutine.resume(2)), number + 3);
    }
    assert_eq!(drops.count(), count / 2);
    drop(coroutines);
    assert_eq!(drops.count(), count);
}

// What the tests above expect of a dropped coroutine.
const _: () = assert!(CAN_UNWIND);
