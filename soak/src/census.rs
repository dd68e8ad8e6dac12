//! What the process holds: descriptors, threads, stacks, memory. Read from /proc, which knows.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::books::{check, violation};

/// What ends on its own time (threads, their stacks) has so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wake descriptors of plain threads that strands keeps for the next who waits.
const KEPT_WAKE_DESCRIPTORS: usize = 64;
/// What memory may grow beyond that of the first epochs: the allocator keeps what threads freed,
/// and how much depends on which of them met. A leak of a hundred bytes a fiber passes it within a
/// minute.
const MEMORY_ALLOWANCE_KIB: u64 = 64 * 1024;

type Tally = BTreeMap<String, usize>;

/// What there was before the first epoch.
pub struct Census {
    descriptors: Tally,
    threads: Tally,
    /// The most after any of the first epochs.
    memory_kib: u64,
}

impl Census {
    /// Counts.
    pub fn take() -> Census {
        Census { descriptors: descriptors(), threads: threads(), memory_kib: 0 }
    }

    /// Compares with now, when an epoch has ended. Threads are still on their way out for a moment
    /// after they were joined.
    pub fn compare(&mut self, epochs: u64) {
        // By number: a thread gets its name only after it has started.
        let count = |threads: &Tally| threads.values().sum::<usize>();
        let same_threads = eventually(|| count(&threads()) == count(&self.threads));
        check(same_threads, || format!("threads: {:?}, before {:?}", threads(), self.threads));
        let same_descriptors = eventually(|| self.allows(&descriptors()));
        check(same_descriptors, || {
            format!("descriptors: {:?}, before {:?}", descriptors(), self.descriptors)
        });
        let memory_kib = resident_kib();
        if epochs <= 3 {
            self.memory_kib = self.memory_kib.max(memory_kib);
        } else if memory_kib > self.memory_kib + MEMORY_ALLOWANCE_KIB {
            let before = self.memory_kib;
            violation(format_args!("{memory_kib} KiB are resident; in the beginning {before}"));
        }
    }

    /// All fibers have ended, so the default runtime gives its stacks back too.
    pub fn expect_no_stacks(&self) {
        let none = eventually(|| strands_fiber::stack::mapped_stacks() == 0);
        check(none, || {
            format!("{} stacks are mapped and nobody runs", strands_fiber::stack::mapped_stacks())
        });
    }

    fn allows(&self, now: &Tally) -> bool {
        let wake = |kind: &&String| kind.contains("eventfd");
        let of = |tally: &Tally, kind: &String| tally.get(kind).copied().unwrap_or(0);
        let mut kinds = self.descriptors.keys().chain(now.keys());
        kinds.all(|kind| {
            let (before, now) = (of(&self.descriptors, kind), of(now, kind));
            if wake(&kind) { now <= before + KEPT_WAKE_DESCRIPTORS } else { now == before }
        })
    }
}

fn eventually(holds: impl Fn() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Open descriptors by kind: what the link says up to the first `:`, the whole of it for
/// `anon_inode:[…]`, "file" for paths.
fn descriptors() -> Tally {
    let mut tally = Tally::new();
    for entry in fs::read_dir("/proc/self/fd").expect("/proc is there") {
        // The descriptor of this very listing is gone when it is looked at outside the loop only.
        let Ok(link) = entry.and_then(|entry| fs::read_link(entry.path())) else { continue };
        let link = link.to_string_lossy();
        let kind = match link.split_once(':') {
            Some(("anon_inode", _)) => &link,
            Some((kind, _)) => kind,
            None => "file",
        };
        *tally.entry(kind.to_owned()).or_default() += 1;
    }
    tally
}

/// Threads by name, but for those of the default runtime's pool, which end when they are idle.
fn threads() -> Tally {
    let mut tally = Tally::new();
    for entry in fs::read_dir("/proc/self/task").expect("/proc is there") {
        // It may have ended meanwhile.
        let Ok(entry) = entry else { continue };
        let Ok(name) = fs::read_to_string(entry.path().join("comm")) else { continue };
        if !name.starts_with("strands-block") {
            *tally.entry(name.trim().to_owned()).or_default() += 1;
        }
    }
    tally
}

/// Resident memory, in KiB.
pub fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("a process has resident memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_noticed_and_a_wake_descriptor_allowed() {
        let census = Census::take();
        let mut now = census.descriptors.clone();
        assert!(census.allows(&now));
        *now.entry("anon_inode:[eventfd]".into()).or_default() += 1;
        assert!(census.allows(&now));
        *now.entry("socket".into()).or_default() += 1;
        assert!(!census.allows(&now));
        assert!(resident_kib() > 0);
    }
}
