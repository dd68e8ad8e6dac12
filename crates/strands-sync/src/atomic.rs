//! Atomics: std's, or loom's under `--cfg loom`, so that the models check the code that ships.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32};

pub(crate) use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
