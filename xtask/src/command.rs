//! Commands that print themselves before they run.
//!
//! The printed line can be pasted into a shell at the root of the repository and does the same.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a check ends.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a check is not ok. A check that could not run is told apart from one that found something,
/// and both fail: a check that is skipped without a word is one that nobody has.
#[derive(Debug)]
pub enum Failure {
    /// It ran and found what the text says.
    Failed(String),
    /// It could not run; the text says what is missing and how to get it.
    DidNotRun(String),
}

impl Failure {
    /// The text of either kind.
    pub fn reason(&self) -> &str {
        match self {
            Failure::Failed(reason) | Failure::DidNotRun(reason) => reason,
        }
    }
}

/// `Ok` when nothing was found, else one failure with a line for each finding.
pub fn fail_if_any(findings: Vec<String>) -> Outcome {
    if findings.is_empty() { Ok(()) } else { Err(Failure::Failed(findings.join("\n"))) }
}

/// Runs every check, also after a failure, so that one run shows all that is wrong.
pub fn all(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    let failures: Vec<Failure> = outcomes.into_iter().filter_map(Result::err).collect();
    let text = failures.iter().map(Failure::reason).collect::<Vec<_>>().join("\n");
    if failures.is_empty() {
        Ok(())
    } else if failures.iter().any(|failure| matches!(failure, Failure::DidNotRun(_))) {
        Err(Failure::DidNotRun(text))
    } else {
        Err(Failure::Failed(text))
    }
}

/// A program with its arguments, extra environment and directory.
#[derive(Clone)]
pub struct Cmd {
    program: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    dir: PathBuf,
}

/// How a program under a time limit ended.
pub enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// Killed by us after the limit.
    TimedOut,
}

