//! What the compiler must reject, and how it says so.
//!
//! Each file in `ui/` is compiled against the crate as it was built for this test. Its `//~`
//! comments say what the errors must contain, in the order of their lines, and there must be no
//! other errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The library that this test was linked with: the newest, as it was just built.
fn library() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let libraries = fs::read_dir(deps.parent().unwrap()).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name()?.to_str()?;
        let ours = name.starts_with("libstrands-") && name.ends_with(".rlib");
        ours.then(|| (fs::metadata(&path).unwrap().modified().unwrap(), path))
    });
    libraries.max().expect("the library lies beside its tests").1
}

/// Compiles `source` as a test program.
fn compile(source: &Path, library: &Path, emit: &str, to: &Path) -> Output {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Command::new(rustc)
        .args(["--edition=2024", "--test", "-Awarnings", "--error-format=short", "--emit", emit])
        .arg("-L")
        .arg(format!("dependency={}", library.parent().unwrap().display()))
        .arg("--extern")
        .arg(format!("strands={}", library.display()))
        .arg("-o")
        .args([to, source])
        .output()
        .unwrap()
}

/// Where a test of this process may write.
fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

/// The first lines of the errors, with where they point.
fn errors(source: &Path, library: &Path) -> Vec<(usize, String)> {
    let to = scratch("rejected");
    let output = compile(source, library, "metadata", &to);
    let _ = fs::remove_file(to);
    let text = String::from_utf8(output.stderr).unwrap();
    let mut errors: Vec<(usize, String)> = text
        .lines()
        .filter_map(|line| {
            // path:line:column: error[code]: text
            let after = line.strip_prefix(&format!("{}:", source.display()))?;
            let (number, rest) = after.split_once(':')?;
            let (_, error) = rest.split_once(": error")?;
            Some((number.parse().ok()?, error.to_string()))
        })
        .collect();
    errors.sort();
    assert_eq!(output.status.success(), errors.is_empty(), "{text}");
    errors
}

fn expected(source: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(source).unwrap();
    let lines = text.lines().enumerate();
    lines.filter_map(|(i, line)| Some((i + 1, line.split_once("//~ ")?.1.to_string()))).collect()
}

#[test]
fn each_program_is_rejected_where_and_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let mut sources: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    sources.retain(|path| path.is_file());
    sources.sort();
    assert!(sources.len() >= 4);
    let library = library();
    for source in sources {
        let (seen, expected) = (errors(&source, &library), expected(&source));
        let name = source.file_name().unwrap();
        let lines = |errors: &[(usize, String)]| errors.iter().map(|e| e.0).collect::<Vec<_>>();
        assert_eq!(lines(&seen), lines(&expected), "{name:?}: {seen:#?}");
        for ((line, seen), (_, expected)) in seen.iter().zip(&expected) {
            assert!(seen.contains(expected), "{name:?}:{line}: {expected:?} is not in {seen:?}");
        }
    }
}

#[test]
fn ignored_tests_are_ignored() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui/run/ignored.rs");
    let program = scratch("ignored");
    let output = compile(&source, &library(), "link", &program);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(&program).output().unwrap();
    let _ = fs::remove_file(program);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("test left_out ... ignored, to be left out"), "{text}");
    assert!(text.contains("1 passed; 0 failed; 1 ignored"), "{text}");
}
