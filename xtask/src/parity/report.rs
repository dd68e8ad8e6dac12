//! PARITY.md, and the reasons in `parity/differs.txt`.

use std::collections::BTreeMap;

use super::compile::Complaint;
use super::extract::MODULES;
use super::list::{Item, Kind};
use crate::command::{Failure, Outcome};

/// How an item compares with std's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Same,
    /// What is there is not as in std.
    Differs(Complaint),
    /// It is not there: its path, or what the compiler says of the rest.
    Absent(Option<Complaint>),
}

/// An item with what became of it.
pub struct Row<'a> {
    pub item: &'a Item,
    pub state: State,
    /// Why it is not std's, if that is meant.
    pub reason: Option<&'a str>,
    /// Whether it is of a type or trait that is std's own.
    pub is_own: bool,
}

/// Why items are not as in std's: `pattern | reason`, where a `*` in the pattern stands for anything.
pub struct Reasons {
    lines: Vec<(String, String)>,
}

impl Reasons {
    pub fn parse(text: &str) -> Outcome<Reasons> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let parsed = lines.map(|line| match line.split_once(" | ") {
            Some((pattern, reason)) if !reason.trim().is_empty() => {
                Ok((pattern.trim().to_owned(), reason.trim().to_owned()))
            }
            _ => Err(Failure::Failed(format!(
                "parity/differs.txt: `{line}` is not `item | why it is not as std's`"
            ))),
        });
        Ok(Reasons { lines: parsed.collect::<Outcome<_>>()? })
    }

    /// The first reason that fits.
    pub fn of(&self, name: &str) -> Option<&str> {
        let fitting = self.lines.iter().find(|(pattern, _)| fits(pattern, name));
        fitting.map(|(_, reason)| reason.as_str())
    }

    /// What is wrong between the reasons and what they are about.
    pub fn findings(&self, rows: &[Row]) -> Vec<String> {
        let unexplained = rows.iter().filter_map(|row| match &row.state {
            State::Differs(Complaint { message, .. }) if row.reason.is_none() => Some(format!(
                "{} is not as std's: {message}: mend it, or give the reason in parity/differs.txt",
                row.item.name
            )),
            _ => None,
        });
        let needed = |pattern: &str, reason: &str| {
            rows.iter().any(|row| row.reason == Some(reason) && fits(pattern, &row.item.name))
        };
        let stale = self.lines.iter().filter(|(pattern, reason)| !needed(pattern, reason));
        let stale = stale.map(|(pattern, _)| {
            format!("parity/differs.txt: nothing differs at `{pattern}`: take the line out")
        });
        unexplained.chain(stale).collect()
    }
}

/// Whether `name` is `pattern`, with anything for each `*`.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| fits(rest, &name[at..]))
        }),
    }
}

impl Row<'_> {
    fn shown_state(&self) -> String {
        match (&self.state, self.reason) {
            (State::Same, _) => "same".to_owned(),
            (_, Some(reason)) => format!("differs: {reason}"),
            (State::Absent(_), None) => "not yet".to_owned(),
            (State::Differs(_), None) => "differs".to_owned(),
        }
    }
}

/// PARITY.md. `rows` are in order.
pub fn markdown(version: &str, rows: &[Row]) -> String {
    let mut text = format!(
        "# Parity with std\n\n\
         Each public stable item of the modules of std {version} that strands mirrors, on Linux, and \
         whether strands has it. *Same*: code\nthat is written against std's signature, trait impls \
         and auto traits compiles against ours. *Std's own*: it is the same type or trait\nunder \
         another path, with all its methods; so are core's and alloc's, whose methods are not listed. \
         None of this is about behaviour:\nthat is for the tests in `crates/strands/tests/mirror/`.\n\n\
         Made by `cargo xtask parity`. What it compiles is in `parity/std.txt`, the reasons are from \
         `parity/differs.txt`.\n\n\
         | module | items | same | differs | not yet |\n|---|---:|---:|---:|---:|\n"
    );
    let of_module = |module: usize| rows.iter().filter(move |row| row.item.place().0 == module);
    for (at, module) in MODULES.iter().enumerate() {
        text += &counts(&format!("[`{module}`](#{})", module.replace("::", "")), of_module(at));
    }
    text += &counts("all", rows.iter());
    for (at, module) in MODULES.iter().enumerate() {
        text += &format!("\n## {module}\n\n| item | state |\n|---|---|\n");
        let mut groups: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in of_module(at) {
            groups.entry(row.item.place().1).or_default().push(row);
        }
        for (root, rows) in groups {
            text += &group(root, &rows);
        }
    }
    text
}

