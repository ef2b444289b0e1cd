//! A connection to whichever address of a name answers first (RFC 8305, "Happy Eyeballs").
//!
//! One address after the other is tried, the next one when the one before has failed or has had its
//! head start, so that an address that swallows packets costs a quarter of a second. The first
//! connection wins; the other attempts are given up. An error names each address that was tried.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use crate::config::Limits;
use crate::host::runtime::{Runtime, first};
use crate::types::time::Instant;

/// How long an address has before the next one is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Until when a connection that is dialled now must be open: a little before the handshake's time
/// is over, so that it can be said which addresses have not answered.
pub fn deadline<R: Runtime>(limits: &Limits) -> Instant {
    R::now().instant + limits.handshake_timeout * 9 / 10
}

/// Opens a connection to one of these addresses, with `connect`.
///
/// # Errors
/// What came of each address, for people.
pub async fn connect_first<R, T, E, F>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    until: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, String>
where
    R: Runtime,
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = in_turn(addresses);
    let mut trying = Trying { attempts: Vec::new(), failed: Vec::new() };
    loop {
        if let Some(address) = waiting.pop_front() {
            trying.attempts.push((address, Box::pin(connect(address))));
        }
        if trying.attempts.is_empty() {
            return Err(trying.told());
        }
        let now = R::now().instant;
        if now >= until {
            return Err(trying.told());
        }
        let next = if waiting.is_empty() { until } else { until.min(now + HEAD_START) };
        let overdue = async {
            R::timer(next).await;
            None
        };
        if let Some(connection) = first(poll_fn(|cx| trying.poll(cx)), overdue).await {
            return Ok(connection);
        }
    }
}

/// The addresses in the order in which they are tried: as they come, the two families by turns (RFC
/// 8305 section 4).
fn in_turn(addresses: impl IntoIterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut families: [VecDeque<SocketAddr>; 2] = Default::default();
    let mut first_family = None;
    for address in addresses {
        let is_first = address.is_ipv4() == *first_family.get_or_insert(address.is_ipv4());
        let family = &mut families[usize::from(!is_first)];
        if !family.contains(&address) {
            family.push_back(address);
        }
    }
    let mut in_turn = VecDeque::new();
    while in_turn.len() < MAX_ADDRESSES && families.iter().any(|family| !family.is_empty()) {
        in_turn.extend(families.iter_mut().filter_map(VecDeque::pop_front));
    }
    in_turn.truncate(MAX_ADDRESSES);
    in_turn
}

/// Attempts under way, and what came of the others.
struct Trying<F> {
    attempts: Vec<(SocketAddr, Pin<Box<F>>)>,
    failed: Vec<String>,
}

impl<F> Trying<F> {
    /// Ready when an attempt has come to an end, with the connection if it is one.
    fn poll<T, E>(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>>
    where
        E: Display,
        F: Future<Output = Result<T, E>>,
    {
        for index in 0..self.attempts.len() {
            let (address, attempt) = &mut self.attempts[index];
            let Poll::Ready(ended) = attempt.as_mut().poll(cx) else { continue };
            let error = match ended {
                Ok(connection) => return Poll::Ready(Some(connection)),
                Err(error) => error,
            };
            self.failed.push(format!("{address}: {error}"));
            self.attempts.remove(index);
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    fn told(self) -> String {
        let silent = self.attempts.iter().map(|(address, _)| format!("{address}: no answer"));
        let all: Vec<String> = self.failed.iter().cloned().chain(silent).collect();
        if all.is_empty() { "the name has no address".to_string() } else { all.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use core::future::pending;

    use super::*;
    use crate::host::runtime::by_hand::{ByHand, pass, start, taken};
    use crate::host::runtime::sleep;

    const MS: Duration = Duration::from_millis(1);

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    /// An address with this port refuses (1), answers at once (2), after 300 ms (3), or never.
    async fn answer(address: SocketAddr) -> Result<SocketAddr, &'static str> {
        match address.port() {
            1 => Err("refused"),
            2 => Ok(address),
            3 => {
                sleep::<ByHand>(MS * 300).await;
                Ok(address)
            }
            _ => pending().await,
        }
    }

    /// What comes of these addresses after so many milliseconds.
    fn after(ms: u32, texts: &[&str]) -> Option<Result<SocketAddr, String>> {
        let (until, addresses) = (ByHand::now().instant + MS * 4500, addresses(texts));
        let connecting =
            start(async move { connect_first::<ByHand, _, _, _>(addresses, until, answer).await });
        pass(MS * ms);
        taken(&connecting)
    }

    // keeps: happy-eyeballs
    #[test]
    fn an_address_that_swallows_packets_costs_its_head_start() {
        let two = ["10.0.0.1:9", "[::1]:2"];
        assert_eq!(after(249, &two), None);
        assert_eq!(after(250, &two), Some(Ok(addresses(&two)[1])));
        let slow = ["10.0.0.1:3", "[::1]:9"];
        assert_eq!(after(300, &slow), Some(Ok(addresses(&slow)[0])), "it is not given up");
        let many = ["10.0.0.1:9", "10.0.0.2:9", "10.0.0.3:9", "10.0.0.4:2"];
        assert_eq!(after(750, &many), Some(Ok(addresses(&many)[3])));
    }

    // keeps: happy-eyeballs
    #[test]
    fn a_refusal_makes_room_for_the_next_address_at_once() {
        let three = ["10.0.0.1:1", "[::1]:1", "10.0.0.2:2"];
        assert_eq!(after(0, &three), Some(Ok(addresses(&three)[2])));
    }

    // keeps: happy-eyeballs
    #[test]
    fn an_error_names_each_address_that_was_tried() {
        let refused = after(0, &["10.0.0.1:1", "[::1]:1"]);
        assert_eq!(refused, Some(Err("10.0.0.1:1: refused, [::1]:1: refused".into())));
        assert_eq!(after(4499, &["10.0.0.1:9", "[::1]:1"]), None);
        let silent = after(4500, &["10.0.0.1:9", "[::1]:1"]);
        assert_eq!(silent, Some(Err("[::1]:1: refused, 10.0.0.1:9: no answer".into())));
        assert_eq!(after(0, &[]), Some(Err("the name has no address".into())));
    }

    #[test]
    fn families_take_turns_and_no_address_comes_twice() {
        let told = ["[::1]:1", "[::2]:1", "[::1]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"];
        let order = ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"];
        assert_eq!(in_turn(addresses(&told)), addresses(&order));
        let many = (1..=100).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        assert_eq!(in_turn(many).len(), MAX_ADDRESSES);
    }
}
