//! `cargo xtask overcommit`: the test of a kernel that accounts for all memory that is mapped.
//!
//! That is a setting of the whole machine (`vm.overcommit_memory=2`), so it is made for the seconds that
//! the test takes, by who has asked for it, and not in CI. What other processes have committed stays theirs,
//! and there is [`ROOM_KB`] beside it for the test; whatever else wants more meanwhile is refused it.

use std::path::Path;

use crate::command::{Cmd, Failure, Outcome};
use crate::workspace::{build_tests, read, root};

const TEST: &str = "strict_accounting_is_an_error_that_names_it";
const ROOM_KB: u64 = 1 << 20;
const MODE: &str = "/proc/sys/vm/overcommit_memory";
const LIMIT: &str = "/proc/sys/vm/overcommit_kbytes";
/// A machine has this, or the limit in kilobytes; the other is 0 then.
const RATIO: &str = "/proc/sys/vm/overcommit_ratio";

pub fn run() -> Outcome {
    let cmd = Cmd::new(&root(), "cargo", "test -p strands --test faults_memory");
    let binary = build_tests(cmd, None)?.pop();
    let binary = binary.ok_or_else(|| Failure::DidNotRun("cargo built no such test".into()))?;
    let committed = committed_kb(&read(Path::new("/proc/meminfo"))?)?;
    let _settings = Settings::keep()?;
    set(LIMIT, &(committed + ROOM_KB).to_string())?;
    set(MODE, "2")?;
    binary.cmd().arg("--exact").arg(TEST).run_tests()
}

fn committed_kb(meminfo: &str) -> Outcome<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Committed_AS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Failure::DidNotRun("/proc/meminfo has no Committed_AS".into()))
}

/// The machine's own settings, which come back when this is dropped.
struct Settings(Vec<(&'static str, String)>);

impl Settings {
    fn keep() -> Outcome<Settings> {
        let value = |path| Ok((path, read(Path::new(path))?.trim().to_owned()));
        // Who writes one of the limits sets the other to 0, so that which counts is written last.
        let mut limits = [value(RATIO)?, value(LIMIT)?];
        limits.sort_by_key(|(_, value)| value != "0");
        let settings = [value(MODE)?].into_iter().chain(limits).collect();
        let settings = Settings(settings);
        println!("(to undo this by hand, if it is killed: {})", settings.as_command());
        Ok(settings)
    }

    fn as_command(&self) -> String {
        let write = |(path, value): &(&str, String)| format!("echo {value} > {path}");
        self.0.iter().map(write).collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        for (path, value) in &self.0 {
            if let Err(failure) = set(path, value) {
                eprintln!("error: {}", failure.reason());
            }
        }
    }
}

fn set(path: &str, value: &str) -> Outcome {
    println!("$ echo {value} > {path}");
    std::fs::write(path, value)
        .map_err(|error| Failure::DidNotRun(format!("cannot write {path}, as root: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_read() {
        assert_eq!(committed_kb("MemFree: 1 kB\nCommitted_AS:  42 kB\n").unwrap(), 42);
        assert!(committed_kb("MemFree: 1 kB\n").is_err());
    }

    #[test]
    fn settings_are_undone_by_a_line_for_a_shell() {
        let settings = Settings(Vec::from([(MODE, "0".into()), (LIMIT, "7".into())]));
        let line = settings.as_command();
        assert_eq!(line, format!("echo 0 > {MODE}; echo 7 > {LIMIT}"));
        std::mem::forget(settings); // Else it would do so.
    }
}
