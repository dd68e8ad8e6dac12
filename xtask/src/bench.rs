//! `cargo xtask bench`: race strands against its peers and print one table.
//!
//! The programs are in `bench/`, a workspace of its own. Each measurement is a fresh process. A
//! round runs every case and peer once; the rounds follow each other, so that a slow minute of the
//! machine falls on all peers alike, and the table shows the median over the rounds. Running one
//! peer to its end before the next was turned down: it measures the weather. Absolute figures
//! belong to the machine above the table; a claim is a ratio within one table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::workspace;

mod go;

const USAGE: &str = "\
usage: cargo xtask bench [--rounds N] [--case SUBSTRING]… [--peer NAME]… [--quick] [--json FILE]

  --rounds N        measure everything N times and show medians (5)
  --case SUBSTRING  only cases whose name holds SUBSTRING
  --peer NAME       only this column
  --quick           short runs and small sizes: does it work, not how fast is it
  --json FILE       also write every sample to FILE";

/// The column that the others are compared with.
const OURS: &str = "strands";

/// The column that is no competitor: what the machine asks for the same work with no runtime at
/// all.
const FLOOR: &str = "floor";

/// Columns in the order of the table; a peer that is not named here comes last.
const COLUMNS: &[&str] = &[OURS, "corosensei", "may", "tokio", "go", "crossbeam", "threads", FLOOR];

/// Samples further apart than this share of their median are marked.
const SPREAD: f64 = 0.2;

pub fn run(args: Vec<String>) -> ExitCode {
    let options = match Options::parse(args) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match race(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every measurement gave a figure.
fn race(options: &Options) -> Result<bool, String> {
    let program = build()?;
    go::offer(options);
    let suite = Suite::of(&program, options)?;
    let machine = Machine::look();
    let load = Load::start();
    let samples = measure(&program, &suite, options);
    let load = load.stop();

    println!("{}", machine.describe(&load, options));
    print!("{}", table(&suite, &samples));
    println!("{}", legend(&suite));
    if let Some(path) = &options.json {
        std::fs::write(path, json(&suite, &samples, &machine, &load, options))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(samples.values().all(|samples| samples.failures == 0))
}

// ---- What to run ----

#[derive(Debug, PartialEq)]
struct Options {
    rounds: usize,
    cases: Vec<String>,
    peers: Vec<String>,
    quick: bool,
    json: Option<PathBuf>,
}

impl Options {
    /// `None` asks for help.
    fn parse(args: Vec<String>) -> Result<Option<Options>, String> {
        let mut options =
            Options { rounds: 5, cases: Vec::new(), peers: Vec::new(), quick: false, json: None };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--rounds" => {
                    let text = value()?;
                    options.rounds = match text.parse() {
                        Ok(rounds) if rounds > 0 => rounds,
                        _ => return Err(format!("--rounds: `{text}` is not a number above 0")),
                    };
                }
                "--case" => options.cases.push(value()?),
                "--peer" => options.peers.push(value()?),
                "--quick" => options.quick = true,
                "--json" => options.json = Some(value()?.into()),
                "-h" | "--help" => return Ok(None),
                _ => return Err(format!("unknown argument `{arg}`")),
            }
        }
        Ok(Some(options))
    }

    fn wants(&self, case: &str, peer: &str) -> bool {
        (self.cases.is_empty() || self.cases.iter().any(|part| case.contains(part.as_str())))
            && (self.peers.is_empty() || self.peers.iter().any(|name| name == peer))
    }
}

