//! What parties do. Each function is one episode, for a fiber and a plain thread alike.
//!
//! An episode ends by itself, soon, as long as all who take part in it run; and it ends also if any
//! of them is cancelled or refused, wherever that meets it. So whoever leaves something that others
//! wait for says so in a destructor.

mod locking;
mod looking;
mod messaging;
mod panicking;
mod scoping;
mod shutting;
mod sockets;
mod spawning;
mod timing;
mod unblocking;

use crate::party::Party;

/// One kind of episode.
pub struct Activity {
    /// For names and reports.
    pub name: &'static str,
    /// How often it is chosen, relative to the others.
    pub weight: u32,
    /// One episode.
    pub run: fn(&mut Party),
}

/// All of them.
pub const ACTIVITIES: &[Activity] = &[
    Activity { name: "spawn a tree", weight: 8, run: spawning::tree },
    Activity { name: "spawn locally", weight: 4, run: spawning::local },
    Activity { name: "scope", weight: 8, run: scoping::borrow },
    Activity { name: "run elsewhere", weight: 3, run: scoping::run_elsewhere },
    Activity { name: "channel", weight: 10, run: messaging::channel },
    Activity { name: "ping-pong", weight: 5, run: messaging::ping_pong },
    Activity { name: "counter", weight: 8, run: locking::counter },
    Activity { name: "buffer", weight: 8, run: locking::buffer },
    Activity { name: "echo", weight: 8, run: sockets::echo },
    Activity { name: "sleep", weight: 6, run: timing::sleep },
    Activity { name: "time out", weight: 6, run: timing::time_out },
    Activity { name: "park", weight: 6, run: timing::park },
    Activity { name: "panic", weight: 6, run: panicking::unwind },
    Activity { name: "panic in drop", weight: 4, run: panicking::in_drop },
    Activity { name: "unblock", weight: 5, run: unblocking::unblock },
    Activity { name: "inner runtime", weight: 1, run: shutting::inner_runtime },
    Activity { name: "dump", weight: 1, run: looking::look },
    Activity { name: "uncancellable", weight: 4, run: shutting::uncancellable_steps },
];
