//! Tells systemd that the service has begun (`sd_notify`).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::{env, io};

/// Sends `READY=1` to the socket that `NOTIFY_SOCKET` names. Without one, or where it does not
/// listen, nothing is lost: systemd ends a service that is not ready in time and says so.
pub(super) fn tell() {
    let _ = try_tell();
}

fn try_tell() -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address)?;
    Ok(())
}
