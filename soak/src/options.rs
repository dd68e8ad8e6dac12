//! What the command line says.

use std::time::Duration;

/// How to use it.
pub const USAGE: &str = "\
usage: cargo xtask soak [--seconds N] [--seed S] [--epoch N] [--busy] [--stall N]

  --seconds N  end after the epoch in which so many seconds are over (300)
  --seed S     draw the plans from this seed (a fresh one)
  --epoch N    begin with this epoch of the seed (1)
  --busy       have a thread for each core that spins meanwhile
  --stall N    how many seconds without progress are a stall (60)
";

/// Settings of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub time: Duration,
    pub seed: u64,
    pub first_epoch: u64,
    pub busy: bool,
    pub stall: Duration,
}

impl Options {
    /// Reads `args`, which do not hold the program's name.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            time: Duration::from_secs(300),
            seed: fastrand::u64(..),
            first_epoch: 1,
            busy: false,
            stall: Duration::from_secs(60),
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut number = || {
                let value = args.next().and_then(|value| value.parse::<u64>().ok());
                value.ok_or_else(|| format!("{arg} wants a number"))
            };
            match &*arg {
                "--seconds" => options.time = Duration::from_secs(number()?),
                "--seed" => options.seed = number()?,
                "--epoch" => options.first_epoch = number()?.max(1),
                "--busy" => options.busy = true,
                "--stall" => options.stall = Duration::from_secs(number()?.max(1)),
                _ => return Err(format!("unknown argument `{arg}`")),
            }
        }
        Ok(options)
    }

    /// The command that begins with `epoch`.
    pub fn command(&self, epoch: u64) -> String {
        let variables = ["STRANDS_STACK_GUARD", "STRANDS_BACKEND", "STRANDS_WORKERS"];
        let set = variables.iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
        let set: String = set.map(|(name, value)| format!("{name}={value} ")).collect();
        let busy = if self.busy { " --busy" } else { "" };
        format!("{set}cargo xtask soak --seed {} --epoch {epoch}{busy}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_command_repeats_its_options() {
        let options = parse("--seconds 5 --seed 7 --busy --stall 9").unwrap();
        assert_eq!((options.time, options.seed), (Duration::from_secs(5), 7));
        assert_eq!((options.first_epoch, options.stall), (1, Duration::from_secs(9)));
        let command = options.command(3);
        let (_, args) = command.split_once("xtask soak").unwrap();
        let again = parse(args).unwrap();
        assert_eq!((again.seed, again.first_epoch, again.busy), (7, 3, true));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(parse("--second 5").is_err());
        assert!(parse("--seed").is_err());
        assert!(parse("--seed x").is_err());
    }
}
