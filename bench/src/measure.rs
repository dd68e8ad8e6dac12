//! What a measurement reads: clocks, CPU time, memory, latencies.
//!
//! One measurement is one process, so the process-wide counters of the kernel are the counters of
//! the measurement: no allocator, stack pool or branch predictor carries anything over from the
//! program measured before.

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

/// The result of one measurement: named figures, in the units that the case's rows state.
pub struct Figures(Vec<(&'static str, f64)>);

impl Figures {
    pub fn new() -> Figures {
        Figures(Vec::new())
    }

    pub fn with(mut self, name: &'static str, value: f64) -> Figures {
        self.0.push((name, value));
        self
    }

    /// `name=value` pairs, separated by spaces: what xtask reads.
    pub fn line(&self) -> String {
        let mut line = String::new();
        for (name, value) in &self.0 {
            let _ = write!(line, " {name}={value:.4}");
        }
        line
    }
}

/// CPU and wall time from `start` on.
pub struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch { cpu: process_cpu(), wall: Instant::now() }
    }

    /// Nanoseconds per operation, on the wall (`wall`) and summed over all cores (`cpu`).
    pub fn per_op(&self, ops: u64) -> Figures {
        let wall = self.wall.elapsed();
        let cpu = process_cpu().saturating_sub(self.cpu);
        let usage = resource_usage();
        Figures::new()
            .with("wall", wall.as_nanos() as f64 / ops as f64)
            .with("cpu", cpu.as_nanos() as f64 / ops as f64)
            .with("ops", ops as f64)
            .with("total_ms", wall.as_secs_f64() * 1e3)
            .with("process_cpu_ms", process_cpu().as_secs_f64() * 1e3)
            .with("voluntary_switches", usage.ru_nvcsw as f64)
            .with("involuntary_switches", usage.ru_nivcsw as f64)
    }
}

/// Counts operations for as long as a budget of time lasts, after a tenth of it as warm-up.
///
/// A loop of `while meter.more() { a chunk of operations; meter.add(n) }` reads the same in a
/// thread, a fiber and a future, and gives every peer the same time, however slow.
pub struct Meter {
    budget: Duration,
    deadline: Instant,
    warm: bool,
    ops: u64,
    watch: Stopwatch,
}

impl Meter {
    pub fn start(budget: Duration) -> Meter {
        let watch = Stopwatch::start();
        Meter { budget, deadline: watch.wall + budget / 10, warm: false, ops: 0, watch }
    }

    /// Whether another chunk is wanted.
    #[inline]
    pub fn more(&mut self) -> bool {
        if self.ops == 0 || Instant::now() < self.deadline {
            return true;
        }
        if self.warm {
            return false;
        }
        self.warm = true;
        self.ops = 0;
        self.watch = Stopwatch::start();
        self.deadline = self.watch.wall + self.budget;
        true
    }

    #[inline]
    pub fn add(&mut self, ops: u64) {
        self.ops += ops;
    }

    pub fn per_op(&self) -> Figures {
        self.watch.per_op(self.ops)
    }
}

/// CPU time of all threads of this process, to the nanosecond.
pub fn process_cpu() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of all threads of another process, to the nanosecond.
pub fn cpu_of(pid: u32) -> Duration {
    let mut id = 0;
    // SAFETY: `id` is a valid place for the clock's id.
    let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut id) };
    assert_eq!(error, 0, "no CPU clock for process {pid}: has the server died?");
    clock(id)
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the clock's reading.
    let status = unsafe { libc::clock_gettime(id, &mut time) };
    assert_eq!(status, 0, "clock {id} cannot be read");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resource_usage() -> libc::rusage {
    // SAFETY: all zeroes are a valid `rusage`: it holds nothing but integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid place for the result.
    let status = unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    assert_eq!(status, 0, "getrusage of this process failed");
    usage
}

/// What this process makes the kernel hold, in bytes.
pub struct Memory {
    /// Resident pages. Exact: from `smaps_rollup`, which walks the page tables; `VmRSS` is a sum of
    /// lagging counters.
    pub resident: u64,
    /// Page tables: at a million stacks, spread wide, these count.
    pub page_tables: u64,
    /// Kernel stacks of all processes: only its growth while this process starts threads says
    /// something.
    pub kernel_stacks: u64,
}

impl Memory {
    pub fn now() -> Memory {
        Memory {
            resident: kib("/proc/self/smaps_rollup", "Rss:"),
            page_tables: kib("/proc/self/status", "VmPTE:"),
            kernel_stacks: kib("/proc/meminfo", "KernelStack:"),
        }
    }
}

fn kib(file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let line = line.unwrap_or_else(|| panic!("{file} has no field {field}"));
    let number = line.trim().trim_end_matches(" kB");
    number.parse::<u64>().unwrap_or_else(|_| panic!("{file}: {field} is not a number: {line}"))
        * 1024
}

/// Waits until this process has used next to no CPU for a while: everything that was started now
/// waits.
pub fn wait_until_idle() {
    loop {
        let before = process_cpu();
        std::thread::sleep(Duration::from_millis(50));
        if process_cpu() - before < Duration::from_millis(1) {
            return;
        }
    }
}

/// Latencies in buckets of a thirty-second of an octave: quantiles to within 3 %, at a few
/// nanoseconds a sample.
pub struct Latencies {
    buckets: Vec<u64>,
    samples: u64,
}

impl Latencies {
    const STEPS: u64 = 32;

    pub fn new() -> Latencies {
        Latencies { buckets: vec![0; 64 * Latencies::STEPS as usize], samples: 0 }
    }

    pub fn record(&mut self, latency_ns: u64) {
        let latency_ns = latency_ns.max(Latencies::STEPS);
        let octave = u64::from(latency_ns.ilog2());
        let step =
            (latency_ns >> (octave - u64::from(Latencies::STEPS.ilog2()))) % Latencies::STEPS;
        self.buckets[(octave * Latencies::STEPS + step) as usize] += 1;
        self.samples += 1;
    }

    /// The latency in nanoseconds that a share `q` of the samples does not exceed.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (self.samples as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (index, count) in (0u64..).zip(&self.buckets) {
            seen += count;
            if seen >= rank && *count > 0 {
                let (octave, step) = (index / Latencies::STEPS, index % Latencies::STEPS);
                return 2f64.powi(octave as i32)
                    * (1.0 + (step + 1) as f64 / Latencies::STEPS as f64);
            }
        }
        0.0
    }
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    // SAFETY: all zeroes are the empty `cpu_set_t`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid place of the size passed.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    assert_eq!(status, 0, "the affinity of this process cannot be read");
    // SAFETY: every index is below CPU_SETSIZE, so within `set`.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// Pins this thread, and every thread that it will start, to one core.
pub fn pin(core: usize) {
    // SAFETY: all zeroes are the empty `cpu_set_t`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` comes from `cores`, so is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a valid set of the size passed.
    let status = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    assert_eq!(status, 0, "cannot pin to core {core}");
}

/// Makes this process a fair and bounded subject.
///
/// A session of its own, with a raised autogroup where that is allowed: else a neighbour's compiler
/// takes half of the core, whatever `nice` says. It dies with its parent, and by SIGALRM after
/// `limit_s`. It may open as many files as the hard limit allows.
pub fn settle(limit_s: u32) {
    // SAFETY: these calls take no pointers. `setsid` may fail (a group leader): then the session
    // stays as it is.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setsid();
        libc::alarm(limit_s);
    }
    let _ = fs::write("/proc/self/autogroup", "-10");

    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0 {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid limit.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    }
}
