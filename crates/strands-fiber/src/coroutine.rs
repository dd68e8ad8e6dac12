//! The bare asymmetric form: `resume` runs a coroutine until it suspends or returns.

use std::any::Any;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop, MaybeUninit, offset_of};
use std::num::NonZero;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::{self, NonNull};
use std::thread;

use crate::arch::{Context, Exit, Word, switch_with};
use crate::float_control::{FloatControl, Kept, Shared};
use crate::stack::Stack;
use crate::unwind;

/// The default size of a coroutine's stack, in bytes.
pub const DEFAULT_STACK_BYTES: usize = 256 * 1024;

/// A closure, control block, input and yield of up to this size together are part of the default
/// stack; larger ones get room on top of it.
const SMALL_BYTES: usize = 1024;

/// A computation with a stack of its own, which runs only while it is being resumed.
///
/// Each [`resume`](Self::resume) hands in an `Input` and runs the coroutine until it
/// [suspends](Suspender::suspend) with a `Yield` or returns its `Return`. The first input is an
/// argument of the closure, later ones are what `suspend` returns.
///
/// ```
/// use strands_fiber::{Coroutine, CoroutineResult};
///
/// let mut squares = Coroutine::new(|suspender, first: u64| {
///     let mut input = first;
///     while input != 0 {
///         input = suspender.suspend(input * input);
///     }
///     "done"
/// });
/// assert_eq!(squares.resume(3), CoroutineResult::Yield(9));
/// assert_eq!(squares.resume(5), CoroutineResult::Yield(25));
/// assert_eq!(squares.resume(0), CoroutineResult::Return("done"));
/// ```
///
/// A panic in the coroutine comes out of `resume`. Dropping a suspended coroutine unwinds its
/// stack, so its destructors run; if that cannot be done (`panic = "abort"`, a `catch_unwind` in
/// the coroutine that swallows the unwinding and suspends again, a coroutine suspended by a
/// destructor during a panic) the stack and all that it holds are leaked. If it was in the middle of an
/// unwinding, std goes on counting that for its thread: `std::thread::panicking` stays true there, and
/// coroutines that suspend on that thread from then on are taken for unwinding, and leaked in turn.
///
/// A coroutine that is suspended inside `LocalKey::with` of a `thread_local!` must end before its
/// thread does: if it is forgotten, or kept in a thread-local itself, the value that it borrows is
/// destroyed first. Rust has no way to say so in types.
///
/// A coroutine never leaves its thread. It is not meant for use inside strands' fibers that
/// suspend in it: a fiber parks as a whole, coroutines on its stack included.
///
/// It has floating-point control words of its own, unless it
/// [shares](Self::sharing_float_control) its resumer's; the type says which
/// ([`Kept`] or [`Shared`]).
pub struct Coroutine<Input, Yield, Return, F: FloatControl = Kept> {
    /// Always the same, though `resume` writes it.
    control: NonNull<Control<Return>>,
    /// It consumes inputs: one for any `fn(&u8)` is not one for a `fn(&'static u8)`.
    values: PhantomData<fn(Input) -> Yield>,
    /// It runs on the thread that made it: what its stack holds may be neither Send nor Sync.
    not_send: PhantomData<*mut ()>,
    float_control: PhantomData<F>,
}

/// What [`Coroutine::resume`] came back with.
///
/// ```
/// use strands_fiber::{Coroutine, CoroutineResult};
///
/// let mut countdown = Coroutine::new(|suspender, ()| {
///     (1..=3).rev().for_each(|number| suspender.suspend(number));
///     "lift-off"
/// });
/// let mut seen = Vec::new();
/// let end = loop {
///     match countdown.resume(()) {
///         CoroutineResult::Yield(number) => seen.push(number),
///         CoroutineResult::Return(word) => break word,
///     }
/// };
/// assert_eq!((seen, end), (vec![3, 2, 1], "lift-off"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoroutineResult<Yield, Return> {
    /// It suspended and can be resumed.
    Yield(Yield),
    /// It has ended.
    Return(Return),
}

