//! Waiting for the first of several operations, and performing exactly that one.
//!
//! [`select!`](crate::select!) is for operations that are known when the program is written, [`Select`] for any number
//! of them. The operations are those that wait: to receive, to send, to join, a point in time, a permit, a change. One of them is
//! performed, and completed with its value; the others are as if they had never been begun: their messages,
//! permits and notifications go to whoever else wants them, or wait.
//!
//! It works from fibers and plain threads alike, without a fiber and without an allocation for each operation.
//!
//! # Which one
//!
//! If several are possible at once, the choice is by lot: of *n* operations each that is possible has a chance of 1/*n* or
//! better, whatever the others are, and of two that are possible both have the same. `biased` chooses the first of them
//! instead: for what shall come first, such as an end. While a select waits it stands in line for each of its
//! operations, behind those who came before, as anybody who waits for one of them. If it is woken and finds that somebody
//! else was faster, it begins anew, at the ends of the lines. That happens with sockets, which tell that they are ready and
//! give nothing away, and if something becomes possible just when the select gets in line; a message, a permit or a
//! notification is handed to the select that waits for it.
//!
//! # Cancellation
//!
//! A fiber that is cancelled while it waits unwinds, and no operation is performed. One that has been performed is
//! completed, and the cancel waits.
//!
//! Inside [`cancel_as_error`](crate::cancel::cancel_as_error), and where panics abort, each operation acts as it does
//! by itself: `readable` and `writable` fail, the others go on to wait. So with one of these two the select ends: the first
//! of them is performed, and its value is the error. Without one it waits on; `cancelled(token)` or a time ends it.
//!
//! # From other selects
//!
//! | Go | crossbeam | here |
//! |---|---|---|
//! | `case m := <-c:` | `recv(r) -> m =>` | `m = recv(r) =>` |
//! | `case c <- m:` | `send(s, m) -> r =>` | `r = send(s, m) =>` |
//! | `default:` | `default =>` | `default =>` |
//! | `case <-time.After(d):` | `default(d) =>` | `_ = after(d) =>`, or `default(d) =>` |
//! | a nil channel | `never()` | `m = recv(r) if condition =>` |
//! | | `m` is evaluated if it is sent | `m` is evaluated first; with `send(s, &mut option)` it stays there if it is not sent |

use std::time::Duration;

#[doc(inline)]
pub use strands_sched::{JoinOperation, NextOperation, Operation, Order, Timer};

use crate::time::{self, Deadline};