/// Builds the programs and gives the path of the binary.
fn build() -> Result<PathBuf, String> {
    let manifest = workspace::root().join("bench/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--message-format=json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(&manifest)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("bench/ does not build: {}", output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = |line: &str| {
        let (_, rest) = line.split_once(r#""executable":""#)?;
        rest.split_once('"').map(|(path, _)| PathBuf::from(path))
    };
    messages.lines().find_map(executable).ok_or("cargo names no executable of bench/".to_owned())
}

/// A line of the table: one figure of one case.
struct Row {
    case: String,
    figure: String,
    unit: String,
    title: String,
}

/// What the binary offers, as far as it is wanted.
struct Suite {
    rows: Vec<Row>,
    /// Case and peer, in the order of the table.
    pairs: Vec<(String, String)>,
    /// The columns that any of `pairs` fills.
    columns: Vec<String>,
}

impl Suite {
    fn of(program: &Path, options: &Options) -> Result<Suite, String> {
        let output = Command::new(program)
            .arg("list")
            .envs(go::environment())
            .output()
            .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        let suite = Suite::parse(&String::from_utf8_lossy(&output.stdout), options);
        if suite.pairs.is_empty() {
            return Err("no case and peer of these names".to_owned());
        }
        Ok(suite)
    }

    fn parse(list: &str, options: &Options) -> Suite {
        let (mut rows, mut pairs) = (Vec::new(), Vec::new());
        for line in list.lines() {
            match line.split('\t').collect::<Vec<_>>().as_slice() {
                ["row", case, figure, unit, title] => rows.push(Row {
                    case: case.to_string(),
                    figure: figure.to_string(),
                    unit: unit.to_string(),
                    title: title.to_string(),
                }),
                ["peer", case, peer] if options.wants(case, peer) => {
                    pairs.push((case.to_string(), peer.to_string()));
                }
                _ => {}
            }
        }
        rows.retain(|row| pairs.iter().any(|(case, _)| *case == row.case));
        let mut columns: Vec<String> = Vec::new();
        for (_, peer) in &pairs {
            if !columns.contains(peer) {
                columns.push(peer.clone());
            }
        }
        columns
            .sort_by_key(|peer| COLUMNS.iter().position(|name| name == peer).unwrap_or(usize::MAX));
        Suite { rows, pairs, columns }
    }
}

// ---- Running ----

/// All that was measured of one case and peer.
#[derive(Default)]
struct Samples {
    /// By the name of the figure, a value for each round.
    figures: BTreeMap<String, Vec<f64>>,
    failures: usize,
}

type AllSamples = BTreeMap<(String, String), Samples>;

fn measure(program: &Path, suite: &Suite, options: &Options) -> AllSamples {
    let mut all = AllSamples::new();
    for round in 0..options.rounds {
        for (case, peers) in by_case(&suite.pairs) {
            // Each round starts with another peer: none always follows the same neighbour.
            for index in 0..peers.len() {
                let peer = peers[(round + index) % peers.len()];
                progress(&format!("round {} of {}: {case} {peer}", round + 1, options.rounds));
                let samples = all.entry((case.to_owned(), peer.to_owned())).or_default();
                match sample(program, case, peer, options.quick) {
                    Ok(figures) => {
                        for (name, value) in figures {
                            samples.figures.entry(name).or_default().push(value);
                        }
                    }
                    Err(error) => {
                        samples.failures += 1;
                        progress("");
                        eprintln!("{case} {peer}: {error}");
                    }
                }
            }
        }
    }
    progress("");
    all
}

fn by_case(pairs: &[(String, String)]) -> Vec<(&str, Vec<&str>)> {
    let mut cases: Vec<(&str, Vec<&str>)> = Vec::new();
    for (case, peer) in pairs {
        match cases.last_mut() {
            Some((last, peers)) if last == case => peers.push(peer),
            _ => cases.push((case, vec![peer])),
        }
    }
    cases
}

/// One measurement: a process that prints one line. It bounds its own time.
fn sample(
    program: &Path,
    case: &str,
    peer: &str,
    quick: bool,
) -> Result<Vec<(String, f64)>, String> {
    let output = Command::new(program)
        .args(["run", case, peer])
        .args(quick.then_some("--quick"))
        .envs(go::environment())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    if !output.status.success() {
        return Err(format!(
            "{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    let line = String::from_utf8_lossy(&output.stdout);
    let figures = figures(&line);
    if figures.is_empty() { Err(format!("no figures in `{}`", line.trim())) } else { Ok(figures) }
}

/// The numbers of a line of `name=value` pairs.
fn figures(line: &str) -> Vec<(String, f64)> {
    let pair = |word: &str| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.parse::<f64>().ok().filter(|value| value.is_finite())?))
    };
    line.split_whitespace().filter_map(pair).collect()
}

/// One line that overwrites itself, on a terminal only.
fn progress(text: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{text}");
        let _ = stderr.flush();
    }
}

