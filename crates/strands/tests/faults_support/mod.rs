//! Faults on demand: what the kernel answers to a system call is decided by the test.
//!
//! The code under test is the code that ships: there are no hooks in it. A filter (seccomp) in a
//! child process of the test answers chosen calls with an error, or hands them to a *supervisor*,
//! a thread that counts them and lets each pass or fail. The supervisor is started before the
//! filter is installed, and a filter binds only the thread that installs it and those that this
//! starts later; so the supervisor is free. It allocates nothing, as a thread that it keeps
//! waiting may hold the allocator's lock.
//!
//! A filter cannot be taken away again, hence the child process. No privileges are needed.
//!
//! Turned down: `SIGSYS` and a handler that repeats the call (the filter meets it again), and
//! symbols that shadow libc's (rustix makes system calls of its own).
#![allow(dead_code)]

use std::io::{self, Write};
use std::mem;
use std::ops::RangeBounds;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};

use libc::c_long;

use crate::thread_common::{child, child_case, stress};

/// The reasons for which a test of faults may be skipped.
const SKIPS: [&str; 7] = [
    "this kernel lacks seccomp filters or their notifications (Linux 5.5)",
    "only root can become another user",
    "the user may have no other user's limits here",
    "memory cannot be locked here",
    "this kernel lacks guards by madvise (Linux 6.13)",
    "an emulator runs this program, and has limits, memory and threads of its own",
    "this kernel overcommits memory (`cargo xtask overcommit` changes that for the test)",
];

pub const NO_SECCOMP: &str = SKIPS[0];
pub const NOT_ROOT: &str = SKIPS[1];
pub const NO_LIMITS: &str = SKIPS[2];
pub const NO_LOCK: &str = SKIPS[3];
pub const NO_MADVISE_GUARD: &str = SKIPS[4];
pub const EMULATED: &str = SKIPS[5];
pub const OVERCOMMITS: &str = SKIPS[6];

pub fn skip(test: &str, reason: &'static str) {
    assert!(SKIPS.contains(&reason));
    tell(&format!("SKIPPED {test}: {reason}"));
}

/// Not `eprintln`, which the test harness captures.
#[allow(clippy::explicit_write)]
fn tell(line: &str) {
    writeln!(io::stderr(), "{line}").unwrap();
}

/// Runs `body` in a process of its own, with the text that it wrote to standard error shown if it
/// fails.
pub fn alone(test: &str, body: impl FnOnce()) {
    in_child(test, &["alone"], |_| body());
}

/// Runs `body` for each case, in a process of its own, more often under stress. Returns what each
/// wrote to standard error; in the child, nothing.
pub fn in_child(test: &str, cases: &[&str], body: impl FnOnce(&str)) -> Vec<String> {
    if let Some(case) = child_case() {
        body(&case);
        return Vec::new();
    }
    let run = |case: &&str| {
        // The guard is the best that there is, whatever our own caller forces.
        let output = child(test, case).env_remove("STRANDS_STACK_GUARD").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{case}: {}\n{text}\n{errors}", output.status);
        assert!(text.contains("1 passed"), "{test} is not the name of the test:\n{text}");
        for line in errors.lines().filter(|line| line.starts_with("SKIPPED")) {
            tell(line);
        }
        errors
    };
    cases.iter().cycle().take(cases.len() * stress()).map(run).collect()
}

/// Which calls, and what becomes of them.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    number: c_long,
    /// Only those in which the low half of each of these arguments, under the mask, has the value.
    arguments: [Option<(u32, u32, u32)>; 2],
    verdict: u32,
}

/// All calls of this number. The supervisor decides, unless [`answer`](Rule::answer) does.
pub fn calls(number: c_long) -> Rule {
    Rule { number, arguments: [None; 2], verdict: libc::SECCOMP_RET_USER_NOTIF }
}

impl Rule {
    /// Only calls whose argument `index` (from 0) is `value`.
    pub fn with(self, index: u32, value: i32) -> Rule {
        self.with_bits(index, !0, value as u32)
    }

    /// Only calls whose argument `index` (from 0) has `value` in the bits of `mask`.
    pub fn with_bits(self, index: u32, mask: u32, value: u32) -> Rule {
        Rule { arguments: [Some((index, mask, value)), self.arguments[0]], ..self }
    }

    /// They fail with this error; with 0 they do nothing and say that they did.
    pub fn answer(self, errno: i32) -> Rule {
        Rule { verdict: libc::SECCOMP_RET_ERRNO | errno as u32, ..self }
    }

    /// They pass, whatever later rules say.
    pub fn pass(self) -> Rule {
        Rule { verdict: libc::SECCOMP_RET_ALLOW, ..self }
    }

    /// They end the process.
    pub fn kill(self) -> Rule {
        Rule { verdict: libc::SECCOMP_RET_KILL_PROCESS, ..self }
    }
}

/// Makes the rules hold for this thread and all that it starts from now on, for ever. The first
/// that fits counts.
pub fn forbid(rules: &[Rule]) -> io::Result<()> {
    install(rules, 0).map(drop)
}

/// The calls of the stacks' own memory: no one else asks for mappings of just these kinds.
pub mod stack_calls {
    use super::{Rule, calls};

    pub fn map() -> Rule {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        calls(libc::SYS_mmap).with(3, flags)
    }

    pub fn guard_by_madvise() -> Rule {
        calls(libc::SYS_madvise).with(2, 102)
    }

    pub fn guard_by_mprotect() -> Rule {
        let two_pages = 2 * rustix::param::page_size() as i32;
        calls(libc::SYS_mprotect).with(1, two_pages).with(2, libc::PROT_NONE)
    }