/// Waits for the first of several operations, performs it, and goes on with its code.
///
/// ```
/// use std::time::Duration;
/// use strands::{channel, select};
///
/// let (requests, inbox) = channel::bounded(8);
/// let (outbox, answers) = channel::bounded(8);
/// let mut server = strands::spawn(move || {
///     let mut sum = 0;
///     loop {
///         select! {
///             request = recv(inbox) => match request {
///                 Ok(number) => sum += number,
///                 Err(_) => return sum, // All senders have gone.
///             },
///             sent = send(outbox, sum) if sum > 2 => {
///                 sent.unwrap();
///                 sum = 0;
///             }
///         }
///     }
/// });
/// (1..=3).for_each(|number| requests.send(number).unwrap());
/// assert!(answers.recv().unwrap() > 2);
/// drop(requests);
/// select! {
///     rest = join(server) => println!("{} were left", rest.unwrap()),
///     _ = after(Duration::from_secs(60)) => panic!("it does not end"),
/// }
/// ```
///
/// # Arms
///
/// An arm is `pattern = operation => expression,` or, with a condition, `pattern = operation if condition => expression,`. After
/// a block the comma may be left out. The pattern must not be refutable. The macro's value is that of the expression.
/// Expressions may `break`, `return` and use `?`; when one begins, nothing is borrowed by the operations any more.
/// There may be 100 arms; more if the crate raises its `recursion_limit`, and any number in a
/// [`Select`](crate::select::Select).
///
/// | operation | of | value |
/// |---|---|---|
/// | `recv(receiver)` | [`channel`](crate::sync::channel), [`mpsc`](crate::sync::mpsc), [`oneshot`](crate::sync::oneshot), [`broadcast`](crate::sync::broadcast) | as `receiver.recv()` |
/// | `send(sender, message)` | [`channel`](crate::sync::channel), a `SyncSender` of [`mpsc`](crate::sync::mpsc) | as `sender.send(message)` |
/// | `join(handle)` | a `JoinHandle`, also a scoped or a local one | as `handle.join()` |
/// | `join_next(group)` | a [`FiberGroup`](crate::FiberGroup) | as `group.join_next()` |
/// | `changed(receiver)` | [`watch`](crate::sync::watch) | as `receiver.changed()` |
/// | `notified(notify)` | [`Notify`](crate::sync::Notify) | `()` |
/// | `acquire(semaphore)`, `acquire(semaphore, n)` | [`Semaphore`](crate::sync::Semaphore) | as `semaphore.acquire()` |
/// | `readable(socket)`, `writable(socket)` | a `TcpStream`, or a `TcpListener` with a connection to accept | `io::Result<()>`: nothing has been read or written |
/// | `cancelled(token)` | a [`CancelToken`](crate::cancel::CancelToken) | as `token.wait()` |
/// | `after(duration)`, `at(point_in_time)` | | `()` |
///
/// What is written in place of `receiver` and so on is borrowed, mutably if the operation needs that, and
/// evaluated once, in order, before anything is tried; an arm whose condition is false is not. A channel that is closed is possible: its
/// value is the error.
///
/// A `message` is moved into the operation; if another one is chosen, it is dropped. To keep it, give `&mut option`, which
/// is emptied when the message is sent. An empty one is never sent: the arm is as one whose condition is false.
///
/// `default => expression` is chosen if nothing is possible now: then it does not wait. `default(duration) =>` is
/// `_ = after(duration) =>`. Without them, and without an operation whose condition holds, it waits for ever.
///
/// `select! { biased; … }` chooses the first in the order of the text of those that are possible; otherwise it is
/// [by lot](mod@crate::select#which-one).
///
/// ```
/// use strands::{channel, select};
///
/// let (sender, receiver) = channel::rendezvous::<String>();
/// let mut message = Some(String::from("nobody is there to receive it"));
/// select! {
///     result = send(sender, &mut message) => result.unwrap(),
///     default => {}
/// }
/// assert!(message.is_some());
/// # drop(receiver);
/// ```
///
/// # Panics
///
/// As the operations do.
#[macro_export]
macro_rules! select {
    () => {
        compile_error!("`select!` without an arm would wait for ever")
    };
    (biased; $($arms:tt)*) => {
        $crate::__select!(@arms Biased [] [] [] $($arms)*)
    };
    ($($arms:tt)*) => {
        $crate::__select!(@arms Fair [] [] [] $($arms)*)
    };
}

