use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What the wheel should do, as an ordered map.
struct Model {
    wheel: Wheel<u64>,
    /// The latest time of an `advance`.
    now_ns: u64,
    /// (tick at which it is due, number): in the order of firing.
    armed: BTreeMap<(u64, u64), TimerKey>,
    fired: Vec<TimerKey>,
    /// Number of the next entry.
    inserted: u64,
    /// Entries removed since `next_deadline` was last known to be exact.
    removed: u64,
}

impl Model {
    fn new(now_ns: u64) -> Self {
        Self {
            wheel: Wheel::new(now_ns),
            now_ns,
            armed: BTreeMap::new(),
            fired: Vec::new(),
            inserted: 0,
            removed: 0,
        }
    }

    fn insert(&mut self, deadline_ns: u64) {
        let number = self.inserted;
        self.inserted += 1;
        let key = self.wheel.insert(deadline_ns, number);
        assert!(!self.wheel.fired(&key));
        let tick = if deadline_ns <= self.now_ns {
            self.now_ns / TICK_NS
        } else {
            deadline_ns.div_ceil(TICK_NS)
        };
        assert!(self.armed.insert((tick, number), key).is_none());
    }

    fn remove_armed(&mut self, choice: usize) {
        let Some(&place) = self.armed.keys().nth(choice % self.armed.len().max(1)) else {
            return;
        };
        let key = self.armed.remove(&place).unwrap();
        assert!(self.wheel.remove(key), "removed before it fired");
        self.removed += 1;
    }

    fn remove_fired(&mut self, choice: usize) {
        if !self.fired.is_empty() {
            let key = self.fired.swap_remove(choice % self.fired.len());
            assert!(!self.wheel.remove(key), "removed after it fired");
        }
    }

    fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        let later = self.armed.split_off(&(self.now_ns / TICK_NS + 1, 0));
        let due = std::mem::replace(&mut self.armed, later);
        let mut fired = Vec::new();
        self.wheel.advance(now_ns, |&number| fired.push(number));
        let expected: Vec<u64> = due.keys().map(|&(_, number)| number).collect();
        assert_eq!(fired, expected, "at {now_ns}");
        self.fired.extend(due.into_values());
    }

    /// Follows `next_deadline` until something fires.
    fn advance_to_next(&mut self) {
        let Some(mut next_ns) = self.wheel.next_deadline() else {
            return;
        };
        let armed = self.armed.len();
        loop {
            self.advance(next_ns);
            self.check();
            if self.armed.len() < armed {
                return;
            }
            assert!(self.removed > 0, "woke for nothing, with nothing removed");
            self.removed -= 1;
            let Some(then_ns) = self.wheel.next_deadline() else {
                return;
            };
            assert!(then_ns > next_ns, "no progress");
            next_ns = then_ns;
        }
    }

    fn check(&self) {
        assert_eq!(self.wheel.len(), self.armed.len());
        assert!(self.armed.values().all(|key| !self.wheel.fired(key)));
        assert!(self.fired.iter().all(|key| self.wheel.fired(key)));
        assert_eq!(self.wheel.allocated, self.armed.len() + self.fired.len());

        let earliest = self.armed.first_key_value().map(|(&(tick, _), _)| tick);
        let earliest_ns = earliest.and_then(|tick| tick.checked_mul(TICK_NS));
        let next_ns = self.wheel.next_deadline();
        match earliest_ns {
            Some(earliest_ns) if self.removed > 0 => {
                assert!(next_ns.unwrap() <= earliest_ns, "would wake late");
            }
            Some(_) => assert_eq!(next_ns, earliest_ns),
            // Only a removed entry's time may be left.
            None => assert!(next_ns.is_none() || (self.removed > 0 && !self.armed.is_empty())),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    InsertAfter(u64),
    InsertBefore(u64),
    InsertAt(u64),
    RemoveArmed(usize),
    RemoveFired(usize),
    AdvanceBy(u64),
    AdvanceBack(u64),
    AdvanceToNext,
}

/// Durations of every magnitude, and those around the widths of the levels.
fn duration() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..45u32, any::<u64>()).prop_map(|(bits, noise)| noise & ((1 << bits) - 1)),
        2 => (0..40u32, -1025i64..1026).prop_map(|(bits, off)| (1u64 << bits).saturating_add_signed(off)),
        1 => (0..64u32, any::<u64>()).prop_map(|(bits, noise)| noise >> bits),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => duration().prop_map(Step::InsertAfter),
        1 => duration().prop_map(Step::InsertBefore),
        1 => (0..3000u64).prop_map(|before| Step::InsertAt(u64::MAX - before)),
        4 => any::<usize>().prop_map(Step::RemoveArmed),
        2 => any::<usize>().prop_map(Step::RemoveFired),
        4 => duration().prop_map(Step::AdvanceBy),
        1 => duration().prop_map(Step::AdvanceBack),
        3 => Just(Step::AdvanceToNext),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]
    #[test]
    fn does_what_an_ordered_map_does(start in duration(), steps in prop::collection::vec(step(), 1..150)) {
        let mut model = Model::new(start);
        for step in steps {
            let now_ns = model.now_ns;
            match step {
                Step::InsertAfter(after) => model.insert(now_ns.saturating_add(after)),
                Step::InsertBefore(before) => model.insert(now_ns.saturating_sub(before)),
                Step::InsertAt(deadline_ns) => model.insert(deadline_ns),
                Step::RemoveArmed(choice) => model.remove_armed(choice),
                Step::RemoveFired(choice) => model.remove_fired(choice),
                Step::AdvanceBy(by) => model.advance(now_ns.saturating_add(by)),
                Step::AdvanceBack(by) => model.advance(now_ns.saturating_sub(by)),
                Step::AdvanceToNext => model.advance_to_next(),
            }
            model.check();
        }
        while model.wheel.next_deadline().is_some() {
            model.advance_to_next();
        }
    }
}

