//! `--name NUMBER`, and `--help`: the options of the smaller examples.

use std::env;
use std::process::ExitCode;

const MOST: u64 = 1_000_000;

/// The numbers that were given for the options of these names, or their defaults. Else what the program ends with:
/// it has printed the help, or what is wrong.
pub fn read<const N: usize>(
    program: &str,
    help: &str,
    options: [(&str, u64); N],
) -> Result<[u64; N], ExitCode> {
    let args: Vec<_> =
        env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{help}");
        return Err(ExitCode::SUCCESS);
    }
    parse(&args, options).map_err(|error| {
        eprintln!("{program}: {error}");
        ExitCode::FAILURE
    })
}

fn parse<const N: usize>(args: &[String], options: [(&str, u64); N]) -> Result<[u64; N], String> {
    let (names, mut numbers) = (options.map(|(name, _)| name), options.map(|(_, number)| number));
    for pair in args.chunks(2) {
        let name = &pair[0];
        let Some(i) = names.iter().position(|known| known == name) else {
            return Err(format!("unknown option {name}; see --help"));
        };
        let text = pair.get(1).ok_or_else(|| format!("{name} needs a value; see --help"))?;
        numbers[i] = match text.parse() {
            Ok(number) if (1..=MOST).contains(&number) => number,
            _ => return Err(format!("{name} takes a whole number from 1 to {MOST}, not {text:?}")),
        };
    }
    Ok(numbers)
}

#[cfg(test)]
#[test]
fn options_are_read_or_rejected() {
    let parse = |text: &str| {
        let args: Vec<_> = text.split_whitespace().map(String::from).collect();
        parse(&args, [("--limit", 16), ("--pages", 200)])
    };
    assert_eq!(parse(""), Ok([16, 200]));
    assert_eq!(parse("--pages 7 --limit 3"), Ok([3, 7]));
    let rejected = |text: &str| parse(text).unwrap_err();
    assert!(rejected("--bogus 1").contains("unknown option --bogus"));
    assert!(rejected("--pages").contains("--pages needs a value"));
    for value in ["0", "-1", "x", "1.5", "99999999999999999999999"] {
        assert!(rejected(&format!("--pages 1 --limit {value}")).contains("--limit takes"));
    }
}
