//! What is counted, and what was found wrong.
//!
//! One epoch runs at a time, so the books are statics: whatever runs anywhere in the process, in a
//! destructor or in the panic hook too, writes into them and carries nothing around. An epoch looks
//! at what it added, when all that belongs to it has ended.

use std::fmt::Display;
use std::panic::Location;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Mutex, PoisonError};

macro_rules! counts {
    ($($count:ident $name:literal,)*) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Count { $($count,)* }

        /// What each of [`Count`] is called in a report, in its order.
        pub const NAMES: &[&str] = &[$($name,)*];
    };
}

counts! {
    Begun "parties begun",
    Returned "returned",
    Panicked "panicked",
    Cancelled "cancelled",
    Unstarted "cancelled before they started",
    Refused "spawns refused",
    Joined "joined",
    Episodes "episodes",
    Scopes "scopes",
    Minted "messages made",
    Received "messages received",
    Lost "messages dropped unreceived",
    Locks "locks taken",
    Waits "waits for conditions",
    Connections "connections",
    Bytes "bytes echoed",
    Timers "timers run out",
    Unparked "unparked",
    Unblocked "closures unblocked",
    PanicsInDrop "panics of destructors",
    Runtimes "inner runtimes",
}

static COUNTS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];
static VIOLATIONS: AtomicU64 = AtomicU64::new(0);

/// Adds one.
pub fn count(what: Count) {
    add(what, 1);
}

/// Adds `number`.
pub fn add(what: Count, number: u64) {
    COUNTS[what as usize].fetch_add(number, Relaxed);
}

/// All counts at one time, or the difference between two times.
#[derive(Debug, Clone)]
pub struct Page(Vec<u64>);

impl Page {
    /// What has been counted so far.
    pub fn now() -> Page {
        Page(COUNTS.iter().map(|count| count.load(SeqCst)).collect())
    }

    /// What has been counted since `earlier`.
    pub fn since(&self, earlier: &Page) -> Page {
        Page(self.0.iter().zip(&earlier.0).map(|(now, then)| now - then).collect())
    }

    /// One count.
    pub fn of(&self, what: Count) -> u64 {
        self.0[what as usize]
    }

    /// The sum: it grows as long as anything goes on.
    pub fn progress(&self) -> u64 {
        self.0.iter().sum()
    }

    /// A line for each count.
    pub fn table(&self) -> String {
        let line = |(name, count): (&&str, &u64)| format!("  {:>15}  {name}\n", grouped(*count));
        NAMES.iter().zip(&self.0).map(line).collect()
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Says what is wrong. The run goes on to the end of its epoch, as more may be learned, and fails.
#[track_caller]
pub fn violation(what: impl Display) {
    const FROM_ONE_PLACE: usize = 5;
    static PLACES: Mutex<Vec<&'static Location<'static>>> = Mutex::new(Vec::new());
    let at = Location::caller();
    VIOLATIONS.fetch_add(1, SeqCst);
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let before = places.iter().filter(|place| **place == at).count();
    if before < FROM_ONE_PLACE {
        places.push(at);
        drop(places);
        eprintln!("\nsoak: VIOLATION: {what} (seen at {at})");
    }
}

/// As [`violation`], unless `holds`.
#[track_caller]
pub fn check(holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        violation(what());
    }
}

/// How many violations there were.
pub fn violations() -> u64 {
    VIOLATIONS.load(SeqCst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn a_page_is_what_was_added_meanwhile() {
        let before = Page::now();
        add(Count::Bytes, 5);
        let page = Page::now().since(&before);
        assert!(page.of(Count::Bytes) >= 5);
        assert!(page.table().contains("bytes echoed"));
    }
}
