//! Runs parties against an object, and writes down what they did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use strands_sched::{Runtime, worker_index, yield_now};

use crate::checker::{Event, Model, is_linearizable, shortest};
use crate::common::{Kind, Random, runtime, start, stress};

/// One who uses an object: does an operation and says which, with its result; `None` when it is done.
pub type Party<Op> = Box<dyn FnMut(&mut Random) -> Option<Op> + Send>;

/// Records histories of what `parties` makes, by many seeds, and checks each against all of `models`.
///
/// The parties are a fiber of each of two workers and plain threads, in turn.
pub fn check<M: Model>(models: &[M], parties: impl Fn(&mut Random) -> Vec<Party<M::Op>>)
where
    M::Op: Send + 'static,
{
    if let Some(Failure { seed, model, history }) = smallest_failure(models, 25 * stress(), parties)
    {
        let mut lines = String::new();
        for Event { party, called, returned, op } in history {
            let returned = returned.map_or("…".to_owned(), |returned| returned.to_string());
            lines += &format!("\nparty {party}, {called}–{returned}: {op:?}");
        }
        panic!(
            "seed {seed}: from {model:?} there is no order of this:{lines}\n\
             STRANDS_SEED={seed} begins with this seed"
        );
    }
}

/// A history that does not agree with the model.
pub struct Failure<M: Model> {
    seed: u64,
    model: M,
    pub history: Vec<Event<M::Op>>,
}

/// The smallest failure, if there is one.
pub fn smallest_failure<M: Model>(
    models: &[M],
    histories: usize,
    parties: impl Fn(&mut Random) -> Vec<Party<M::Op>>,
) -> Option<Failure<M>>
where
    M::Op: Send + 'static,
{
    let first = std::env::var("STRANDS_SEED").map_or(1, |seed| seed.parse().unwrap());
    let runtime = runtime(2);
    let mut failures = Vec::new();
    for seed in (first..).take(histories) {
        let history = record(&runtime, seed, parties(&mut Random(seed)));
        for model in models.iter().filter(|model| !is_linearizable(*model, &history)) {
            let history = shortest(model, &history);
            failures.push(Failure { seed, model: model.clone(), history });
        }
    }
    failures.into_iter().min_by_key(|failure| failure.history.len())
}

fn record<Op: Send + 'static>(
    runtime: &Runtime,
    seed: u64,
    parties: Vec<Party<Op>>,
) -> Vec<Event<Op>> {
    let clock = Arc::new(AtomicU64::new(0));
    let to_come = Arc::new(AtomicUsize::new(parties.len()));
    let started: Vec<_> = (0..)
        .zip(parties)
        .map(|(party, mut operate)| {
            let (clock, to_come) = (clock.clone(), to_come.clone());
            let kind = [Kind::Fiber(0), Kind::Fiber(1), Kind::Thread][party % 3];
            start(runtime.shared(), kind, move || {
                let mut random = Random(seed << 8 | party as u64);
                to_come.fetch_sub(1, SeqCst);
                while to_come.load(SeqCst) > 0 {
                    yield_now(); // All at once, or there is little to see.
                }
                let mut events = Vec::new();
                loop {
                    let called = clock.fetch_add(1, SeqCst);
                    let Some(op) = operate(&mut random) else { return events };
                    let returned = Some(clock.fetch_add(1, SeqCst));
                    events.push(Event { party, called, returned, op });
                    // On one worker others run only where somebody waits.
                    if worker_index().is_some() && random.below(2) == 0 {
                        yield_now();
                    }
                }
            })
        })
        .collect();
    started.into_iter().flat_map(|join| join().unwrap()).collect()
}