// ---- The machine ----

struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    rustc: String,
    load_average: String,
}

impl Machine {
    fn look() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu_info = read("/proc/cpuinfo");
        let model =
            cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let rustc = Command::new(rustc).arg("--version").output().map(|output| output.stdout);
        Machine {
            cpu: model.map_or("unknown CPU", |(_, model)| model).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            rustc: String::from_utf8_lossy(&rustc.unwrap_or_default()).trim().to_owned(),
            load_average: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }

    fn describe(&self, load: &Load, options: &Options) -> String {
        let sizes = if options.quick { " (quick: small sizes, short runs)" } else { "" };
        let mut text = format!(
            "\nstrands and its peers, medians of {} round{}{sizes}\n\n",
            options.rounds,
            if options.rounds == 1 { "" } else { "s" },
        );
        let _ = writeln!(text, "  machine  {}, {} cores", self.cpu, self.cores);
        let _ = writeln!(text, "  kernel   {}", self.kernel);
        let _ = writeln!(text, "  rustc    {}", self.rustc.trim_start_matches("rustc "));
        let _ = writeln!(
            text,
            "  load     average {} before the start; during the run other processes used {:.0} % \
             of the machine{}",
            self.load_average,
            load.others * 100.0,
            if load.others > 0.05 { ": NOT QUIET" } else { "" },
        );
        if load.stolen > 0.01 {
            let _ = writeln!(text, "           the hypervisor took {:.0} %", load.stolen * 100.0);
        }
        text
    }
}

/// Who else used the machine: shares of all its cores' time, from the kernel's tick counts.
struct Load {
    others: f64,
    stolen: f64,
}

struct LoadAtStart(Ticks);

impl Load {
    fn start() -> LoadAtStart {
        LoadAtStart(Ticks::now())
    }
}

impl LoadAtStart {
    fn stop(self) -> Load {
        let (before, after) = (self.0, Ticks::now());
        let total = (after.total - before.total).max(1.0);
        let busy = after.busy - before.busy;
        Load {
            others: ((busy - (after.ours - before.ours)) / total).max(0.0),
            stolen: (after.stolen - before.stolen) / total,
        }
    }
}

#[derive(Default)]
struct Ticks {
    total: f64,
    busy: f64,
    stolen: f64,
    /// This process and its children, as far as they have ended.
    ours: f64,
}

impl Ticks {
    fn now() -> Ticks {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let own = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Ticks::parse(&stat, &own).unwrap_or_default()
    }

    fn parse(stat: &str, own: &str) -> Option<Ticks> {
        let cpu = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let cpu: Vec<f64> = cpu.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, stolen] = *cpu.first_chunk()?;
        // After the name in parentheses, which may hold spaces: the state is field 3, utime 14 …
        // cstime 17.
        let (_, own) = own.rsplit_once(')')?;
        let own: Vec<f64> =
            own.split_whitespace().skip(11).take(4).filter_map(|word| word.parse().ok()).collect();
        let busy = user + nice + system + irq + softirq;
        Some(Ticks { total: busy + idle + iowait + stolen, busy, stolen, ours: own.iter().sum() })
    }
}

// ---- The table ----

const CASE: &str = "case";
const UNIT: &str = "unit";

fn table(suite: &Suite, samples: &AllSamples) -> String {
    let rivals = suite.columns.iter().any(|peer| peer == OURS) && suite.columns.len() > 1;
    let mut lines = vec![header(suite, rivals)];
    lines.extend(suite.rows.iter().map(|row| line(row, suite, samples, rivals)));
    align(&lines)
}

fn header(suite: &Suite, rivals: bool) -> Vec<String> {
    let mut cells = vec![CASE.to_owned(), UNIT.to_owned()];
    // A blank keeps the place of the mark behind each number.
    cells.extend(suite.columns.iter().map(|peer| format!("{peer} ")));
    if rivals {
        cells.push("  strands / best peer".to_owned());
    }
    cells
}

