//! What cargo knows about this workspace, and the files in it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::{Cmd, Failure, Outcome};

/// The workspace as `cargo metadata` tells it.
pub struct Workspace {
    /// The root of the repository.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
    /// The workspace's own packages and all that they depend on, on any platform.
    pub packages: Vec<Package>,
}

/// One package of the dependency graph.
pub struct Package {
    pub name: String,
    pub version: String,
    pub licence: Option<String>,
    pub rust_version: Option<String>,
    pub manifest: PathBuf,
    /// Whether it belongs to this workspace.
    pub is_member: bool,
    pub dependencies: Vec<Dependency>,
    /// Names of its examples.
    pub examples: Vec<String>,
}

/// One entry of a `[dependencies]` table.
pub struct Dependency {
    pub name: String,
    /// Whether it is there for tests, examples and benchmarks only.
    pub is_dev: bool,
}

/// The root of the repository: the directory above this crate's.
pub fn root() -> PathBuf {
    // `cargo run` sets the variable; a binary started by hand falls back to where it was built.
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let manifest_dir = manifest_dir.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    manifest_dir.parent().expect("xtask lies in the root's xtask directory").to_owned()
}

impl Workspace {
    /// Asks cargo. Fails if Cargo.lock does not fit the manifests.
    pub fn load() -> Outcome<Workspace> {
        let root = root();
        let cmd = Cmd::new(&root, "cargo", "metadata --format-version 1 --locked");
        println!("$ {cmd}");
        let json = serde_json::from_str(&cmd.read()?)
            .map_err(|error| Failure::DidNotRun(format!("{cmd}: not JSON: {error}")))?;
        Ok(Workspace::from_metadata(root, &json))
    }

    fn from_metadata(root: PathBuf, json: &Value) -> Workspace {
        let members = &json["workspace_members"];
        let is_member = |id: &Value| list(members).iter().any(|member| member == id);
        let packages = list(&json["packages"]).iter().map(|package| Package {
            name: text(&package["name"]),
            version: text(&package["version"]),
            licence: package["license"].as_str().map(str::to_owned),
            rust_version: package["rust_version"].as_str().map(str::to_owned),
            manifest: PathBuf::from(text(&package["manifest_path"])),
            is_member: is_member(&package["id"]),
            dependencies: list(&package["dependencies"])
                .iter()
                .map(|dependency| Dependency {
                    name: text(&dependency["name"]),
                    is_dev: dependency["kind"] == "dev",
                })
                .collect(),
            examples: list(&package["targets"])
                .iter()
                .filter(|target| list(&target["kind"]).iter().any(|kind| kind == "example"))
                .map(|target| text(&target["name"]))
                .collect(),
        });
        let packages = packages.collect();
        Workspace { root, target: PathBuf::from(text(&json["target_directory"])), packages }
    }

    /// The packages of this workspace, tools such as xtask too.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.is_member)
    }
}

/// A test binary that cargo has built.
pub struct TestBinary {
    /// The name of the library, binary or integration test that it holds the tests of.
    pub target: String,
    pub executable: PathBuf,
    /// The directory of its package, where cargo would run it.
    pub dir: PathBuf,
}

impl TestBinary {
    /// A run of this binary, as cargo would run it.
    pub fn cmd(&self) -> Cmd {
        Cmd::new(&self.dir, &self.executable.to_string_lossy(), "")
            .env("CARGO_MANIFEST_DIR", self.dir.to_string_lossy())
    }

    /// The names of the tests in it.
    pub fn tests(&self) -> Outcome<Vec<String>> {
        let listing = self.cmd().arg("--list").arg("--format=terse").read()?;
        let tests = listing.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(tests.map(str::to_owned).collect())
    }
}

/// Builds tests without running them. `cargo_test` is a `cargo test` command without `--no-run`;
/// what the compiler says goes to `log`, or is shown if there is none.
pub fn build_tests(cargo_test: Cmd, log: Option<&Path>) -> Outcome<Vec<TestBinary>> {
    let cmd = cargo_test.arg("--no-run").arg("--message-format=json-render-diagnostics");
    if log.is_none() {
        println!("$ {cmd}");
    }
    Ok(test_binaries(&cmd.read_logged(log)?))
}

fn test_binaries(messages: &str) -> Vec<TestBinary> {
    let binary = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["profile"]["test"] == true;
        let executable = message["executable"].as_str().filter(|_| is_test)?;
        Some(TestBinary {
            target: text(&message["target"]["name"]),
            executable: PathBuf::from(executable),
            dir: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
        })
    };
    messages.lines().filter_map(binary).collect()
}

/// Every file below `root` whose name ends with `suffix`, as a path relative to it with `/` between
/// the parts, in order. What cargo builds and hidden directories are left out.
pub fn files(root: &Path, suffix: &str) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(dir) = pending.pop() {
        let unreadable = |error: std::io::Error| {
            Failure::DidNotRun(format!("cannot list {}: {error}", root.join(&dir).display()))
        };
        for entry in std::fs::read_dir(root.join(&dir)).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
            if !entry.file_type().map_err(unreadable)?.is_dir() {
                found.extend(name.ends_with(suffix).then_some(path));
            } else if name != "target" && !name.starts_with('.') {
                pending.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A file's text; the failure names the file.
pub fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::DidNotRun(format!("cannot read {}: {error}", path.display())))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let json = serde_json::json!({
            "workspace_members": ["a-id"],
            "target_directory": "/t",
            "packages": [
                { "name": "a", "version": "1.0.0", "id": "a-id", "license": null,
                  "rust_version": "1.95", "manifest_path": "/r/a/Cargo.toml",
                  "dependencies": [{ "name": "b", "kind": null }, { "name": "c", "kind": "dev" }],
                  "targets": [{ "name": "show", "kind": ["example"] }] },
                { "name": "b", "version": "2.0.0", "id": "b-id", "license": "MIT",
                  "manifest_path": "/c/b/Cargo.toml", "dependencies": [], "targets": [] },
            ],
        });
        let workspace = Workspace::from_metadata(PathBuf::from("/r"), &json);
        assert_eq!(workspace.target, Path::new("/t"));
        let members: Vec<_> = workspace.members().map(|package| &package.name).collect();
        assert_eq!(members, ["a"]);
        let [a, b] = &workspace.packages[..] else { panic!("two packages") };
        assert_eq!(a.dependencies.iter().map(|d| d.is_dev).collect::<Vec<_>>(), [false, true]);
        assert_eq!(a.examples, ["show"]);
        assert_eq!(a.licence, None);
        assert_eq!(b.licence.as_deref(), Some("MIT"));
    }

    #[test]
    fn test_binaries_are_told_from_other_artifacts() {
        let messages = r#"
{"reason":"compiler-artifact","manifest_path":"/r/a/Cargo.toml","target":{"name":"a"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/r/a/Cargo.toml","target":{"name":"a"},"profile":{"test":true},"executable":"/t/a-1"}
{"reason":"compiler-artifact","manifest_path":"/r/a/Cargo.toml","target":{"name":"tool"},"profile":{"test":false},"executable":"/t/tool"}
{"reason":"build-finished","success":true}"#;
        let binaries = test_binaries(messages);
        assert_eq!(binaries.len(), 1);
        assert_eq!(binaries[0].executable, Path::new("/t/a-1"));
        assert_eq!(binaries[0].dir, Path::new("/r/a"));
    }
}
