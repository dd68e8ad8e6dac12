//! What the example asks of the operating system: descriptors, and what its processes use.

use std::fs;
use std::io;
use std::path::Path;

/// Raises the soft limit of open files as far as `connections` need.
#[cfg(unix)]
pub fn raise_descriptor_limit(connections: usize) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// What a process needs besides one descriptor a connection.
    const OTHER_DESCRIPTORS: u64 = 64;

    let needed = connections as u64 + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= needed) {
        return Ok(());
    }
    if let Some(hard) = limit.maximum.filter(|&hard| hard < needed) {
        let fewer = match hard.saturating_sub(OTHER_DESCRIPTORS) {
            0 => ".".into(),
            most => format!(",\nor run with --connections {most}."),
        };
        return Err(format!(
            "{connections} connections need {needed} open files in a process, and the hard limit \
             is {hard}.\nRaise it (as root: `ulimit -Hn {needed}` in this shell; for good: \
             `* hard nofile {needed}` in /etc/security/limits.conf and a new login; in a \
             container: `--ulimit nofile={needed}`){fewer}"
        ));
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| format!("cannot raise the limit of open files to {needed}: {error}"))
}

/// Windows has no such limit.
#[cfg(not(unix))]
pub fn raise_descriptor_limit(_connections: usize) -> Result<(), String> {
    Ok(())
}

/// What a process has used so far.
pub struct Usage {
    pub cpu_us: f64,
    /// Resident memory and page tables.
    pub bytes: f64,
}

impl Usage {
    /// Of a process by its number. None on systems that have no `/proc` as Linux has it.
    pub fn of(process: u32) -> io::Result<Option<Usage>> {
        if !Path::new("/proc/self/stat").exists() {
            return Ok(None);
        }
        // The fields after the program's name, which is in brackets; see proc_pid_stat(5). Linux tells
        // times in hundredths of a second on all common machines.
        const TICK_US: f64 = 10_000.0;
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: f64 =
            fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let kib = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        let bytes = (kib("VmRSS:") + kib("VmPTE:")) * 1024.0;
        Ok(Some(Usage { cpu_us: ticks * TICK_US, bytes }))
    }
}
