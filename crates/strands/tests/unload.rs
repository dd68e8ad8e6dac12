//! A library that uses strands, closed by the program that loaded it, stays: its signal handler may
//! be called at any time, and its workers run.
//!
//! Without libtest, so that the main thread is the program's own.

mod thread_common;

use std::ffi::{CStr, CString, c_int, c_void};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::ptr::{self, NonNull};

use thread_common::{child, child_case, errors};

/// The reasons for which this test may be skipped.
const SKIPS: [&str; 1] = ["a library can only be built for the host, and these tests are not"];

/// Builds the example `unload_plugin` as a library, in the directory and profile of this program.
fn build_plugin() -> Option<PathBuf> {
    let program = std::env::current_exe().unwrap();
    let profile_dir = program.ancestors().nth(2).expect("it is in TARGET/PROFILE/deps");
    let target_dir = profile_dir.parent().expect("as above");
    if !target_dir.join(".rustc_info.json").exists() {
        return None; // TARGET/TRIPLE/PROFILE/deps
    }
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => panic!("{} names no profile", profile_dir.display()),
    };
    let output = Command::new(env!("CARGO"))
        .args(["rustc", "--quiet", "--offline", "-p", "strands", "--example", "unload_plugin"])
        .args(["--crate-type", "cdylib", "--profile", profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", output.status, errors(&output));
    let name =
        format!("{}unload_plugin{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let plugin = profile_dir.join("examples").join(name);
    assert!(plugin.exists(), "{} was not built", plugin.display());
    Some(plugin)
}

/// A loaded library. Dropping it closes it.
struct Library(NonNull<c_void>);

impl Library {
    fn open(path: &Path, flags: c_int) -> Option<Library> {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: what the library does when it is loaded is std's affair; we know no other.
        NonNull::new(unsafe { libc::dlopen(path.as_ptr(), flags) }).map(Library)
    }

    fn load(path: &Path) -> Library {
        Library::open(path, libc::RTLD_NOW).unwrap_or_else(|| {
            // SAFETY: the last call on this thread failed, so there is a text.
            panic!("{:?}", unsafe { CStr::from_ptr(libc::dlerror()) })
        })
    }

    fn is_loaded(path: &Path) -> bool {
        Library::open(path, libc::RTLD_NOW | libc::RTLD_NOLOAD).is_some()
    }

    /// To be called while the library is loaded.
    fn function(&self, name: &CStr) -> extern "C" fn() -> u32 {
        // SAFETY: the library is loaded.
        let function = unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) };
        assert!(!function.is_null(), "there is no {name:?}");
        // SAFETY: all functions of the plugin have this type.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> u32>(function) }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: opened once for each `Library`.
        assert_eq!(unsafe { libc::dlclose(self.0.as_ptr()) }, 0);
    }
}

/// Loads the library, runs it on a thread that ends, so that no thread-local keeps it, and closes it.
fn load_and_close(path: &Path) {
    let library = Library::load(path);
    let function = library.function(c"run_and_end");
    assert_eq!(std::thread::spawn(move || function()).join().unwrap(), 100);
}

/// A handler that was there before the library.
extern "C" fn on_fault(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the signal is a fault's, so it has an address; the calls are async-signal-safe.
    unsafe {
        let expected = (*info).si_addr().addr() == 16;
        libc::_exit(if expected { 42 } else { 43 });
    }
}

fn fault() -> ! {
    // SAFETY: nothing is mapped there, so the signal comes; that is the point.
    unsafe { ptr::without_provenance::<u32>(16).read_volatile() };
    unreachable!("it did not fault");
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn overflow(depth: usize) -> usize {
    let mut frame = [depth; 512];
    std::hint::black_box(&mut frame);
    overflow(depth + 1) + frame[depth % 512]
}

fn run(case: &str, path: &Path) {
    match case {
        "runs, is closed, and runs again" => {
            assert!(!Library::is_loaded(path));
            for _ in 0..10 {
                load_and_close(path);
                assert!(Library::is_loaded(path), "its handler is installed");
            }
        }
        "closed with fibers that run" => {
            assert_eq!(Library::load(path).function(c"run_and_leave")(), 7);
            assert!(Library::is_loaded(path));
            // Its fibers wake up a hundred times.
            std::thread::sleep(std::time::Duration::from_millis(10));
            assert_eq!(Library::load(path).function(c"run_and_leave")(), 7);
        }
        "a foreign fault after the close" => {
            // SAFETY: the handler has the type that SA_SIGINFO asks for.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_fault as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                assert_eq!(libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()), 0);
            }
            load_and_close(path);
            fault();
        }
        "a fault after the close" => {
            load_and_close(path);
            fault();
        }
        "a plain overflow after the close" => {
            load_and_close(path);
            std::hint::black_box(overflow(0));
        }
        "an overflow in a fiber of the library" => {
            load_and_close(path);
            Library::load(path).function(c"overflow")();
        }
        "two copies in one program" => {
            assert_eq!(Library::load(path).function(c"run_and_leave")(), 7);
            assert_eq!(strands::spawn(|| 8).join().unwrap(), 8);
            let named = strands::thread::Builder::new().name("host's".into());
            named.spawn(|| std::hint::black_box(overflow(0))).unwrap().join().unwrap();
        }
        other => panic!("no case {other}"),
    }
}

pub fn main() {
    const PLUGIN: &str = "STRANDS_TEST_PLUGIN";
    if let Some(case) = child_case() {
        return run(&case, Path::new(&std::env::var_os(PLUGIN).unwrap()));
    }
    let Some(plugin) = build_plugin() else {
        let skipped = format!("SKIPPED unload: {}\n", SKIPS[0]);
        return io::stderr().write_all(skipped.as_bytes()).unwrap();
    };
    let check = |case: &str, ended: fn(&Output) -> bool, says: &str| {
        let output = child("unload", case).env(PLUGIN, &plugin).output().unwrap();
        let errors = errors(&output);
        assert!(ended(&output), "{case}: {}\n{errors}", output.status);
        assert!(errors.contains(says), "{case}: {says:?} is not in {errors}");
        println!("{case} ... ok");
    };
    let well = |output: &Output| output.status.success();
    let by_abort = |output: &Output| output.status.signal() == Some(libc::SIGABRT);
    let by_fault = |output: &Output| output.status.signal() == Some(libc::SIGSEGV);
    check("runs, is closed, and runs again", well, "");
    check("closed with fibers that run", well, "");
    check("a foreign fault after the close", |output| output.status.code() == Some(42), "");
    check("a fault after the close", by_fault, "");
    check("a plain overflow after the close", by_abort, "thread 'main'");
    check("an overflow in a fiber of the library", by_abort, "fiber 'plugged' (id ");
    check("two copies in one program", by_abort, "fiber 'host's' (id ");
}