fn counts<'a>(name: &str, rows: impl Iterator<Item = &'a Row<'a>>) -> String {
    let (mut all, mut same, mut differs, mut not_yet) = (0, 0, 0, 0);
    for row in rows {
        all += 1;
        match row.shown_state().as_str() {
            "same" => same += 1,
            "not yet" => not_yet += 1,
            _ => differs += 1,
        }
    }
    format!("| {name} | {all} | {same} | {differs} | {not_yet} |\n")
}

/// The lines of a type or function with all that belongs to it. One line says it all where the type
/// is std's own, or not there.
fn group(root: &str, rows: &[&Row]) -> String {
    let state = rows[0].shown_state();
    let is_uniform = rows.iter().all(|row| row.shown_state() == state);
    let is_whole = rows.iter().all(|row| row.is_own) || state != "same";
    if is_uniform && is_whole && rows.len() > 1 {
        let own = if rows[0].is_own { " (std's own)" } else { "" };
        return line(&format!("`{root}`, in all {} items", rows.len()), &(state + own));
    }
    let lines = rows.iter().map(|row| {
        let own = if row.is_own && row.item.kind == Kind::Type { " (std's own)" } else { "" };
        let kind = if row.item.kind == Kind::Module { "module " } else { "" };
        line(&format!("{kind}`{}`", row.item.name), &(row.shown_state() + own))
    });
    lines.collect()
}

fn line(item: &str, state: &str) -> String {
    format!("| {} | {} |\n", item.replace('|', "\\|"), state.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differs() -> State {
        State::Differs(Complaint { code: "E0308".into(), message: "mismatched types".into() })
    }

    #[test]
    fn a_difference_needs_a_reason_and_a_reason_a_difference() {
        let item = |name| Item::new(Kind::Function, name, &["net::A"], String::new());
        let (one, two, three) = (item("net::A::one"), item("net::A::two"), item("net::A::three"));
        let reasons =
            Reasons::parse("# why\nnet::*::one | it is better\nnet::A::two | x\n").unwrap();
        let row = |item, state| {
            let reason =
                if state == State::Same { None } else { reasons.of(&Item::clone(item).name) };
            Row { item, state, reason, is_own: false }
        };
        let rows = [row(&one, differs()), row(&two, State::Same), row(&three, differs())];
        let findings = reasons.findings(&rows);
        assert_eq!(findings.len(), 2);
        assert!(findings[0].starts_with("net::A::three is not as std's: mismatched types"));
        assert!(findings[1].contains("nothing differs at `net::A::two`"));
        assert!(Reasons::parse("net::A::one\n").is_err());
    }

    #[test]
    fn a_star_fits_anything() {
        assert!(fits("impl * for sync::Mutex<*>", "impl Debug for sync::Mutex<T>"));
        assert!(fits("*", ""));
        assert!(fits("a*", "a"));
        assert!(!fits("impl * for sync::Mutex", "impl Debug for sync::Mutex<T>"));
        assert!(!fits("net::A", "net::AB"));
    }

    #[test]
    fn the_report_counts_and_collapses() {
        let new = |kind, name, root| Item::new(kind, name, &[root], String::new());
        let items = [
            new(Kind::Type, "net::A", "net::A"),
            new(Kind::Function, "net::A::f", "net::A"),
            new(Kind::Type, "net::B", "net::B"),
            new(Kind::Function, "net::B::f", "net::B"),
            new(Kind::Type, "net::C", "net::C"),
            new(Kind::Function, "net::C::f", "net::C"),
        ];
        let states = [
            State::Same,
            differs(),
            State::Absent(None),
            State::Absent(None),
            State::Same,
            State::Same,
        ];
        let rows: Vec<Row> = items
            .iter()
            .zip(states)
            .map(|(item, state)| Row {
                reason: (state == differs()).then_some("a | b"),
                is_own: item.roots[0] == "net::C",
                item,
                state,
            })
            .collect();
        let text = markdown("1.0", &rows);
        assert!(text.contains("| [`net`](#net) | 6 | 3 | 1 | 2 |\n"));
        assert!(text.contains("| all | 6 | 3 | 1 | 2 |\n"));
        let expected = "\
## net

| item | state |
|---|---|
| `net::A` | same |
| `net::A::f` | differs: a \\| b |
| `net::B`, in all 2 items | not yet |
| `net::C`, in all 2 items | same (std's own) |
";
        assert!(text.contains(expected), "{text}");
    }
}