/// The steps of [`select!`](crate::select!). Read the arms one by one (`@arms`), each into
/// `{number, names of its own, pattern, operation, condition, code}`; then write it all out (`@write`).
/// Steps are nested, and rustc allows 128 of them: so each arm is read in one.
#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    // The end.
    (@arms $order:ident [] [] []) => {
        compile_error!("`select!` without an arm would wait for ever")
    };
    (@arms $order:ident $before:tt $done:tt $default:tt) => {
        $crate::__select!(@write $order $done $default)
    };

    // default
    (@arms $order:ident $before:tt $done:tt [] default => $code:block, $($rest:tt)*) => {
        $crate::__select!(@arms $order $before $done [$code] $($rest)*)
    };
    (@arms $order:ident $before:tt $done:tt [] default => $code:block $($rest:tt)*) => {
        $crate::__select!(@arms $order $before $done [$code] $($rest)*)
    };
    (@arms $order:ident $before:tt $done:tt [] default => $code:expr $(, $($rest:tt)*)?) => {
        $crate::__select!(@arms $order $before $done [$code] $($($rest)*)?)
    };
    (@arms $order:ident $before:tt $done:tt [$code:tt] default => $($rest:tt)*) => {
        compile_error!("`select!` has one `default` arm at most")
    };
    (@arms $order:ident $before:tt $done:tt $default:tt default($time:expr) => $($rest:tt)*) => {
        $crate::__select!(@arms $order $before $done $default _ = after($time) => $($rest)*)
    };

    // pattern = operation
    (@arms $order:ident [$($before:tt)*] [$($done:tt)*] $default:tt
        $pattern:pat = $kind:ident $of:tt $(if $condition:expr)? => $code:block, $($rest:tt)*) => {
        // The names are new ones each time, as each expansion has its own.
        $crate::__select!(@arms $order [$($before)* + 1]
            [$($done)* {(0 $($before)*) operation value $pattern, $kind $of [$($condition)?] $code}]
            $default $($rest)*)
    };
    (@arms $order:ident [$($before:tt)*] [$($done:tt)*] $default:tt
        $pattern:pat = $kind:ident $of:tt $(if $condition:expr)? => $code:block $($rest:tt)*) => {
        // The names are new ones each time, as each expansion has its own.
        $crate::__select!(@arms $order [$($before)* + 1]
            [$($done)* {(0 $($before)*) operation value $pattern, $kind $of [$($condition)?] $code}]
            $default $($rest)*)
    };
    (@arms $order:ident [$($before:tt)*] [$($done:tt)*] $default:tt
        $pattern:pat = $kind:ident $of:tt $(if $condition:expr)? => $code:expr $(, $($rest:tt)*)?) => {
        // The names are new ones each time, as each expansion has its own.
        $crate::__select!(@arms $order [$($before)* + 1]
            [$($done)* {(0 $($before)*) operation value $pattern, $kind $of [$($condition)?] $code}]
            $default $($($rest)*)?)
    };

    // What is none of these.
    (@arms $order:ident $before:tt $done:tt $default:tt
        $kind:ident($($of:tt)*) -> $pattern:pat => $($rest:tt)*) => {
        compile_error!(concat!(
            "an arm of `select!` is `pattern = operation => code`: write `",
            stringify!($pattern), " = ", stringify!($kind), "(", stringify!($($of)*), ") => …`"
        ))
    };
    (@arms $order:ident $before:tt $done:tt $default:tt default => $($rest:tt)*) => {
        $crate::__select!(@no_code $($rest)*)
    };
    (@arms $order:ident $before:tt $done:tt $default:tt
        $pattern:pat = $kind:ident($($of:tt)*) $(if $condition:expr)? => $($rest:tt)*) => {
        $crate::__select!(@no_code $($rest)*)
    };
    (@arms $order:ident $before:tt $done:tt $default:tt $($rest:tt)*) => {
        compile_error!(concat!(
            "an arm of `select!` is `pattern = operation => code`, `pattern = operation if condition => code` or \
             `default => code`; found `", stringify!($($rest)*), "`"
        ))
    };
    (@no_code $($rest:tt)*) => {
        compile_error!(concat!(
            "expected code and a comma after `=>` in `select!`; found `", stringify!($($rest)*), "`"
        ))
    };

    (@made $kind:ident $of:tt []) => {
        Some($crate::__select!(@operation $kind $of))
    };
    (@made $kind:ident $of:tt [$condition:expr]) => {
        if $condition { Some($crate::__select!(@operation $kind $of)) } else { None }
    };
    (@operation recv($receiver:expr $(,)?)) => { $receiver.select_recv() };
    (@operation send($sender:expr, $message:expr $(,)?)) => { $sender.select_send($message) };
    (@operation join($handle:expr $(,)?)) => { $handle.select_join() };
    (@operation join_next($group:expr $(,)?)) => { $group.select_join_next() };
    (@operation changed($receiver:expr $(,)?)) => { $receiver.select_changed() };
    (@operation notified($notify:expr $(,)?)) => { $notify.select_notified() };
    (@operation acquire($semaphore:expr $(,)?)) => { $semaphore.select_acquire() };
    (@operation acquire($semaphore:expr, $permits:expr $(,)?)) => {
        $semaphore.select_acquire_many($permits)
    };
    (@operation readable($socket:expr $(,)?)) => { $socket.select_readable() };
    (@operation writable($socket:expr $(,)?)) => { $socket.select_writable() };
    (@operation cancelled($token:expr $(,)?)) => { $token.select_cancelled() };
    (@operation after($time:expr $(,)?)) => { $crate::select::after($time) };
    (@operation at($time:expr $(,)?)) => { $crate::select::at($time) };
    (@operation $other:ident $of:tt) => {
        compile_error!(concat!(
            "`", stringify!($other), stringify!($of), "` is no operation of `select!`, which are: recv(receiver), \
             send(sender, message), join(handle), join_next(group), changed(receiver), notified(notify), \
             acquire(semaphore), acquire(semaphore, permits), readable(socket), writable(socket), cancelled(token), \
             after(duration), at(point_in_time)"
        ))
    };

    (@write $order:ident
        [$({$number:tt $operation:ident $value:ident $pattern:pat, $kind:ident $of:tt $condition:tt $code:tt})*]
        [$($default:tt)?]) => {{
        $(let mut $value = None;)*
        match ($($crate::__select!(@made $kind $of $condition),)*) {
            ($($operation,)*) => {
                let chosen = $crate::__select!(@choose $order [$($operation)*] [$($default)?]);
                $(if chosen == Some($number) {
                    $value = $operation.as_ref().and_then(|operation| operation.take());
                })*
            }
        }
        $(if let Some(value) = $value {
            let $pattern = value;
            $code
        } else)* {
            $crate::__select!(@otherwise [$($default)?])
        }
    }};
    (@choose $order:ident [$($operation:ident)*] []) => {
        $crate::__rt::select(&[$(&$operation),*], $crate::select::Order::$order, None)
    };
    (@choose $order:ident [$($operation:ident)*] [$default:tt]) => {
        $crate::__rt::try_select(&[$(&$operation),*], $crate::select::Order::$order)
    };
    (@otherwise []) => {
        unreachable!("one was performed")
    };
    (@otherwise [$default:tt]) => {
        $default
    };
}