fn line(row: &Row, suite: &Suite, samples: &AllSamples, rivals: bool) -> Vec<String> {
    let mut cells = vec![row.title.clone(), row.unit.clone()];
    let mut ours = None;
    let mut best: Option<(f64, &str)> = None;
    for peer in &suite.columns {
        let cell = match samples.get(&(row.case.clone(), peer.clone())) {
            None => "- ".to_owned(),
            Some(samples) if samples.failures > 0 => "failed ".to_owned(),
            Some(samples) => match samples.figures.get(&row.figure) {
                None => "? ".to_owned(),
                Some(values) => {
                    let median = median(values);
                    if peer == OURS {
                        ours = Some(median);
                    } else if peer != FLOOR && best.is_none_or(|(least, _)| median < least) {
                        best = Some((median, peer));
                    }
                    format!("{}{}", number(median), if is_spread(values) { "~" } else { " " })
                }
            },
        };
        cells.push(cell);
    }
    if rivals {
        cells.push(match (ours, best) {
            (Some(ours), Some((least, peer))) if least > 0.0 => {
                format!("{:>6.2} × {peer}", ours / least)
            }
            _ => format!("{:>6}", "-"),
        });
    }
    cells
}

/// The first and last columns to the left, numbers to the right.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines[0].len();
    let width =
        |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let is_number = |index: usize| index >= 2 && !lines[0][index].starts_with(' ');
    let mut text = String::new();
    for (index, cells) in lines.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let gap = " ".repeat(widths[column] - cell.chars().count());
            let _ = match is_number(column) {
                true => write!(line, "  {gap}{cell}"),
                false if column == 0 => write!(line, "{cell}{gap}"),
                false => write!(line, "  {cell}{gap}"),
            };
        }
        let line = line.trim_end();
        let _ = writeln!(text, "{line}");
        if index == 0 {
            let total = widths.iter().sum::<usize>() + 2 * (columns - 1);
            let _ = writeln!(text, "{}", "─".repeat(total));
        }
    }
    text
}

fn legend(suite: &Suite) -> String {
    let mut text = format!(
        "\nLess is better. - does not apply.  ~ its rounds differ by more than {:.0} % of the median.",
        SPREAD * 100.0
    );
    if suite.columns.iter().any(|peer| peer == FLOOR) {
        text += "\nfloor: the same work with no runtime (a call through a pointer; bare epoll); not a peer.";
    }
    text
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

fn is_spread(values: &[f64]) -> bool {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    most - least > SPREAD * median(values)
}

/// Three digits or so, thousands set apart.
fn number(value: f64) -> String {
    match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
    }
}

// ---- JSON ----