/// How the coroutine left its resumer in charge. Nobody can look while it runs: `resume` borrows it
/// exclusively. So it need not be written when a coroutine suspends that was suspended before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The closure lies below the control block; nothing has run.
    Fresh,
    Suspended,
    /// `result` or `panic` is filled in, until `resume` takes it.
    Done,
}

/// What the two sides share. It lies at the top of the coroutine's stack, the closure below it.
#[repr(C)]
struct Control<Return> {
    /// First, so that its address is the block's.
    link: Link,
    stack: ManuallyDrop<Stack>,
    closure: *mut (),
    drop_closure: unsafe fn(*mut ()),
    first_input: Word,
    /// Filled in when the state becomes `Done`, unless `panic` is.
    result: MaybeUninit<Return>,
    panic: Option<Box<dyn Any + Send>>,
}

/// The part of the control block that suspending needs, whatever the coroutine returns.
struct Link {
    coroutine: Context,
    resumer: Context,
    state: State,
    /// Suspended by a destructor during a panic: unwinding it would abort the process.
    in_panic: bool,
    /// Set by `drop`: the suspension point unwinds instead of returning.
    unwind: bool,
}

impl<Input: 'static, Yield: 'static, Return: 'static> Coroutine<Input, Yield, Return> {
    /// A coroutine that will run `f`, on a new stack of [`DEFAULT_STACK_BYTES`] plus what a large
    /// closure and large values need.
    ///
    /// If it outgrows the stack, the process ends: by a bare `SIGSEGV`, or with a message that names the
    /// cause once [`overflow::install`](crate::overflow::install) has been called.
    ///
    /// # Panics
    ///
    /// Panics if no stack can be mapped; [`with_stack`](Self::with_stack) takes one that
    /// [`Stack::new`] made, whose error can be handled.
    ///
    /// ```
    /// use strands_fiber::{Coroutine, CoroutineResult};
    ///
    /// let mut sum = Coroutine::new(|suspender, mut next: i32| {
    ///     let mut sum = 0;
    ///     loop {
    ///         sum += next;
    ///         next = suspender.suspend(sum);
    ///     }
    /// });
    /// assert_eq!(sum.resume(2), CoroutineResult::<i32, ()>::Yield(2));
    /// assert_eq!(sum.resume(3), CoroutineResult::Yield(5));
    /// ```
    pub fn new<Body>(f: Body) -> Self
    where
        Body: FnOnce(&Suspender<Input, Yield>, Input) -> Return + 'static,
    {
        let stack = stack_for::<Body, (Input, Yield), Control<Return>>()
            .expect("failed to map a coroutine's stack");
        Self::with_stack(stack, f)
    }

    /// A coroutine that will run `f` on `stack`.
    ///
    /// # Panics
    ///
    /// Panics if the closure and the result would fill more than half of the stack, or if there is
    /// no memory for them where the system commits it ahead of use (Windows).
    ///
    /// ```
    /// use strands_fiber::stack::Stack;
    /// use strands_fiber::{Coroutine, CoroutineResult};
    ///
    /// fn depth(left: u32) -> u32 {
    ///     let frame = std::hint::black_box([left; 256]); // A kilobyte.
    ///     if left == 0 { 0 } else { depth(left - 1) + frame[0] - left + 1 }
    /// }
    /// let stack = Stack::new(4 * 1024 * 1024)?;
    /// let mut deep = Coroutine::<u32, (), u32>::with_stack(stack, |_, levels| depth(levels));
    /// assert_eq!(deep.resume(300), CoroutineResult::Return(300));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn with_stack<Body>(stack: Stack, f: Body) -> Self
    where
        Body: FnOnce(&Suspender<Input, Yield>, Input) -> Return + 'static,
    {
        Self::on(stack, f)
    }
}