/// A point in time that is `duration` from now, as one of several operations; never, if the clock cannot tell it.
///
/// ```
/// use std::time::Duration;
/// use strands::select::{Select, after};
///
/// let (soon, never) = (after(Duration::ZERO), after(Duration::MAX));
/// let mut select = Select::new();
/// select.add(&never);
/// select.add(&soon);
/// assert_eq!(select.select(), 1);
/// ```
#[must_use]
pub fn after(duration: Duration) -> Timer {
    Timer::at(time::deadline_in(duration))
}

/// A point in time, as one of several operations: an `Instant`, strands' or std's, or a [`Deadline`].
///
/// ```
/// use strands::select;
/// use strands::time::{Deadline, Duration};
///
/// let deadline = Deadline::after(Duration::from_millis(1));
/// select! { _ = at(deadline) => assert!(deadline.has_passed()) }
/// ```
#[must_use]
pub fn at(time: impl Into<Deadline>) -> Timer {
    Timer::at(Option::from(time.into()))
}

/// Any number of operations, of which one is performed at a time.
///
/// The operations are values: each is made once, by `select_recv`, `select_send`, `select_join` and so on, and may be performed
/// any number of times. [`select`](Self::select) says which one was; `take` of that operation gives its value. So a
/// loop allocates nothing.
///
/// ```
/// use strands::channel;
/// use strands::select::Select;
///
/// let (senders, receivers): (Vec<_>, Vec<_>) = (0..8).map(|_| channel::bounded(1)).unzip();
/// for (number, sender) in senders.into_iter().enumerate() {
///     strands::spawn(move || sender.send(number).unwrap());
/// }
/// let operations: Vec<_> = receivers.iter().map(channel::Receiver::select_recv).collect();
/// let mut select = Select::new();
/// for operation in &operations {
///     select.add(operation);
/// }
/// let mut messages = 0;
/// while messages < 8 {
///     let chosen = select.select();
///     match operations[chosen].take().expect("it was performed") {
///         Ok(number) => {
///             assert_eq!(number, chosen);
///             messages += 1;
///         }
///         Err(_) => {} // The sender has gone.
///     }
/// }
/// ```
#[derive(Default)]
pub struct Select<'a> {
    operations: Vec<&'a dyn Operation>,
    order: Order,
}

