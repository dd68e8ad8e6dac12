//! The reactor of strands: turns an I/O operation into park and result.
//!
//! Read in this order: [`op`](Source::perform) (the shape of every operation: try, enrol, park,
//! retry), `source` (a descriptor with its waiters, and the races that could lose one), `slot`
//! (where the waiters are kept, so that a late event finds nothing instead of freed memory),
//! `reactor` (what a worker waits in), `backend` (the operating system's interface to all this),
//! `select` (readiness as one of several operations), `thread_wait` (how plain threads wait), `backend/fork` (why a forked child must not).

mod backend;
mod descriptor;
mod op;
mod reactor;
mod select;
mod slot;
mod source;
mod thread_wait;

pub use op::{First, Limit, Request};
pub use reactor::{Backend, driver_factory};
pub use select::ReadyOperation;
pub use slot::Direction;
pub use source::Source;
