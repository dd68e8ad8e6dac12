//! The scheduler of strands: decides who runs. It knows no file descriptors.
//!
//! Read in this order: [`task`](TaskRef) (what is spawned and what can wait), `park` (the one way to wait),
//! `worker` (the loop), `inbox` and `idle` with its README (how workers reach and wake each
//! other), `timer`, `blocking`, `runtime` (the whole), `driver` (what an idle worker waits in), `report` and `watch`
//! (what goes on, and what goes wrong).

mod about;
mod atomic;
mod blocking;
mod cancel;
mod children;
mod current;
mod driver;
mod fork;
mod frame;
mod fresh;
mod group;
pub mod held;
mod idle;
mod inbox;
mod latch;
mod live;
mod local;
mod monitor;
mod no_unwind;
pub mod owner;
mod park;
mod report;
mod run_queue;
mod runtime;
mod scope;
mod select;
mod spawn;
mod spin;
mod task;
mod timer;
mod token;
mod unblock;
mod wait_queue;
mod watch;
mod worker;

#[cfg(all(test, loom))]
mod models;

pub use about::{About, Arms, Detail, while_waiting_for};
pub use cancel::{
    Cancelled, Elapsed, as_error, cancelling, charge_fallible, check, check_fallible,
    check_shutdown, error_or_unwind, fallible, is_asked, panicking, timeout_at, uncancellable,
    unwind as cancel_unwind,
};
pub use current::{Alarm, mark, with as with_current_task};
pub use driver::{Driver, DriverFactory, DriverWaker, TimeDriver, now};
pub use fork::{assert_may_wait, forked_error, in_forked_child, watch_forks};
pub use group::{Group, NextOperation};
pub use local::{Access, FiberKey, Lent};
pub use park::{
    Op, Outcome, Parker, Wake, block_until, charge, park_token, sleep_until, unpark_token,
    wait_until, yield_now,
};
pub use report::{
    FiberReport, FiberState, RuntimeReport, WaitReport, WorkerReport, collect, collect_for,
};
pub use runtime::{
    Builder, Placement, Runtime, Shared, SpawnOptions, Unfinished, UnfinishedFiber,
    interrupted_fiber, with_driver, worker_index,
};
pub use scope::{ScopeFace, Spawner, scope, try_scope};
pub use select::{
    Arm, IoOperation, Operation, Order, ThreadWait, Timer, Watched, select, try_select,
};
pub use spawn::{LocalJoin, spawn, spawn_local, spawn_on};
pub use strands_fiber::stack::GuardKind;
pub use task::{Header, Join, JoinOperation, TaskRef};
pub use token::{CancelReason, CancelToken, OnCancel, TokenOperation};
pub use unblock::unblock;
pub use wait_queue::{Locked, Place, Seen, WaitQueue, Waiter};
pub use watch::{Cycle, Stall, Standstill, Trouble, on_trouble};
