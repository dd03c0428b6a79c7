//! Metrics by HTTP, or in a file for the textfile collector of node_exporter.
//!
//! # Protocol
//! Each connection is read by a thread (`tiny_http`), so a client that sends slowly keeps no
//! other one waiting. A burst of connections may share the four threads that are ready: four
//! slow clients at the same moment can delay others. Answers are written by [`WORKERS`]
//! threads. The main thread waits for a signal and then ends the process, whatever the clients
//! do.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tiny_http::{Header, Method, Request, Response, Server};
use wal_core::background;

use crate::interrupt::{self, Interrupt};

/// The media type of OpenMetrics.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How many answers are written at the same time.
const WORKERS: usize = 4;
/// How often the main thread checks that connections are accepted.
const CHECK: Duration = Duration::from_secs(1);

/// Makes the text of the metrics.
pub(crate) type Render = dyn Fn() -> anyhow::Result<String> + Send + Sync;

/// Answers requests at `address` until a signal ends the command. `ready` gets the address,
/// whose port the system has chosen if it was 0.
pub(crate) fn listen(
    address: SocketAddr,
    render: Arc<Render>,
    ready: impl FnOnce(SocketAddr) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let interrupt = interrupt::catch()?;
    let server = Server::http(address);
    let server = server.map_err(|cause| {
        anyhow::anyhow!("{address}: cannot listen: {cause}; choose another address by --listen")
    })?;
    let bound = server.server_addr().to_ip().unwrap_or(address);
    let server = Arc::new(server);
    // Set once no connection is accepted any more.
    let has_failed = Arc::new(AtomicBool::new(false));
    for _ in 0..WORKERS {
        let (server, render) = (server.clone(), render.clone());
        let has_failed = has_failed.clone();
        let answer = move || {
            while let Ok(request) = server.recv() {
                // A client that has gone needs no answer.
                let _ = respond(request, &*render);
            }
            has_failed.store(true, Ordering::Relaxed);
        };
        background::spawn("walctl-http", answer).context("cannot start a thread")?;
    }
    ready(bound)?;
    while !wait(interrupt, Instant::now() + CHECK) {
        if has_failed.load(Ordering::Relaxed) {
            anyhow::bail!("{bound}: cannot accept connections; start the command again");
        }
    }
    Ok(())
}

/// Writes the file at `path` each `interval`, until a signal ends the command. At each moment
/// it is a whole one.
pub(crate) fn write_file(
    path: &Path,
    interval: Duration,
    is_once: bool,
    render: &Render,
) -> anyhow::Result<()> {
    let interrupt = interrupt::catch()?;
    let mut due = Instant::now();
    loop {
        replace(path, &render()?)?;
        due += interval;
        if is_once || wait(interrupt, due) {
            return Ok(());
        }
        // After a pause of the machine the missed ones are skipped.
        due = due.max(Instant::now());
    }
}

/// Waits for a signal, until `due`. True if the command has to end.
pub(crate) fn wait(interrupt: Interrupt, due: Instant) -> bool {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if interrupt.is_set() {
            return true;
        }
        if left.is_zero() {
            return false;
        }
        // Rounded up: a rest below a millisecond is no busy loop.
        let millis = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut signals = [PollFd::new(interrupt.descriptor(), PollFlags::POLLIN)];
        // An error is EINTR, by a signal that another thread handles.
        let _ = poll(&mut signals, timeout);
    }
}

fn respond(request: Request, render: &Render) -> std::io::Result<()> {
    let path = request.url().split('?').next().unwrap_or_default();
    let is_read = matches!(request.method(), Method::Get | Method::Head);
    if path != "/metrics" {
        let response = Response::from_string("not found: the metrics are at /metrics\n");
        return request.respond(response.with_status_code(404));
    }
    if !is_read {
        let response = Response::from_string("only GET and HEAD\n").with_status_code(405);
        return request.respond(with_header(response, "Allow", "GET, HEAD"));
    }
    match render() {
        Ok(text) => {
            let response = Response::from_string(text);
            // With a known length the answer is not chunked.
            let response = response.with_chunked_threshold(usize::MAX);
            request.respond(with_header(response, "Content-Type", CONTENT_TYPE))
        }
        Err(error) => {
            let response = Response::from_string(format!("{error:#}\n"));
            request.respond(response.with_status_code(500))
        }
    }
}

fn with_header<R: std::io::Read>(response: Response<R>, name: &str, value: &str) -> Response<R> {
    match Header::from_bytes(name, value) {
        Ok(header) => response.with_header(header),
        Err(()) => response,
    }
}

/// Replaces the file at `path`: a reader sees the old one or the new one.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = path.file_name().with_context(|| {
        let path = path.display();
        format!("{path}: is no path of a file; name one that ends with .prom")
    })?;
    let mut temporary = name.to_owned();
    // The collector reads names that end with `.prom` only.
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary: PathBuf = path.with_file_name(temporary);
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&temporary, path));
    written.or_else(|cause| {
        // Nothing else knows the name.
        let _ = fs::remove_file(&temporary);
        let path = path.display();
        Err(cause).with_context(|| format!("{path}: cannot write the metrics"))
    })
}
