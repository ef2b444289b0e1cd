//! A name with two addresses, of which the first swallows what is sent to it.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tempfile::TempDir;

/// Runs a program where this file is the list of hosts; it stays the child of who started it.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

/// What `localhost` means to a program: `::1`, then `127.0.0.1`.
#[derive(Debug)]
pub struct TwoAddresses {
    folder: TempDir,
}

impl TwoAddresses {
    /// Writes the list of hosts.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn of_localhost() -> Self {
        let folder = TempDir::with_prefix("slipstream-").expect("a temporary folder can be made");
        let hosts = "::1 localhost\n127.0.0.1 localhost\n";
        fs::write(folder.path().join("hosts"), hosts).expect("a file can be written");
        Self { folder }
    }

    /// The program, with its arguments, by way of which another one is started so.
    pub fn program(&self) -> Vec<String> {
        let hosts = self.folder.path().join("hosts").to_string_lossy().into_owned();
        let words = ["unshare", "--mount", "sh", "-c", WITH_HOSTS, &hosts];
        words.map(str::to_owned).to_vec()
    }
}

/// A port of `::1` that answers nobody: its queue is full, so whatever asks for a connection is
/// dropped.
#[derive(Debug)]
pub struct SilentPort {
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl SilentPort {
    /// Takes the port that an address of the other family ends with.
    ///
    /// # Panics
    /// If the port is taken, or still answers.
    pub fn beside(address: &str) -> Self {
        let other: SocketAddr = address.parse().expect("addresses are written ip:port");
        let silent = SocketAddr::from((Ipv6Addr::LOCALHOST, other.port()));
        let listener = TcpListener::bind(silent).expect("the port is free in this family too");
        rustix::net::listen(&listener, 0).expect("a queue can be made short");
        let mut queued = Vec::new();
        while queued.len() < 1024 {
            match TcpStream::connect_timeout(&silent, Duration::from_millis(500)) {
                Ok(stream) => queued.push(stream),
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return Self { _listener: listener, _queued: queued };
                }
                Err(error) => panic!("a full queue drops, but this one says {error}"),
            }
        }
        panic!("a short queue holds {} connections", queued.len());
    }
}
