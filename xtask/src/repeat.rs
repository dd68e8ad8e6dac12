//! `cargo xtask stress` and `cargo xtask repeat`: races show themselves to those who ask often.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::command::{Cmd, Ended, Failure, Outcome};
use crate::workspace::{TestBinary, build_tests, root};

/// Runs all tests with `STRANDS_STRESS=N`, which makes the stress tests N times as long. What
/// follows N goes to `cargo test`.
pub fn stress(args: Vec<String>) -> Outcome {
    let (factor, rest) = leading_number(&args, 10);
    let cmd = Cmd::new(&root(), "cargo", "test --workspace");
    let cmd = rest.iter().fold(cmd, |cmd, arg| cmd.arg(arg));
    cmd.env("STRANDS_STRESS", factor.to_string()).run_tests()
}

/// Builds once, then runs the tests that match N times. Stops at the first failure and prints its
/// output.
pub fn run(args: Vec<String>) -> Outcome {
    let options = parse(&args).map_err(Failure::DidNotRun)?;
    let root = root();
    let cmd = Cmd::new(&root, "cargo", "test");
    let cmd = match &options.package {
        Some(package) => cmd.arg("-p").arg(package),
        None => cmd.arg("--workspace"),
    };
    let cmd = if options.release { cmd.arg("--release") } else { cmd };
    let mut matching = Vec::new();
    for binary in build_tests(cmd, None)? {
        let mut tests = binary.tests()?;
        tests.retain(|test| options.filters.iter().any(|filter| test.contains(filter.as_str())));
        if !tests.is_empty() {
            println!("{}: {}", binary.target, tests.join(", "));
            matching.push(binary);
        }
    }
    if matching.is_empty() {
        let filters = options.filters.join(" ");
        return Err(Failure::DidNotRun(format!("no test matches {filters}")));
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if options.busy {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            println!("(with {cores} threads that spin beside it)");
            for _ in 0..cores {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
        }
        let outcome = rounds(&options, &matching);
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

fn rounds(options: &Options, binaries: &[TestBinary]) -> Outcome {
    let log = std::env::temp_dir().join(format!("xtask-repeat-{}.log", std::process::id()));
    let start = Instant::now();
    let mut told = start;
    for round in 1..=options.count {
        for binary in binaries {
            let cmd = options.filters.iter().fold(binary.cmd(), |cmd, filter| cmd.arg(filter));
            let how = match cmd.run_logged(&log, options.timeout)? {
                Ended::Exited(status) if status.success() => continue,
                Ended::Exited(status) => status.to_string(),
                Ended::TimedOut => format!("no end after {} s", options.timeout.as_secs()),
            };
            let output = std::fs::read(&log).unwrap_or_default();
            println!("{}", String::from_utf8_lossy(&output));
            return Err(Failure::Failed(format!(
                "run {round} of {}: {how}\n$ {cmd}\nits output is above, and in {}",
                options.count,
                log.display()
            )));
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            println!("run {round} of {}, {:.0} s", options.count, start.elapsed().as_secs_f64());
        }
    }
    // The last log is of a run that passed; nobody reads it.
    let _ = std::fs::remove_file(&log);
    println!("{} runs passed in {:.1} s", options.count, start.elapsed().as_secs_f64());
    Ok(())
}

#[derive(Debug, PartialEq)]
struct Options {
    count: u64,
    filters: Vec<String>,
    package: Option<String>,
    release: bool,
    busy: bool,
    /// For one run of one binary.
    timeout: Duration,
}

fn parse(args: &[String]) -> Result<Options, String> {
    let (count, rest) = leading_number(args, 1000);
    let mut options = Options {
        count,
        filters: Vec::new(),
        package: None,
        release: false,
        busy: false,
        timeout: Duration::from_secs(120),
    };
    let mut rest = rest.iter();
    while let Some(arg) = rest.next() {
        match &**arg {
            "--busy" => options.busy = true,
            "--release" => options.release = true,
            "-p" => options.package = Some(rest.next().ok_or("-p wants a crate")?.clone()),
            "--timeout" => {
                let seconds = rest.next().and_then(|value| value.parse().ok());
                options.timeout = Duration::from_secs(seconds.ok_or("--timeout wants seconds")?);
            }
            flag if flag.starts_with('-') => return Err(format!("unknown flag `{flag}`")),
            filter => options.filters.push(filter.to_owned()),
        }
    }
    if options.filters.is_empty() {
        return Err("repeat wants a part of a test's name; to run all: cargo xtask stress".into());
    }
    Ok(options)
}

/// The number at the start of `args`, or `default`, and what follows it.
fn leading_number(args: &[String], default: u64) -> (u64, &[String]) {
    match args.split_first() {
        Some((first, rest)) if first.parse::<u64>().is_ok() => {
            (first.parse().unwrap_or(default), rest)
        }
        _ => (default, args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_number_is_optional() {
        let options = parse(&words("wakes --busy sleeps -p strands --timeout 5")).unwrap();
        assert_eq!((options.count, options.busy, options.release), (1000, true, false));
        assert_eq!(options.filters, ["wakes", "sleeps"]);
        assert_eq!(options.package.as_deref(), Some("strands"));
        assert_eq!(options.timeout, Duration::from_secs(5));
        assert_eq!(parse(&words("20 wakes")).unwrap().count, 20);
    }

    #[test]
    fn a_repeat_without_a_filter_is_refused() {
        assert!(parse(&words("20")).is_err());
        assert!(parse(&words("wakes --bsy")).is_err());
        assert!(parse(&words("wakes --timeout soon")).is_err());
    }

    #[test]
    fn what_follows_the_number_is_kept() {
        assert_eq!(leading_number(&words("3 -p x"), 10), (3, &words("-p x")[..]));
        assert_eq!(leading_number(&words("-p x"), 10), (10, &words("-p x")[..]));
    }
}
