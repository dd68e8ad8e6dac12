//! Room on the disk: what a build will take, what it has taken, and giving it back.
//!
//! `df` and `du` are asked, as every Unix has them; the standard library knows neither number.

use std::path::Path;

use crate::command::{Cmd, Failure, Outcome};

/// Less free space than this is worth a word.
const LITTLE_MB: u64 = 4_096;

/// Fails if a step that takes `needed_mb` would fill the disk of `dir`. What lies in `own` already
/// will not be added once more.
pub fn expect_room(dir: &Path, needed_mb: u64, own: &[&str]) -> Outcome {
    let free_mb = free_mb(dir)?;
    if free_mb >= LITTLE_MB.max(needed_mb) {
        return Ok(());
    }
    println!(
        "(the disk has {} GB free, this needs about {})",
        gigabytes(free_mb),
        gigabytes(needed_mb)
    );
    let there_mb: u64 = own.iter().map(|name| used_mb(&dir.join(name))).sum();
    if free_mb + there_mb >= needed_mb {
        return Ok(());
    }
    Err(Failure::DidNotRun(format!(
        "free {} GB, needs about {} in {}: cargo clean, or set CARGO_TARGET_DIR to a larger disk",
        gigabytes(free_mb),
        gigabytes(needed_mb),
        dir.display()
    )))
}

/// In CI, removes what a step that is ok has built in a directory of its own. A developer keeps it
/// for the next time.
pub fn give_back(dir: &Path) -> Outcome {
    if std::env::var_os("CI").is_none_or(|value| value.is_empty()) || !dir.exists() {
        return Ok(());
    }
    println!("(CI is set: remove {}, {} GB)", dir.display(), gigabytes(used_mb(dir)));
    std::fs::remove_dir_all(dir)
        .map_err(|error| Failure::DidNotRun(format!("cannot remove {}: {error}", dir.display())))
}

fn free_mb(dir: &Path) -> Outcome<u64> {
    let cmd = Cmd::new(dir, "df", "-Pk .");
    let text = cmd.read()?;
    parse_df(&text)
        .ok_or_else(|| Failure::DidNotRun(format!("{cmd}: not what POSIX says:\n{text}")))
}

/// The fourth column of the second line, in units of 1024 KiB.
fn parse_df(text: &str) -> Option<u64> {
    let free_kb: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(free_kb / 1024)
}

/// 0 for a directory that is not there.
fn used_mb(dir: &Path) -> u64 {
    let text = Cmd::new(Path::new("/"), "du", "-sk").arg(dir.to_string_lossy()).read();
    let used_kb = text.ok().and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    used_kb.unwrap_or(0) / 1024
}

fn gigabytes(mb: u64) -> String {
    format!("{:.1}", mb as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn df_is_read() {
        let text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
                    /dev/ab 1000000   10    5242880     20% /\n";
        assert_eq!(parse_df(text), Some(5_120));
        assert_eq!(parse_df("df: .: no such file"), None);
        assert!(free_mb(Path::new("/")).is_ok());
    }

    #[test]
    fn a_full_disk_is_told_before_it_is_met() {
        let root = Path::new("/");
        assert!(expect_room(root, 0, &[]).is_ok());
        let Err(Failure::DidNotRun(text)) = expect_room(root, u64::MAX / 2, &["no such"]) else {
            panic!("no disk is so large");
        };
        assert!(text.starts_with("free ") && text.contains("needs about"), "{text}");
    }
}
