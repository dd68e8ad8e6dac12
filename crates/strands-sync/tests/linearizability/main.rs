//! Channels and locks are linearizable: whatever they did beside each other they could have done one
//! after the other.
//!
//! Fibers of two workers and plain threads use one object; each operation is written down with its result, and with
//! stamps from before its call and after its return. [`checker`] then looks for an order of the
//! operations that agrees with the stamps and in which a sequential [model](models) of the object gives these
//! results. Calls are made by a seed, which a failure names; the interleaving is the machine's. `STRANDS_SEED=N`
//! begins with that seed, and `STRANDS_STRESS` multiplies the histories.

mod checker;
#[path = "../common/mod.rs"]
mod common;
mod models;
mod objects;
mod planted;
mod record;