impl<Input: 'static, Yield: 'static, Return: 'static> Coroutine<Input, Yield, Return, Shared> {
    /// As [`with_stack`](Coroutine::with_stack), with no floating-point control words of its own: a
    /// switch may leave them as they are, and costs less than half on x86-64.
    ///
    /// Nobody can tell who does not change them, or changes them back before he resumes, suspends or
    /// returns: see [`float_control`](crate::float_control).
    ///
    /// # Panics
    ///
    /// As `with_stack`.
    ///
    /// ```
    /// use strands_fiber::float_control::Shared;
    /// use strands_fiber::stack::Stack;
    /// use strands_fiber::{Coroutine, CoroutineResult, DEFAULT_STACK_BYTES, Suspender};
    ///
    /// fn halve(suspender: &Suspender<(), f64, Shared>, mut number: f64) {
    ///     while number > 1.0 {
    ///         number /= 2.0;
    ///         suspender.suspend(number);
    ///     }
    /// }
    /// let stack = Stack::new(DEFAULT_STACK_BYTES)?;
    /// let mut halves = Coroutine::sharing_float_control(stack, |suspender, ()| halve(suspender, 3.0));
    /// assert_eq!(halves.resume(()), CoroutineResult::Yield(1.5));
    /// assert_eq!(halves.resume(()), CoroutineResult::Yield(0.75));
    /// assert_eq!(halves.resume(()), CoroutineResult::Return(()));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sharing_float_control<Body>(stack: Stack, f: Body) -> Self
    where
        Body: FnOnce(&Suspender<Input, Yield, Shared>, Input) -> Return + 'static,
    {
        Self::on(stack, f)
    }
}

impl<Input: 'static, Yield: 'static, Return: 'static, F: FloatControl>
    Coroutine<Input, Yield, Return, F>
{
    /// A coroutine that will run `f` on `stack`; panics as `with_stack` says.
    fn on<Body>(stack: Stack, f: Body) -> Self
    where
        Body: FnOnce(&Suspender<Input, Yield, F>, Input) -> Return + 'static,
    {
        let control = carve::<Control<Return>>(stack.top());
        let closure = carve::<Body>(control.cast());
        let used = stack.top().addr().get() - closure.addr().get();
        assert!(
            used <= stack.size() / 2,
            "a stack of {} bytes is too small for a closure of {} and a result of {} bytes",
            stack.size(),
            size_of::<Body>(),
            size_of::<Return>(),
        );
        stack.commit_from(closure.cast()).expect("no memory for a coroutine's closure");
        let mut block = Control {
            link: Link {
                coroutine: Context::new(),
                resumer: Context::new(),
                state: State::Fresh,
                in_panic: false,
                unwind: false,
            },
            stack: ManuallyDrop::new(stack),
            closure: closure.as_ptr().cast(),
            drop_closure: drop_closure::<Body>,
            first_input: Word::uninit(),
            result: MaybeUninit::uninit(),
            panic: None,
        };
        // SAFETY: `closure` is aligned to 16 and the end of what is left of the stack, which
        // stays mapped until the coroutine is done (or for ever).
        unsafe {
            block.link.coroutine.start(
                closure.cast(),
                &block.stack,
                run::<Body, Input, Yield, Return, F>,
            )
        };
        // SAFETY: both places are in the stack that `block` owns, aligned by `carve`, disjoint, and in
        // its upper half by the assertion.
        unsafe {
            closure.write(f);
            control.write(block);
        }
        Coroutine {
            control,
            values: PhantomData,
            not_send: PhantomData,
            float_control: PhantomData,
        }
    }

    /// Runs the coroutine with `input` until it suspends or returns.
    ///
    /// # Panics
    ///
    /// Goes on with the coroutine's panic if it panicked. Panics if it has already returned or
    /// panicked.
    ///
    /// ```
    /// use strands_fiber::{Coroutine, CoroutineResult};
    ///
    /// let mut greeter = Coroutine::new(|suspender, name: &str| {
    ///     let other = suspender.suspend(format!("hello {name}"));
    ///     format!("goodbye {name} and {other}")
    /// });
    /// assert_eq!(greeter.resume("Ann"), CoroutineResult::Yield("hello Ann".into()));
    /// assert_eq!(greeter.resume("Bob"), CoroutineResult::Return("goodbye Ann and Bob".into()));
    /// ```
    #[inline]
    pub fn resume(&mut self, input: Input) -> CoroutineResult<Yield, Return> {
        let input = ManuallyDrop::new(input);
        let control = self.control.as_ptr();
        // SAFETY: the control block lives as long as `self`; the coroutine touches it only while
        // it runs, that is inside `proceed`. What that hands back is the same block's address.
        unsafe {
            let mut arg = pack(&input);
            if (*control).link.state != State::Suspended {
                arg = Self::set_off(control, arg);
            }
            let (yielded, control) = Self::proceed(control, arg);
            self.control = NonNull::new_unchecked(control);
            if (*control).link.state != State::Suspended {
                return CoroutineResult::Return(Self::finish(control));
            }
            CoroutineResult::Yield(unpack(yielded))
        }
    }

    /// Whether it has returned or panicked.
    ///
    /// ```
    /// let mut coroutine = strands_fiber::Coroutine::new(|suspender, ()| suspender.suspend(()));
    /// coroutine.resume(());
    /// assert!(!coroutine.done());
    /// coroutine.resume(());
    /// assert!(coroutine.done());
    /// ```
    pub fn done(&self) -> bool {
        // SAFETY: the coroutine is not running (it would borrow `self`), so nobody writes.
        unsafe { (*self.control.as_ptr()).link.state == State::Done }
    }

    /// Prepares the first resumption: gives the word to hand over in place of the packed `input`.
    /// Panics if there is nothing to resume.
    ///
    /// # Safety
    ///
    /// The coroutine is not suspended, and `input` is a packed one that nobody else unpacks.
    #[cold]
    #[inline(never)]
    unsafe fn set_off(control: *mut Control<Return>, input: Word) -> Word {
        // SAFETY: the control block is there, as it is in `resume`; for the input, the caller's promise.
        unsafe {
            if (*control).link.state == State::Done {
                drop(unpack::<Input>(input));
                panic!("a coroutine that has returned was resumed");
            }
            (*control).link.state = State::Suspended;
            (*control).first_input = input;
        }
        Word::new(control.cast())
    }

    /// What the coroutine returned; goes on with its panic if it panicked.
    ///
    /// # Safety
    ///
    /// It has just become done.
    #[cold]
    #[inline(never)]
    unsafe fn finish(control: *mut Control<Return>) -> Return {
        // SAFETY: the caller's promise; `run` has filled in one of the two.
        unsafe {
            match (*control).panic.take() {
                None => (*control).result.assume_init_read(),
                Some(payload) => panic::resume_unwind(payload),
            }
        }
    }
}

