// The server, blocking style. `main.rs` includes this file twice: once with `imp` = strands, where
// each connection is a fiber, and once with `imp` = std, where it is an OS thread.

use std::io::{self, Read, Write};
use std::time::Duration;

use imp::net::{TcpListener, TcpStream};
use imp::thread;

/// Serves until it is killed.
pub fn serve(listener: TcpListener) -> io::Result<()> {
    for stream in listener.incoming() {
        let served = stream.and_then(|stream| {
            let name = thread::Builder::new().name("connection".into());
            name.stack_size(super::STACK_BYTES).spawn(move || echo(stream))
        });
        if let Err(error) = served {
            // Out of descriptors, threads or memory: some come back when a connection ends.
            eprintln!("a connection was turned away: {error}");
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}