impl Cmd {
    /// `program` with the words of `line` as arguments, to run in `dir`. Arguments that hold spaces
    /// are added with [`Cmd::arg`].
    pub fn new(dir: &Path, program: &str, line: &str) -> Cmd {
        Cmd {
            program: program.to_owned(),
            args: line.split_whitespace().map(str::to_owned).collect(),
            env: Vec::new(),
            dir: dir.to_owned(),
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Cmd {
        self.args.push(arg.into());
        self
    }

    /// Sets an environment variable, whatever its value was.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Cmd {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Prints the command and runs it with its output shown.
    pub fn run(&self) -> Outcome {
        println!("$ {self}");
        let status = self.command().status().map_err(|error| self.did_not_start(error))?;
        self.check(status)
    }

    /// As [`Cmd::run`], for `cargo test`: fails also if no test passed, because a filter or a cfg
    /// that leaves no test would otherwise look like success.
    pub fn run_tests(&self) -> Outcome {
        println!("$ {self}");
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.did_not_start(error))?;
        let mut output = Vec::new();
        let copied = copy_to_stdout(child.stdout.take().expect("stdout was piped"), &mut output);
        let status = child.wait().map_err(|error| self.did_not_start(error))?;
        self.check(status)?;
        copied.map_err(|error| Failure::Failed(format!("cannot show the output: {error}")))?;
        match passed_tests(&String::from_utf8_lossy(&output)) {
            0 => Err(Failure::DidNotRun(format!("no test ran: {self}"))),
            passed => {
                println!("({passed} tests passed)");
                Ok(())
            }
        }
    }

    /// Runs it silently and gives its standard output, or its standard error as the failure.
    pub fn read(&self) -> Outcome<String> {
        let output = self.command().output().map_err(|error| self.did_not_start(error))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Failure::Failed(format!("{self}: {}\n{stderr}", output.status)))
        }
    }

    /// Runs it with its standard error in `log`, or shown if there is none, and gives its standard
    /// output.
    pub fn read_logged(&self, log: Option<&Path>) -> Outcome<String> {
        let stderr = match log {
            Some(path) => create(path)?.into(),
            None => Stdio::inherit(),
        };
        let child = self.command().stdout(Stdio::piped()).stderr(stderr).spawn();
        let output = child
            .and_then(|child| child.wait_with_output())
            .map_err(|error| self.did_not_start(error))?;
        self.check(output.status)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it with all its output in `log`, and kills it after `limit`.
    pub fn run_logged(&self, log: &Path, limit: Duration) -> Outcome<Ended> {
        let stdout = create(log)?;
        let stderr = stdout.try_clone().map_err(|error| self.did_not_start(error))?;
        let mut child = self
            .command()
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|error| self.did_not_start(error))?;
        let end = Instant::now() + limit;
        let mut pause = Duration::from_micros(500);
        loop {
            if let Some(status) = child.try_wait().map_err(|error| self.did_not_start(error))? {
                return Ok(Ended::Exited(status));
            }
            if Instant::now() >= end {
                // It may end just now; then there is nothing left to kill, and the wait reaps it.
                let _ = child.kill();
                child.wait().map_err(|error| self.did_not_start(error))?;
                return Ok(Ended::TimedOut);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.dir).stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn check(&self, status: ExitStatus) -> Outcome {
        if status.success() { Ok(()) } else { Err(Failure::Failed(format!("{self}: {status}"))) }
    }

    fn did_not_start(&self, error: std::io::Error) -> Failure {
        Failure::DidNotRun(format!("cannot run {self}: {error}"))
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={} ", quoted(value))?;
        }
        f.write_str(&quoted(&self.program))?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

/// As a shell wants it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The sum over all of libtest's summaries in `output`.
fn passed_tests(output: &str) -> u64 {
    let passed = |line: &str| {
        let (_, rest) = line.split_once("test result: ")?;
        let (count, _) = rest.split_once(" passed")?;
        count.rsplit(' ').next()?.parse::<u64>().ok()
    };
    output.lines().filter_map(passed).sum()
}

fn copy_to_stdout(mut from: impl Read, seen: &mut Vec<u8>) -> std::io::Result<()> {
    let mut chunk = [0; 8192];
    let mut stdout = std::io::stdout();
    loop {
        let count = from.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        seen.extend_from_slice(&chunk[..count]);
        stdout.write_all(&chunk[..count])?;
        stdout.flush()?;
    }
}

fn create(path: &Path) -> Outcome<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| Failure::DidNotRun(format!("{}: {error}", parent.display())))?;
    }
    File::create(path).map_err(|error| Failure::DidNotRun(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_as_a_shell_reads_it() {
        let cmd = Cmd::new(Path::new("."), "cargo", "test -p x").arg("it's").arg("");
        let cmd = cmd.env("RUSTFLAGS", r#"--cfg strands_backend="thread""#);
        let expected = r#"RUSTFLAGS='--cfg strands_backend="thread"' cargo test -p x 'it'\''s' ''"#;
        assert_eq!(cmd.to_string(), expected);
    }

    #[test]
    fn passed_tests_are_summed_over_binaries() {
        let output = "\
running 2 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out
test result: FAILED. 1 passed; 3 failed; 0 ignored
test result: ok. 0 passed; 0 failed";
        assert_eq!(passed_tests(output), 3);
        assert_eq!(passed_tests("nothing here passed"), 0);
    }

    #[test]
    fn a_check_that_did_not_run_outweighs_one_that_failed() {
        assert!(all([Ok(()), Ok(())]).is_ok());
        let failed = || Err(Failure::Failed("a".into()));
        assert!(matches!(all([Ok(()), failed()]), Err(Failure::Failed(text)) if text == "a"));
        let both = all([failed(), Err(Failure::DidNotRun("b".into()))]);
        assert!(matches!(both, Err(Failure::DidNotRun(text)) if text == "a\nb"));
    }

    #[test]
    fn a_program_that_is_not_there_did_not_run() {
        let cmd = Cmd::new(Path::new("."), "no-such-program-here", "");
        assert!(matches!(cmd.run(), Err(Failure::DidNotRun(_))));
    }
}