impl<Input, Yield, Return, F: FloatControl> Coroutine<Input, Yield, Return, F> {
    /// Switches to the coroutine, handing over `arg`; returns the packed yield if it suspended,
    /// nothing of use if it is done. And `control`, from a register.
    ///
    /// # Safety
    ///
    /// It is fresh and `arg` its control block's address (with the first input in place), or it
    /// is suspended and `arg` a packed input (any word, if it shall unwind).
    #[inline(always)]
    unsafe fn proceed(control: *mut Control<Return>, arg: Word) -> (Word, *mut Control<Return>) {
        // SAFETY: the coroutine's context was started, or saved by `suspend`, and not switched to
        // since: the caller's promise. Ours is saved here and switched to once, by the coroutine.
        // It is in the block, so the block is around it.
        unsafe {
            let (own, coroutine) =
                (&raw mut (*control).link.resumer, &raw const (*control).link.coroutine);
            let (yielded, own) = switch_with::<F>(own, coroutine, arg);
            (yielded, own.byte_sub(offset_of!(Control<Return>, link.resumer)).cast())
        }
    }
}

impl<Input, Yield, Return, F: FloatControl> Drop for Coroutine<Input, Yield, Return, F> {
    fn drop(&mut self) {
        let control = self.control.as_ptr();
        // SAFETY: nobody else refers to the block: the coroutine is not running, and after the
        // match its frames are gone, or its stack is leaked. The stack is moved out first, so that
        // a destructor that panics here leaks nothing.
        unsafe {
            let stack = ManuallyDrop::take(&mut (*control).stack);
            match (*control).link.state {
                State::Done => {}
                State::Fresh => ((*control).drop_closure)((*control).closure),
                State::Suspended if unwind::CAN_UNWIND && !(*control).link.in_panic => {
                    (*control).link.unwind = true;
                    Self::proceed(control, Word::uninit());
                    if (*control).link.state != State::Done {
                        return mem::forget(stack); // Swallowed.
                    }
                    // The forced unwinding's own payload, or what a `catch_unwind` made of it.
                    match (*control).panic.take() {
                        None => (*control).result.assume_init_drop(),
                        Some(payload) => drop(payload),
                    }
                }
                State::Suspended => return mem::forget(stack),
            }
            ptr::drop_in_place(&raw mut (*control).link);
            drop(stack);
        }
    }
}

