//! Wine, which runs programs for Windows: set up without a screen, in the target directory.
//!
//! `std` takes its random numbers from `bcryptprimitives.dll`, which wine has from version 9 on. For
//! those before, one that asks the function that they have is compiled by mingw.

use std::path::Path;

use crate::command::{Cmd, Failure, Outcome};
use crate::workspace::Workspace;

const LIBRARY: &str = "bcryptprimitives.dll";

const SOURCE: &str = r"
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG bytes);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T bytes)
{
    return SystemFunction036(buffer, (ULONG)bytes);
}
";

/// What programs need in their environment to run in wine, which is set up if it is not.
pub fn environment(workspace: &Workspace) -> Outcome<Vec<(&'static str, String)>> {
    let prefix = workspace.target.join("wine");
    let environment = vec![
        ("WINEPREFIX", prefix.to_string_lossy().into_owned()),
        // Not a word on standard error that is not the program's.
        ("WINEDEBUG", "-all".into()),
        // Nobody is there to be asked whether these shall be installed.
        ("WINEDLLOVERRIDES", "mscoree,mshtml=".into()),
    ];
    let system = prefix.join("drive_c/windows/system32");
    if !system.join(LIBRARY).exists() {
        std::fs::create_dir_all(&prefix).map_err(|error| cannot_make(&prefix, error))?;
        let boot = Cmd::new(&workspace.root, "wineboot", "--init");
        environment.iter().fold(boot, |cmd, (name, value)| cmd.env(name, value.as_str())).run()?;
        compile(workspace, &prefix, &system.join(LIBRARY))?;
    }
    Ok(environment)
}

fn compile(workspace: &Workspace, prefix: &Path, library: &Path) -> Outcome {
    let source = prefix.join("bcryptprimitives.c");
    std::fs::write(&source, SOURCE).map_err(|error| cannot_make(&source, error))?;
    Cmd::new(&workspace.root, "x86_64-w64-mingw32-gcc", "-shared -O2 -o")
        .arg(library.to_string_lossy())
        .arg(source.to_string_lossy())
        .arg("-ladvapi32")
        .run()
}

fn cannot_make(path: &Path, error: std::io::Error) -> Failure {
    Failure::DidNotRun(format!("cannot make {}: {error}", path.display()))
}