/// Exactly one entry: nothing before its tick, then it alone.
fn fires_exactly(start_ns: u64, deadline_ns: u64) {
    let mut wheel = Wheel::new(start_ns);
    let key = wheel.insert(deadline_ns, ());
    let due_ns = deadline_ns.next_multiple_of(TICK_NS);
    assert_eq!(wheel.next_deadline(), Some(due_ns));
    for early_ns in [start_ns, start_ns.midpoint(due_ns), due_ns - 1] {
        wheel.advance(early_ns.min(due_ns - 1), |()| panic!("early"));
    }
    assert_eq!(wheel.next_deadline(), Some(due_ns));
    let mut fired = 0;
    wheel.advance(due_ns, |()| fired += 1);
    assert_eq!((fired, wheel.len(), wheel.next_deadline()), (1, 0, None));
    assert!(wheel.fired(&key));
    wheel.advance(u64::MAX, |()| panic!("twice"));
    assert!(!wheel.remove(key));
}

#[test]
fn the_boundaries_of_every_level() {
    let widths = || (0..9).map(|level| TICK_NS << (6 * level));
    for width_ns in widths() {
        for slots in [1, 2, 63, 64, 65] {
            let Some(boundary_ns) = width_ns.checked_mul(slots) else {
                continue;
            };
            for offset in [-1025, -1024, -1023, -1, 0, 1, 1023, 1024, 1025] {
                let Some(deadline_ns) = boundary_ns.checked_add_signed(offset) else {
                    continue;
                };
                let starts = widths().flat_map(|at_ns| [0, at_ns - 1, at_ns, at_ns + 1]);
                for start_ns in starts.filter(|&start_ns| start_ns < deadline_ns) {
                    fires_exactly(start_ns, deadline_ns);
                }
            }
        }
    }
}

#[test]
fn the_last_tick_is_never() {
    let mut wheel = Wheel::new(0);
    let never = wheel.insert(u64::MAX, "never");
    let hardly = wheel.insert(u64::MAX - 1023, "hardly ever");
    assert_eq!(wheel.next_deadline(), Some(u64::MAX - 1023));
    wheel.advance(u64::MAX - 1024, |_| panic!("early"));
    let mut fired = Vec::new();
    wheel.advance(u64::MAX, |name| fired.push(*name));
    assert_eq!(fired, ["hardly ever"]);
    assert_eq!((wheel.len(), wheel.next_deadline()), (1, None));
    assert!(wheel.remove(never) && !wheel.remove(hardly));
}

#[test]
fn an_overdue_entry_fires_though_time_stands_still_or_goes_back() {
    let mut wheel = Wheel::new(5_500);
    for (deadline_ns, now_ns) in [(5_500, 5_500), (0, 5_500), (5_130, 5_200), (5_500, 0)] {
        let key = wheel.insert(deadline_ns, ());
        assert!(wheel.next_deadline().unwrap() <= 5_500);
        let mut fired = 0;
        wheel.advance(now_ns, |()| fired += 1);
        assert_eq!(fired, 1, "deadline {deadline_ns} at {now_ns}");
        assert!(!wheel.remove(key));
    }
    let _later = wheel.insert(5_501, ());
    for _ in 0..1000 {
        wheel.advance(5_501, |()| panic!("early"));
    }
}

