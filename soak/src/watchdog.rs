//! Notices that nothing goes on any more, says what it knows, and ends the process.

use std::process::{self, Command};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use crate::books::Page;
use crate::options::Options;
use crate::party::{self, LIVE, OVER, RUNTIME, STOPPING};

/// The epoch that runs.
pub static EPOCH: AtomicU64 = AtomicU64::new(0);
static OPTIONS: OnceLock<Options> = OnceLock::new();

/// Starts to watch.
pub fn start(options: &Options) {
    OPTIONS.get_or_init(|| options.clone());
    let stall = options.stall;
    let watch = move || {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            thread::sleep(Duration::from_secs(1));
            let progress = Page::now().progress() + EPOCH.load(SeqCst);
            if progress != seen {
                (seen, since) = (progress, Instant::now());
            } else if since.elapsed() > stall {
                give_up(&format!("nothing has happened for {} s", stall.as_secs()));
            }
        }
    };
    let thread = thread::Builder::new().name("soak-watchdog".into()).spawn(watch);
    thread.expect("a thread can be started");
}

/// Says `why` and everything else that is known, and aborts.
pub fn give_up(why: &str) -> ! {
    let epoch = EPOCH.load(SeqCst);
    eprintln!("\nsoak: STALL in epoch {epoch}: {why}");
    if let Some(options) = OPTIONS.get() {
        eprintln!("to repeat it: {}", options.command(epoch));
    }
    let (live, over, stopping) = (LIVE.load(SeqCst), OVER.load(SeqCst), STOPPING.load(SeqCst));
    eprintln!("{live} parties live; over: {over}, stopping: {stopping}");
    for (id, (activity, home)) in party::roll().iter().take(100) {
        eprintln!("  party {id} in `{activity}`, home: {home:?}");
    }
    eprintln!("counts of all epochs:\n{}", Page::now().table());
    print_threads();
    // After the threads, as it disturbs them: it cancels all fibers, and waits for none.
    let runtime = RUNTIME.try_write().ok().and_then(|mut runtime| runtime.take());
    match runtime {
        Some(runtime) => {
            eprintln!("{}", runtime.describe());
            match runtime.shutdown_timeout(Duration::ZERO) {
                Ok(()) => eprintln!("it has no fibers"),
                Err(unfinished) => eprintln!("{unfinished}"),
            }
        }
        None => eprintln!("the runtime is being shut down, or used by a thread"),
    }
    process::abort();
}

/// The stacks of all threads, if there is a debugger; else what the kernel says of each.
fn print_threads() {
    let gdb = Command::new("timeout")
        .args(["60", "gdb", "-batch", "-nx", "-ex", "thread apply all backtrace 14", "-p"])
        .arg(process::id().to_string())
        .output();
    match gdb {
        Ok(output) if output.status.success() => {
            eprintln!("{}", String::from_utf8_lossy(&output.stdout));
        }
        _ => print_wait_channels(),
    }
}

fn print_wait_channels() {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return };
    for task in tasks.flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let (name, channel, system_call) = (read("comm"), read("wchan"), read("syscall"));
        eprintln!("thread {:<16} in {channel}, system call {}", name.trim(), system_call.trim());
    }
}