    pub fn discard() -> Rule {
        calls(libc::SYS_madvise).with(2, libc::MADV_DONTNEED)
    }

    pub fn no_huge_pages() -> Rule {
        calls(libc::SYS_madvise).with(2, libc::MADV_NOHUGEPAGE)
    }

    pub fn unmap() -> Rule {
        calls(libc::SYS_munmap)
    }
}

/// Calls that fail when the test says so.
pub struct Supervisor {
    /// The calls since [`fail`](Self::fail) was called, those of them that failed, which shall
    /// fail, and how.
    seen: AtomicU64,
    failed: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    errno: AtomicI32,
    listener: AtomicI32,
}

impl Supervisor {
    /// Puts the calls of this thread, and of all that it starts from now on, under supervision.
    /// They pass until [`fail`](Self::fail) says otherwise.
    pub fn of(rules: &[Rule]) -> io::Result<&'static Supervisor> {
        let supervisor: &'static Supervisor = Box::leak(Box::new(Supervisor {
            seen: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
            errno: AtomicI32::new(0),
            listener: AtomicI32::new(-1),
        }));
        let (starts, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            starts.send(()).unwrap();
            drop(starts);
            supervisor.run()
        });
        // AddressSanitizer lets no thread begin while another is being made, which may wait for us.
        started.recv().unwrap();
        let listener = install(rules, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
        // From here on our own calls may wait for the supervisor.
        supervisor.listener.store(listener, SeqCst);
        thread.thread().unpark();
        Ok(supervisor)
    }

    /// From now on, the calls with these numbers (the next is 1) fail with `errno`.
    pub fn fail(&self, which: impl RangeBounds<u64>, errno: i32) {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        self.stop();
        self.errno.store(errno, SeqCst);
        self.seen.store(0, SeqCst);
        self.failed.store(0, SeqCst);
        self.first.store(
            match which.start_bound() {
                Included(first) => *first,
                Excluded(before) => before + 1,
                Unbounded => 1,
            },
            SeqCst,
        );
        self.last.store(
            match which.end_bound() {
                Included(last) => *last,
                Excluded(after) => after - 1,
                Unbounded => u64::MAX,
            },
            SeqCst,
        );
    }

    /// From now on all calls pass.
    pub fn stop(&self) {
        self.last.store(0, SeqCst);
    }

    /// The calls since [`fail`](Self::fail).
    pub fn seen(&self) -> u64 {
        self.seen.load(SeqCst)
    }

    /// Those that failed since [`fail`](Self::fail).
    pub fn failed(&self) -> u64 {
        self.failed.load(SeqCst)
    }

    /// Allocates nothing, and takes no locks.
    fn run(&self) {
        let listener: RawFd = loop {
            match self.listener.load(SeqCst) {
                -1 => std::thread::park(),
                listener => break listener,
            }
        };
        loop {
            // SAFETY: all zero is a value of this type.
            let mut call: libc::seccomp_notif = unsafe { mem::zeroed() };
            // SAFETY: `call` has room for what the kernel writes.
            if unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0
            {
                continue; // A signal, or the caller was killed.
            }
            let number = self.seen.fetch_add(1, SeqCst) + 1;
            let fails = (self.first.load(SeqCst)..=self.last.load(SeqCst)).contains(&number);
            self.failed.fetch_add(u64::from(fails), SeqCst);
            let mut answer = libc::seccomp_notif_resp {
                id: call.id,
                val: 0,
                error: if fails { -self.errno.load(SeqCst) } else { 0 },
                flags: if fails { 0 } else { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 },
            };
            // It fails if the caller has gone meanwhile.
            // SAFETY: `answer` is what the kernel reads.
            unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
        }
    }
}

fn install(rules: &[Rule], flags: libc::c_ulong) -> io::Result<i32> {
    let mut steps = Vec::new();
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let unless =
        |value, skipped| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skipped, value);
    let end = |verdict| step(libc::BPF_RET | libc::BPF_K, 0, 0, verdict);
    for rule in rules {
        let arguments = rule.arguments.iter().flatten();
        // How many steps are left to skip, if this rule does not fit.
        let mut left = 1 + 3 * arguments.clone().count() as u8;
        steps.push(load(mem::offset_of!(libc::seccomp_data, nr) as u32));
        steps.push(unless(rule.number as u32, left));
        for &(index, mask, value) in arguments {
            left -= 3;
            let low_half = if cfg!(target_endian = "big") { 4 } else { 0 };
            let args = mem::offset_of!(libc::seccomp_data, args) as u32;
            steps.push(load(args + 8 * index + low_half));
            steps.push(step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask));
            steps.push(unless(value, left));
        }
        steps.push(end(rule.verdict));
    }
    steps.push(end(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program is valid during the calls.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        let install = libc::SECCOMP_SET_MODE_FILTER;
        libc::syscall(libc::SYS_seccomp, install, flags, &raw const program)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Sets a soft limit; the hard one stays.
pub fn limit(resource: rustix::process::Resource, soft: u64) {
    use rustix::process::{Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: Some(soft), maximum }).unwrap();
}

/// Makes this process that of a user without privileges.
pub fn become_nobody() {
    // SAFETY: plain calls.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(65534), 0);
        assert_eq!(libc::setuid(65534), 0);
    }
}

/// Whether an emulator runs this program: see `thread_common::this_program`.
pub fn is_emulated() -> bool {
    std::env::var_os("STRANDS_TEST_RUNNER").is_some()
}

pub fn is_root() -> bool {
    // SAFETY: plain call.
    unsafe { libc::geteuid() == 0 }
}