impl<Input, Yield, Return, F: FloatControl> fmt::Debug for Coroutine<Input, Yield, Return, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: as in `done`.
        let state = unsafe { (*self.control.as_ptr()).link.state };
        f.debug_struct("Coroutine").field("state", &state).finish_non_exhaustive()
    }
}

/// The coroutine's side of the switch, lent to its closure.
///
/// ```
/// use strands_fiber::{Coroutine, CoroutineResult, Suspender};
///
/// /// Visits the leaves of a tree, in order; no iterator has to remember where it is.
/// fn visit(tree: &[Tree], suspender: &Suspender<(), u32>) {
///     for node in tree {
///         match node {
///             Tree::Leaf(value) => suspender.suspend(*value),
///             Tree::Branch(tree) => visit(tree, suspender),
///         }
///     }
/// }
/// enum Tree {
///     Leaf(u32),
///     Branch(Vec<Tree>),
/// }
/// let tree = vec![Tree::Branch(vec![Tree::Leaf(1), Tree::Leaf(2)]), Tree::Leaf(3)];
/// let mut leaves = Coroutine::new(move |suspender, ()| visit(&tree, suspender));
/// let mut seen = Vec::new();
/// while let CoroutineResult::Yield(leaf) = leaves.resume(()) {
///     seen.push(leaf);
/// }
/// assert_eq!(seen, [1, 2, 3]);
/// ```
pub struct Suspender<Input, Yield, F: FloatControl = Kept> {
    link: NonNull<Link>,
    values: PhantomData<fn(Yield) -> Input>,
    float_control: PhantomData<F>,
}

impl<Input, Yield, F: FloatControl> Suspender<Input, Yield, F> {
    /// Hands `value` to the resumer; returns the input of the next
    /// [`resume`](Coroutine::resume).
    ///
    /// Unwinds instead if the coroutine is dropped while it is suspended here.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use strands_fiber::Coroutine;
    ///
    /// struct NoteDrop(Rc<Cell<bool>>);
    /// impl Drop for NoteDrop {
    ///     fn drop(&mut self) {
    ///         self.0.set(true);
    ///     }
    /// }
    ///
    /// let dropped = Rc::new(Cell::new(false));
    /// let guard = NoteDrop(dropped.clone());
    /// let mut coroutine = Coroutine::new(move |suspender, ()| {
    ///     let _guard = guard;
    ///     suspender.suspend(());
    ///     unreachable!("it is dropped while it is suspended");
    /// });
    /// coroutine.resume(());
    /// drop(coroutine); // Unwinds it from `suspend`.
    /// assert!(dropped.get());
    /// ```
    #[inline]
    pub fn suspend(&self, value: Yield) -> Input {
        match thread::panicking() {
            false => self.hand_over(value),
            true => self.suspend_in_panic(value),
        }
    }

    #[cold]
    #[inline(never)]
    fn suspend_in_panic(&self, value: Yield) -> Input {
        let link = self.link.as_ptr();
        // SAFETY: the suspender cannot leave the closure that it is lent to, so the block is there,
        // and this coroutine is running: its resumer does not look.
        unsafe { (*link).in_panic = true };
        let input = self.hand_over(value);
        // SAFETY: as above.
        unsafe { (*link).in_panic = false };
        input
    }

    #[inline(always)]
    fn hand_over(&self, value: Yield) -> Input {
        let value = ManuallyDrop::new(value);
        let link = self.link.as_ptr();
        // SAFETY: the suspender cannot leave the closure that it is lent to, so the block is
        // there and this coroutine is running; its resumer waits in `proceed`, which saved its
        // context. The resumer moves `value` out, and hands over an input to move out in turn,
        // unless it sets `unwind`.
        unsafe {
            let (own, resumer) = (&raw mut (*link).coroutine, &raw const (*link).resumer);
            let (input, _) = switch_with::<F>(own, resumer, pack(&value));
            if (*link).unwind {
                unwind::force();
            }
            unpack(input)
        }
    }
}