impl<'a> Select<'a> {
    /// Without operations. The choice is [by lot](self#which-one).
    ///
    /// ```
    /// use strands::select::Select;
    ///
    /// assert_eq!(Select::new().try_select(), None);
    /// ```
    #[must_use]
    pub const fn new() -> Select<'a> {
        Select { operations: Vec::new(), order: Order::Fair }
    }

    /// Without operations. Of those that are possible the first one is chosen.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands::select::{Select, after};
    ///
    /// let now = after(Duration::ZERO);
    /// let mut select = Select::biased();
    /// (select.add(&now), select.add(&now));
    /// assert_eq!(select.select(), 0);
    /// ```
    #[must_use]
    pub const fn biased() -> Select<'a> {
        Select { operations: Vec::new(), order: Order::Biased }
    }

    /// Adds an operation; its index, which is the number of those that were added before.
    ///
    /// ```
    /// use strands::select::Select;
    ///
    /// let (sender, receiver) = strands::channel::rendezvous();
    /// let (send, recv) = (sender.select_send(1), receiver.select_recv());
    /// let mut select = Select::new();
    /// assert_eq!((select.add(&send), select.add(&recv)), (0, 1));
    /// assert_eq!(select.try_select(), None, "a select does not meet itself");
    /// ```
    pub fn add(&mut self, operation: &'a dyn Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// Waits until an operation is possible, and performs it: its index.
    ///
    /// # Panics
    ///
    /// If there are no operations: it would wait for ever. If another fiber selects with one of them meanwhile.
    ///
    /// ```
    /// use strands::select::Select;
    ///
    /// let (sender, receiver) = strands::channel::bounded(1);
    /// let send = sender.select_send(7);
    /// let mut select = Select::new();
    /// select.add(&send);
    /// assert_eq!(select.select(), 0);
    /// assert_eq!(send.take(), Some(Ok(())));
    /// assert_eq!(receiver.recv(), Ok(7));
    /// ```
    pub fn select(&mut self) -> usize {
        assert!(!self.operations.is_empty(), "a select without operations would wait for ever");
        strands_sched::select(&self.operations, self.order, None).expect("there is no deadline")
    }

    /// Performs an operation if one is possible now: its index.
    ///
    /// # Panics
    ///
    /// As for [`select`](Self::select), but not without operations.
    ///
    /// ```
    /// use strands::select::Select;
    ///
    /// let semaphore = strands::sync::Semaphore::new(1);
    /// let acquire = semaphore.select_acquire();
    /// let mut select = Select::new();
    /// select.add(&acquire);
    /// assert_eq!(select.try_select(), Some(0));
    /// let permit = acquire.take();
    /// assert_eq!(select.try_select(), None);
    /// # drop(permit);
    /// ```
    pub fn try_select(&mut self) -> Option<usize> {
        strands_sched::try_select(&self.operations, self.order)
    }

    /// As [`select`](Self::select), for about `timeout`; `None` if nothing was possible by then.
    ///
    /// A timeout that no `Instant` can tell is none. What is possible at once is performed, also when the timeout is zero. Without
    /// operations it waits for that time.
    ///
    /// # Panics
    ///
    /// If another fiber selects with one of the operations meanwhile.
    ///
    /// ```
    /// use std::time::Duration;
    /// use strands::select::Select;
    ///
    /// let notify = strands::sync::Notify::new();
    /// let notified = notify.select_notified();
    /// let mut select = Select::new();
    /// select.add(&notified);
    /// assert_eq!(select.select_timeout(Duration::from_millis(1)), None);
    /// notify.notify_one();
    /// assert_eq!(select.select_timeout(Duration::ZERO), Some(0));
    /// ```
    pub fn select_timeout(&mut self, timeout: Duration) -> Option<usize> {
        strands_sched::select(&self.operations, self.order, time::deadline_in(timeout))
    }

    /// As [`select_timeout`](Self::select_timeout), until `deadline`: a point in time, or never.
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// ```
    /// use strands::select::Select;
    /// use strands::time::Instant;
    ///
    /// assert_eq!(Select::new().select_deadline(Instant::now()), None);
    /// ```
    pub fn select_deadline(&mut self, deadline: impl Into<Deadline>) -> Option<usize> {
        strands_sched::select(&self.operations, self.order, Option::from(deadline.into()))
    }
}

impl std::fmt::Debug for Select<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Select")
            .field("operations", &self.operations.len())
            .field("order", &self.order)
            .finish()
    }
}
