//! `std::process::Command` from fibers: it forks, waits and reads, and blocks meanwhile.

mod thread_common;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use strands::thread;
use thread_common::{from_everywhere, runtime};

#[test]
fn a_command_runs_and_is_waited_for() {
    from_everywhere(|| {
        let output = Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    });
}

#[test]
fn many_commands_at_once() {
    runtime(2).run(|| {
        thread::scope(|scope| {
            for i in 0..10 {
                scope.spawn(move || {
                    let text = strands::unblock(|| {
                        Command::new("echo").arg(i.to_string()).output().unwrap().stdout
                    });
                    assert_eq!(text, format!("{i}\n").into_bytes());
                });
            }
        });
    });
}

#[test]
fn a_childs_pipes() {
    runtime(1).run(|| {
        let piped = || Stdio::piped();
        let mut child = Command::new("cat").stdin(piped()).stdout(piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || strands::unblock(|| stdin.write_all(&[7; 200_000]).unwrap()));
            let mut bytes = Vec::new();
            strands::unblock(|| stdout.read_to_end(&mut bytes).unwrap());
            assert_eq!(bytes, [7; 200_000]);
        });
        assert!(strands::unblock(|| child.wait()).unwrap().success());
    });
}

#[test]
fn a_signal_mask_is_not_inherited_changed() {
    // Workers change no signal masks, so a child of a fiber can be interrupted as any.
    let from_thread = Command::new("grep").args(["SigBlk", "/proc/self/status"]).output().unwrap();
    let from_fiber =
        runtime(1).run(|| Command::new("grep").args(["SigBlk", "/proc/self/status"]).output());
    assert_eq!(from_fiber.unwrap().stdout, from_thread.stdout);
}
