//! A link that can be cut, reset, stalled, slowed, made deaf one way and healed, without root: a
//! TCP proxy between two nodes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use rustix::net::{AddressFamily, SocketType};

const PASS: u8 = 0;
const STALL: u8 = 1;
const CUT: u8 = 2;
const LOSE_THERE: u8 = 3;
const LOSE_BACK: u8 = 4;
const TICK: Duration = Duration::from_millis(20);
/// What the system holds for a slow proxy.
const SLOW_BUFFER: usize = 32 << 10;

/// A direction, seen from the node that dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the node that dials.
    There,
    /// To the node that dials.
    Back,
}

/// A proxy. It ends with the value.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens: what the dialling node is told.
    pub address: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    target: String,
    mode: AtomicU8,
    /// Connections made before a cut belong to an older generation and are closed by it.
    generation: AtomicU64,
    /// Whether a connection of an older generation ends without a goodbye.
    abrupt: AtomicBool,
    /// Bytes that pass in a second, each way; 0 is any number.
    rate: u64,
    /// How long a connection may live, in milliseconds; 0 is for ever.
    life_ms: AtomicU64,
    ended: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
    accepted: AtomicU64,
}

impl Proxy {
    /// Passes connections on to `target`.
    pub fn to(target: &str) -> Self {
        Self::slow(target, 0)
    }

    /// The same, and lets `rate` bytes a second pass each way; 0 is any number. A slow proxy holds
    /// little of what waits.
    pub fn slow(target: &str, rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        if rate > 0 {
            // What it accepts inherits the size.
            set_socket_recv_buffer_size(&listener, SLOW_BUFFER).expect("it can be small");
        }
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let state = Arc::new(State {
            target: target.to_owned(),
            mode: AtomicU8::new(PASS),
            generation: AtomicU64::new(0),
            abrupt: AtomicBool::new(false),
            rate,
            life_ms: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &shared));
        Self { address, state }
    }

    /// Closes what is open and refuses what comes.
    pub fn cut(&self) {
        self.state.mode.store(CUT, Ordering::SeqCst);
        self.state.abrupt.store(false, Ordering::SeqCst);
        self.state.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends what is open by a reset (RFC 9293, 3.10.7), at both ends; takes what comes.
    pub fn reset(&self) {
        self.state.abrupt.store(true, Ordering::SeqCst);
        self.state.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Keeps connections open and passes nothing on: what a dead route looks like.
    pub fn stall(&self) {
        self.state.mode.store(STALL, Ordering::SeqCst);
    }

    /// Keeps connections open and loses what is sent one way. A connection that has lost
    /// something stays so after the proxy is healed: TCP never leaves out bytes.
    pub fn lose(&self, way: Way) {
        self.state.mode.store(way.lost_in(), Ordering::SeqCst);
    }

    /// Closes every connection when it is so old; `None` lets them live.
    pub fn limit_life(&self, life: Option<Duration>) {
        let life_ms = life.map_or(0, |life| life.as_millis() as u64);
        self.state.life_ms.store(life_ms, Ordering::SeqCst);
    }

    /// Passes on again.
    pub fn heal(&self) {
        self.state.mode.store(PASS, Ordering::SeqCst);
    }

    /// Bytes passed on so far, both ways.
    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }

    /// Bytes lost so far, both ways.
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// Connections taken so far.
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.cut();
    }
}

impl Way {
    fn lost_in(self) -> u8 {
        match self {
            Self::There => LOSE_THERE,
            Self::Back => LOSE_BACK,
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    while !state.ended.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((inbound, _)) => connect(inbound, state),
            Err(_) => thread::sleep(TICK),
        }
    }
}

fn connect(inbound: TcpStream, state: &Arc<State>) {
    // Read before the mode: a cut that comes in between closes what is made here.
    let generation = state.generation.load(Ordering::SeqCst);
    // A socket that is dropped here is closed: that is how a cut link refuses.
    if state.mode.load(Ordering::SeqCst) == CUT {
        return;
    }
    let Ok(outbound) = dial(state) else { return };
    state.accepted.fetch_add(1, Ordering::SeqCst);
    for (from, to, way) in [(&inbound, &outbound, Way::There), (&outbound, &inbound, Way::Back)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let state = Arc::clone(state);
        thread::spawn(move || pump(from, to, way, &state, generation));
    }
}

fn dial(state: &State) -> io::Result<TcpStream> {
    if state.rate == 0 {
        return TcpStream::connect(&state.target);
    }
    let target: SocketAddr = state.target.parse().expect("a node says where it listens");
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    // Once it is connected it has promised room for more, and what then comes is lost.
    set_socket_recv_buffer_size(&socket, SLOW_BUFFER)?;
    rustix::net::connect(&socket, &target)?;
    Ok(socket.into())
}

