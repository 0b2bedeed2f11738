//! `--healthcheck`: asks the process that listens on a socket whether it is ready. For containers, whose images have
//! no shell and no curl.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::log;

/// Longer than any healthy answer by a factor of a hundred, shorter than a container's health check may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks `GET /ready`; success if the answer is 200.
#[must_use]
pub fn run(program: &str, socket: &Path) -> ExitCode {
    match ask(socket) {
        Ok(status) if status == "200" => ExitCode::SUCCESS,
        Ok(status) => {
            log::say(format_args!("{program}: not ready: {} answered {status}", socket.display()));
            ExitCode::FAILURE
        }
        Err(error) => {
            log::say(format_args!("{program}: not ready: {}: {error}", socket.display()));
            ExitCode::FAILURE
        }
    }
}

fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: galo\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(String::from_utf8_lossy(&head[9..]).into_owned())
}