impl<Input, Yield, F: FloatControl> fmt::Debug for Suspender<Input, Yield, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suspender").finish_non_exhaustive()
    }
}

/// What a coroutine's stack starts with. `control` is the address of its control block.
unsafe extern "C" fn run<Body, Input, Yield, Return, F>(control: Word) -> Exit
where
    Body: FnOnce(&Suspender<Input, Yield, F>, Input) -> Return,
    F: FloatControl,
{
    // SAFETY: `resume` hands over the block's address.
    let control = unsafe { control.assume_init() }.cast::<Control<Return>>();
    // SAFETY: as above; an address of a block is not null.
    let link = unsafe { NonNull::new_unchecked(control.cast()) };
    let suspender = Suspender { link, values: PhantomData, float_control: PhantomData };
    // SAFETY: the first resumption, so the closure is there, and is moved out this once; the
    // resumer packed its input and forgets it. Nobody else touches the
    // result. It is written in place: it may be large.
    let caught = panic::catch_unwind(AssertUnwindSafe(|| unsafe {
        let closure = (*control).closure.cast::<Body>();
        let result = (&raw mut (*control).result).cast::<Return>();
        result.write(closure.read()(&suspender, unpack((*control).first_input)));
    }));
    // SAFETY: the block outlives this frame, and the resumer waits for us to leave.
    unsafe {
        (*control).panic = caught.err();
        (*control).link.state = State::Done;
        if !F::KEPT {
            (*control).link.resumer.adopt_float_control();
        }
        Exit { next: &raw const (*control).link.resumer, arg: Word::uninit() }
    }
}

/// A value on its way over a switch: itself if it fits into a word, else its address.
///
/// The other side moves it out once, by [`unpack`], while `value` is still there.
#[inline(always)]
fn pack<T>(value: &ManuallyDrop<T>) -> Word {
    if size_of::<T>() > size_of::<Word>() {
        return Word::new((&raw const **value).cast_mut().cast());
    }
    let mut word = Word::uninit();
    // SAFETY: the value fits, and the copy is the one that is used from here on.
    unsafe { word.as_mut_ptr().cast::<ManuallyDrop<T>>().write_unaligned(ptr::read(value)) };
    word
}

/// The value that [`pack`] made `word` of.
///
/// # Safety
///
/// That value was a `T`, is still where it was, and is used by nobody else from here on.
#[inline(always)]
unsafe fn unpack<T>(word: Word) -> T {
    // SAFETY: the caller's promise; a large value's word is its address.
    unsafe {
        match size_of::<T>() > size_of::<Word>() {
            true => word.assume_init().cast::<T>().read(),
            false => word.as_ptr().cast::<T>().read_unaligned(),
        }
    }
}

/// # Safety
///
/// `closure` points at an `F` that nobody uses afterwards.
unsafe fn drop_closure<F>(closure: *mut ()) {
    // SAFETY: the caller's promise.
    unsafe { closure.cast::<F>().drop_in_place() }
}

/// Room for a `T` just below `end`, aligned for it and for a stack that ends there.
fn carve<T>(end: NonNull<u8>) -> NonNull<T> {
    let align = align_of::<T>().max(16);
    let address = (end.addr().get() - size_of::<T>()) & !(align - 1);
    let address = NonZero::new(address).expect("a stack does not start at address 0");
    end.with_addr(address).cast()
}

/// A stack with room for its control block, closure and values beside the default size.
fn stack_for<F, Values, Block>() -> io::Result<Stack> {
    let fixed = size_of::<F>() + align_of::<F>() + size_of::<Block>() + align_of::<Block>();
    // Large ones are moved from frame to frame, by an unoptimised build several times each.
    let bytes = fixed.saturating_add(size_of::<Values>());
    let extra = if bytes <= SMALL_BYTES { 0 } else { bytes.saturating_mul(8) };
    Stack::new(DEFAULT_STACK_BYTES.saturating_add(extra))
}