/// Every sample, for those who want to draw their own conclusions.
fn json(
    suite: &Suite,
    samples: &AllSamples,
    machine: &Machine,
    load: &Load,
    options: &Options,
) -> String {
    let mut text = format!(
        "{{\n  \"machine\": {{\"cpu\": {}, \"cores\": {}, \"kernel\": {}, \"rustc\": {}}},\n  \
         \"load\": {{\"average_before\": {}, \"others\": {:.4}, \"stolen\": {:.4}}},\n  \
         \"rounds\": {}, \"quick\": {},\n  \"rows\": [\n",
        quoted(&machine.cpu),
        machine.cores,
        quoted(&machine.kernel),
        quoted(&machine.rustc),
        quoted(&machine.load_average),
        load.others,
        load.stolen,
        options.rounds,
        options.quick,
    );
    let rows: Vec<String> = suite
        .rows
        .iter()
        .map(|row| {
            let (case, figure) = (quoted(&row.case), quoted(&row.figure));
            let (unit, title) = (quoted(&row.unit), quoted(row.title.trim_start()));
            format!("    {{\"case\": {case}, \"figure\": {figure}, \"unit\": {unit}, \"title\": {title}}}")
        })
        .collect();
    text += &rows.join(",\n");
    text += "\n  ],\n  \"measurements\": [\n";
    let measurements: Vec<String> = samples
        .iter()
        .map(|((case, peer), samples)| {
            let figures: Vec<String> = samples
                .figures
                .iter()
                .map(|(name, values)| {
                    let values: Vec<String> = values.iter().map(f64::to_string).collect();
                    format!("{}: [{}]", quoted(name), values.join(", "))
                })
                .collect();
            format!(
                "    {{\"case\": {}, \"peer\": {}, \"failures\": {}, \"figures\": {{{}}}}}",
                quoted(case),
                quoted(peer),
                samples.failures,
                figures.join(", "),
            )
        })
        .collect();
    text += &measurements.join(",\n");
    text += "\n  ]\n}\n";
    text
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Result<Option<Options>, String> {
        Options::parse(args.iter().map(|arg| arg.to_string()).collect())
    }

    #[test]
    fn options_are_read_and_errors_name_the_argument() {
        let parsed = options(&["--rounds", "3", "--case", "yield", "--quick"]).unwrap().unwrap();
        assert_eq!((parsed.rounds, parsed.quick), (3, true));
        assert!(parsed.wants("yield/2", "may") && !parsed.wants("switch", "may"));
        assert_eq!(options(&["--help"]), Ok(None));
        assert!(options(&["--rounds", "0"]).unwrap_err().contains("`0`"));
        assert!(options(&["--case"]).unwrap_err().contains("--case"));
        assert!(options(&["--cases"]).unwrap_err().contains("--cases"));
    }

    #[test]
    fn numbers_keep_three_digits_and_set_thousands_apart() {
        let texts = [1.234, 9.996, 45.67, 99.96, 999.6, 12_345.6, 1_234_567.0].map(number);
        assert_eq!(texts, ["1.23", "10.0", "45.7", "100", "1,000", "12,346", "1,234,567"]);
    }

    #[test]
    fn the_median_is_the_middle_or_between_two() {
        assert_eq!(median(&[3.0, 1.0, 100.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), 3.0);
        assert!(is_spread(&[10.0, 10.0, 12.5]));
        assert!(!is_spread(&[10.0, 10.0, 11.5]));
    }

    #[test]
    fn a_line_gives_its_numbers_and_nothing_else() {
        let expected = vec![("wall".to_owned(), 2.5), ("ops".to_owned(), 7.0)];
        assert_eq!(figures("case=switch peer=may wall=2.5 ops=7 odd=NaN\n"), expected);
    }

    #[test]
    fn the_table_is_aligned_and_the_ratio_leaves_the_floor_out() {
        let list = "row\ta\twall\tns\tcase a\npeer\ta\tstrands\npeer\ta\tfloor\npeer\ta\tmay\npeer\ta\ttokio\n\
                    row\tb\twall\tns\ta longer title\npeer\tb\ttokio\n";
        let suite = Suite::parse(list, &options(&[]).unwrap().unwrap());
        let mut samples = AllSamples::new();
        for (case, peer, value) in [
            ("a", "strands", 5.0),
            ("a", "floor", 1.0),
            ("a", "may", 50.0),
            ("a", "tokio", 10.0),
            ("b", "tokio", 1234.0),
        ] {
            let figures = BTreeMap::from([("wall".to_owned(), vec![value])]);
            samples.insert((case.to_owned(), peer.to_owned()), Samples { figures, failures: 0 });
        }
        let expected = "\
case            unit  strands    may   tokio   floor     strands / best peer
────────────────────────────────────────────────────────────────────────────
case a          ns       5.00   50.0    10.0    1.00     0.50 × tokio
a longer title  ns          -      -   1,234       -        -
";
        assert_eq!(table(&suite, &samples), expected);
    }

    #[test]
    fn the_load_of_others_is_what_is_busy_and_not_ours() {
        let stat = "cpu  100 0 50 800 10 5 5 30 0 0\ncpu0 1 2 3\n";
        let own = "77 (a b) c) S 1 1 1 0 -1 0 0 0 0 0 1 2 30 40 20 0";
        let ticks = Ticks::parse(stat, own).unwrap();
        assert_eq!(
            (ticks.total, ticks.busy, ticks.stolen, ticks.ours),
            (1000.0, 160.0, 30.0, 73.0)
        );
    }

    #[test]
    fn json_escapes_what_it_must() {
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\"b\\c\u000ad""#);
    }
}
