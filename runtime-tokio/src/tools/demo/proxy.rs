//! A link that can be cut and healed: a TCP proxy before the node that is dialled.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The wait after a failure to accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A proxy on loopback. It ends with the value, and what goes through it.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Where it listens: what the dialling node is told.
    pub(super) address: SocketAddr,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Passes connections on to `target`.
    pub(super) async fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (open, opened) = watch::channel(true);
        let task = tokio::spawn(accept(listener, target, opened));
        Ok(Self { address, open, task })
    }

    /// Drops what is connected and refuses what comes.
    pub(super) fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Passes connections on again.
    pub(super) fn heal(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, open: watch::Receiver<bool>) {
    loop {
        match listener.accept().await {
            // A socket that is dropped here is closed: that is how a cut link refuses.
            Ok(_) if !*open.borrow() => {}
            Ok((inbound, _)) => drop(tokio::spawn(pass(inbound, target, open.clone()))),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn pass(mut inbound: TcpStream, target: SocketAddr, mut open: watch::Receiver<bool>) {
    let Ok(mut outbound) = TcpStream::connect(target).await else { return };
    for socket in [&inbound, &outbound] {
        // Without it the link is slower, and no less right.
        let _ = socket.set_nodelay(true);
    }
    tokio::select! {
        // However a connection ends, its nodes notice by themselves.
        _ = copy_bidirectional(&mut inbound, &mut outbound) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}
