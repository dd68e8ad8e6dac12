//! A pipeline with back-pressure: stages that are fibers, and bounded channels between them.
//!
//! Run it without arguments: `cargo run --release --example pipeline`. One stage is slow. The table shows how the channels
//! before it fill up, so that the stages before it wait, and memory stays bounded; those behind it are empty.

mod options;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use strands::channel::{self, Receiver, Sender};
use strands::time::{Duration, Instant, interval};

const HELP: &str = "\
Sends numbers through four stages, of which the third is slow.

usage: pipeline [--items N] [--capacity N] [--slow-us N] [--sample-ms N]

  --items N      how many numbers go through (1000)
  --capacity N   how many fit between two stages (16)
  --slow-us N    how long the slow stage takes for each, in microseconds (1000)
  --sample-ms N  how often the queues are looked at (100)
";

#[strands::main]
fn main() -> ExitCode {
    let defaults =
        [("--items", 1000), ("--capacity", 16), ("--slow-us", 1000), ("--sample-ms", 100)];
    let [items, capacity, slow_us, sample_ms] = match options::read("pipeline", HELP, defaults) {
        Ok(numbers) => numbers,
        Err(code) => return code,
    };
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>10}",
        "time", "to square", "to check", "to sum", "done"
    );
    let start = Instant::now();
    let show = |Sample { queues: [first, second, third], done }| {
        let time = format!("{:.2} s", start.elapsed().as_secs_f64());
        println!("{time:>8} {first:>10} {second:>10} {third:>10} {done:>10}");
    };
    let pipeline = Pipeline {
        items,
        capacity: capacity as usize,
        slow: Duration::from_micros(slow_us),
        sample: Duration::from_millis(sample_ms),
    };
    match pipeline.run(show) {
        Ok(sum) => {
            println!(
                "The sum of {items} squares is {sum}, {:.2} s.",
                start.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pipeline: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Pipeline {
    items: u64,
    /// Of each channel.
    capacity: usize,
    /// What the slow stage takes for an item.
    slow: Duration,
    /// Between two looks at the queues.
    sample: Duration,
}

/// How full the channels are, and how many items have come through.
struct Sample {
    queues: [usize; 3],
    done: u64,
}

impl Pipeline {
    /// The sum of the squares. A stage ends when the one before it has, which drops its sender; if one fails,
    /// all are cancelled.
    fn run(&self, show: impl Fn(Sample) + Sync) -> Result<u64, String> {
        let (to_square, numbers) = channel::bounded(self.capacity);
        let (to_check, squares) = channel::bounded(self.capacity);
        let (to_sum, checked) = channel::bounded(self.capacity);
        let queues = [numbers.clone(), squares.clone(), checked.clone()];
        let done = AtomicU64::new(0);

        strands::try_scope(|scope| {
            scope.spawn(|| generate(self.items, to_square));
            scope.spawn(|| square(numbers, to_check));
            scope.spawn(|| check(squares, to_sum, self.slow));
            let sampler = scope.spawn(|| -> Result<(), _> {
                let mut ticks = interval(self.sample);
                loop {
                    ticks.tick();
                    let queues = queues.each_ref().map(Receiver::len);
                    show(Sample { queues, done: done.load(Relaxed) });
                }
            });
            let mut sum = 0;
            for square in checked.iter() {
                sum += square;
                done.fetch_add(1, Relaxed);
            }
            sampler.cancel(); // That is no failure.
            Ok(sum)
        })
    }
}

const GONE: &str = "the stage behind it has gone";

fn generate(items: u64, to: Sender<u64>) -> Result<(), String> {
    (0..items).try_for_each(|number| to.send(number)).map_err(|_| GONE.into())
}

fn square(from: Receiver<u64>, to: Sender<u64>) -> Result<(), String> {
    from.iter().try_for_each(|number| to.send(number * number)).map_err(|_| GONE.into())
}

/// The slow stage.
fn check(from: Receiver<u64>, to: Sender<u64>, time: Duration) -> Result<(), String> {
    for square in from {
        strands::sleep(time);
        if square.isqrt().pow(2) != square {
            return Err(format!("{square} is not a square"));
        }
        to.send(square).map_err(|_| GONE)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[strands::test]
    fn all_goes_through_and_no_queue_is_longer_than_it_may_be() {
        let (looks, full) = (AtomicU64::new(0), AtomicU64::new(0));
        let time = Duration::from_micros(200);
        let pipeline = Pipeline { items: 500, capacity: 4, slow: time, sample: time };
        let sum = pipeline.run(|Sample { queues, done }| {
            looks.fetch_add(1, Relaxed);
            assert!(queues.iter().all(|length| *length <= 4) && done <= 500);
            full.fetch_add(u64::from(queues[0] == 4 && queues[1] == 4), Relaxed);
        });
        assert_eq!(sum, Ok((0..500).map(|n| n * n).sum()));
        assert!(
            looks.into_inner() > 0 && full.into_inner() > 0,
            "the queues before the slow stage fill up"
        );
    }

    #[strands::test]
    fn a_stage_that_fails_ends_all() {
        let (to, from) = channel::bounded(8);
        let (to_sum, checked) = channel::bounded(1);
        [4, 9, 10].into_iter().for_each(|number| to.send(number).unwrap());
        let result = strands::try_scope(|scope| {
            scope.spawn(|| check(from, to_sum, Duration::ZERO));
            Ok(checked.iter().count())
        });
        assert_eq!(result, Err("10 is not a square".into()));
        drop(to);
    }
}