fn pump(mut from: TcpStream, mut to: TcpStream, way: Way, state: &State, generation: u64) {
    let _ = from.set_nonblocking(false);
    let _ = from.set_nodelay(true);
    let _ = from.set_read_timeout(Some(TICK));
    let born = Instant::now();
    let mut deaf = false;
    let mut buffer = vec![0; 64 * 1024];
    while state.generation.load(Ordering::SeqCst) == generation && !outlived(born, state) {
        let mode = state.mode.load(Ordering::SeqCst);
        deaf |= mode == way.lost_in();
        if mode == STALL {
            thread::sleep(TICK);
            continue;
        }
        let piece = match state.rate * TICK.as_millis() as u64 / 1000 {
            0 => buffer.len(),
            piece => {
                thread::sleep(TICK);
                buffer.len().min(piece as usize)
            }
        };
        match from.read(&mut buffer[..piece]) {
            Ok(0) => break,
            Ok(read) if deaf => {
                state.lost.fetch_add(read as u64, Ordering::SeqCst);
            }
            Ok(read) => {
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
                state.passed.fetch_add(read as u64, Ordering::SeqCst);
            }
            Err(error) if idle(error.kind()) => {}
            Err(_) => break,
        }
    }
    if state.generation.load(Ordering::SeqCst) != generation && state.abrupt.load(Ordering::SeqCst)
    {
        // Closed with this set, and without a shutdown before, a socket resets its connection.
        let _ = set_socket_linger(&from, Some(Duration::ZERO));
        let _ = set_socket_linger(&to, Some(Duration::ZERO));
        return;
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn outlived(born: Instant, state: &State) -> bool {
    let life_ms = state.life_ms.load(Ordering::SeqCst);
    life_ms > 0 && born.elapsed() >= Duration::from_millis(life_ms)
}

fn idle(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::harness::{PATIENCE, until};

    /// Sends back what it is sent.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut writer = stream.try_clone().unwrap();
                    std::io::copy(&mut &stream, &mut writer)
                });
            }
        });
        address
    }

    fn echoes(stream: &mut TcpStream) -> bool {
        let mut byte = [0];
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok()
    }

    #[test]
    fn a_link_is_cut_and_healed() {
        let proxy = Proxy::to(&echo());
        let mut before = TcpStream::connect(&proxy.address).unwrap();
        assert!(echoes(&mut before));
        proxy.cut();
        until("the cut", PATIENCE, || !echoes(&mut before));
        let mut refused = TcpStream::connect(&proxy.address).unwrap();
        assert!(!echoes(&mut refused));
        proxy.heal();
        let mut after = TcpStream::connect(&proxy.address).unwrap();
        assert!(echoes(&mut after));
    }

    #[test]
    fn a_stalled_link_keeps_what_it_was_given() {
        let proxy = Proxy::to(&echo());
        let mut stream = TcpStream::connect(&proxy.address).unwrap();
        assert!(echoes(&mut stream));
        until("both ways", PATIENCE, || proxy.passed() == 2);
        let passed = proxy.passed();
        proxy.stall();
        // A read that began before the stall may still pass one on.
        thread::sleep(TICK * 3);
        assert!(!echoes(&mut stream));
        assert_eq!(proxy.passed(), passed);
        proxy.heal();
        let mut byte = [0];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut byte).unwrap();
    }

    #[test]
    fn a_reset_is_one() {
        let proxy = Proxy::to(&echo());
        let mut stream = TcpStream::connect(&proxy.address).unwrap();
        assert!(echoes(&mut stream));
        proxy.reset();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let ended = stream.read(&mut [0]);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(echoes(&mut TcpStream::connect(&proxy.address).unwrap()));
    }

    #[test]
    fn what_is_lost_one_way_never_comes() {
        let proxy = Proxy::to(&echo());
        for way in [Way::There, Way::Back] {
            let mut stream = TcpStream::connect(&proxy.address).unwrap();
            assert!(echoes(&mut stream));
            let lost = proxy.lost();
            proxy.lose(way);
            // A read that began before may still pass one on.
            thread::sleep(TICK * 3);
            assert!(!echoes(&mut stream));
            assert_eq!(proxy.lost(), lost + 1);
            proxy.heal();
            assert!(!echoes(&mut stream), "a gap in the bytes of a connection");
            assert!(echoes(&mut TcpStream::connect(&proxy.address).unwrap()));
        }
    }

    #[test]
    fn a_connection_has_its_time() {
        let proxy = Proxy::to(&echo());
        let mut stream = TcpStream::connect(&proxy.address).unwrap();
        assert!(echoes(&mut stream));
        proxy.limit_life(Some(Duration::from_millis(50)));
        until("the end of its life", PATIENCE, || !echoes(&mut stream));
    }
}