#[test]
fn days_at_a_jump() {
    const DAY_NS: u64 = 86_400_000_000_000;
    let mut model = Model::new(12_345);
    for day in 0..400 {
        for n in 0..50 {
            model.insert(model.now_ns + n * n * n * DAY_NS / 10_000 + n);
        }
        model.advance(12_345 + day * 3 * DAY_NS);
        model.check();
        while !model.fired.is_empty() {
            model.remove_fired(0);
        }
    }
    model.advance(u64::MAX);
    assert_eq!(model.wheel.len(), 0);
}

/// The common life of a time limit: armed far ahead, removed soon, over and over.
#[test]
fn wakes_for_nothing_at_most_once_a_removal() {
    let mut wheel = Wheel::new(0);
    let first = wheel.insert(30_000_000_000, ());
    let _others: Vec<_> =
        (1..1000).map(|n| wheel.insert(30_000_000_000 + n * 1_000_000, ())).collect();
    assert!(wheel.remove(first));
    let mut wakes = 0;
    let mut fired = 0;
    while let Some(next_ns) = wheel.next_deadline() {
        wheel.advance(next_ns, |()| fired += 1);
        wakes += 1;
    }
    assert_eq!((fired, wakes), (999, 999 + 1));
}

#[test]
fn a_million_entries() {
    const ENTRIES: usize = 1_000_000;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut wheel = Wheel::new(0);
    let mut entries: Vec<_> = (0..ENTRIES)
        .map(|n| {
            let deadline_ns = below(1_000_000_000);
            (deadline_ns, Some(wheel.insert(deadline_ns, n)))
        })
        .collect();
    for n in (0..ENTRIES).step_by(3) {
        assert!(wheel.remove(entries[n].1.take().unwrap()));
    }
    assert_eq!(wheel.len(), ENTRIES - ENTRIES.div_ceil(3));

    let (mut now_ns, mut fired, mut last_tick) = (0, 0, 0);
    while wheel.next_deadline().is_some() {
        let before_ns = now_ns;
        now_ns += below(3_000_000);
        wheel.advance(now_ns, |&n| {
            let (deadline_ns, key) = &entries[n];
            let tick = deadline_ns.div_ceil(TICK_NS);
            assert!(key.is_some() && tick >= last_tick);
            assert!(tick <= now_ns / TICK_NS && tick >= before_ns / TICK_NS);
            last_tick = tick;
            fired += 1;
        });
    }
    assert_eq!(fired, ENTRIES - ENTRIES.div_ceil(3));
    for (_, key) in &mut entries {
        assert!(key.take().is_none_or(|key| !wheel.remove(key)));
    }
    assert_eq!(wheel.allocated, 0);
    assert!(wheel.entries.capacity() <= KEEP_ENTRIES);

    // The slab has started afresh.
    let again = [wheel.insert(0, 0), wheel.insert(0, 1)];
    assert_eq!(again, [TimerKey(0), TimerKey(1)]);
}

#[test]
fn an_entry_costs_24_bytes_and_places_are_used_again() {
    assert_eq!(size_of::<Entry<std::ptr::NonNull<u8>>>(), 24);
    let mut wheel = Wheel::new(0);
    for n in 0..10_000 {
        let keys: Vec<_> = (0..10).map(|m| wheel.insert(n * 999 + m * m * 4000, n)).collect();
        wheel.advance(n * 1000, |_| {});
        for key in keys {
            wheel.remove(key);
        }
    }
    assert_eq!((wheel.len(), wheel.allocated, wheel.entries.len()), (0, 0, 10));
}

#[test]
fn payloads_are_dropped_by_remove() {
    let payload = std::rc::Rc::new(());
    let mut wheel = Wheel::new(0);
    let fires = wheel.insert(1, payload.clone());
    let armed = wheel.insert(u64::MAX, payload.clone());
    wheel.advance(5_000, |_| {});
    assert_eq!(std::rc::Rc::strong_count(&payload), 3);
    assert!(!wheel.remove(fires) && wheel.remove(armed));
    assert_eq!(std::rc::Rc::strong_count(&payload), 1);
}

#[test]
fn a_panic_while_firing_loses_nothing() {
    let mut wheel = Wheel::new(0);
    let keys: Vec<_> = (0..6).map(|n| wheel.insert(5_000 + n / 3 * 400_000, n)).collect();
    let mut fired = Vec::new();
    for _ in 0..2 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            wheel.advance(1_000_000, |&n| {
                fired.push(n);
                if n % 3 == 1 {
                    std::panic::resume_unwind(Box::new(n));
                }
            });
        }));
        assert!(panicked.is_err());
    }
    assert_eq!((&fired[..], wheel.len()), (&[0, 1, 2, 3, 4][..], 1));
    wheel.advance(0, |&n| fired.push(n));
    assert_eq!((fired.len(), wheel.len()), (6, 0));
    assert!(keys.into_iter().all(|key| !wheel.remove(key)));
}
