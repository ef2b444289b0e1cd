//! Ranges, and rules that join several keys.

use std::collections::BTreeSet;
use std::time::Duration;

use bytesize::ByteSize;
use slipstream_core::ids::is_name;
use slipstream_core::message::{MAX_KEY_BYTES, MAX_PATH, MAX_TAGS};

use super::Settings;
use super::units::{Size, SpanText};

type Faults = Vec<(String, String)>;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PIB: u64 = 1 << 50;

/// Everything that is wrong, each with the key that it is told about.
pub(super) fn problems(settings: &Settings) -> Faults {
    let mut faults = Vec::new();
    check_numbers(settings, &mut faults);
    check_sizes(settings, &mut faults);
    check_spans(settings, &mut faults);
    check_names(settings, &mut faults);
    check_listeners(settings, &mut faults);
    check_relations(settings, &mut faults);
    faults
}

fn fault(faults: &mut Faults, key: &str, message: impl AsRef<str>) {
    faults.push((key.to_owned(), format!("{key}: {}", message.as_ref())));
}

fn check_numbers(settings: &Settings, faults: &mut Faults) {
    let limits = &settings.limits;
    for (key, value, min, max) in [
        ("retry.max_attempts", settings.retry.max_attempts, 1, 1_000_000),
        ("retry.max_rate", settings.retry.max_rate, 1, 10_000_000),
        ("limits.max_key_bytes", limits.max_key_bytes, 16, MAX_KEY_BYTES as u32),
        ("limits.max_tags", limits.max_tags, 1, MAX_TAGS as u32),
        ("limits.max_json_depth", limits.max_json_depth, 1, 512),
        ("limits.max_nodes", limits.max_nodes, 2, MAX_PATH as u32),
        ("limits.max_connections", limits.max_connections, 1, 1_000_000),
        ("limits.max_sessions", limits.max_sessions, 1, 1_000_000),
        ("limits.delivery_window", limits.delivery_window, 1, 65_536),
        ("limits.idempotency_ids", limits.idempotency_ids, 1, 100_000_000),
    ] {
        if !(min..=max).contains(&value) {
            fault(faults, key, format!("{value} is out of range, allowed are {min} to {max}"));
        }
    }
}

fn check_sizes(settings: &Settings, faults: &mut Faults) {
    let check = |faults: &mut Faults, key, size: &Size, min, max| {
        if !(min..=max).contains(&size.bytes()) {
            let (min, max) = (ByteSize(min).display().iec(), ByteSize(max).display().iec());
            let size = ByteSize(size.bytes()).display().iec();
            fault(faults, key, format!("{size} is out of range, allowed are {min} to {max}"));
        }
    };
    let (store, limits) = (&settings.store, &settings.limits);
    check(faults, "limits.connections_max_bytes", &limits.connections_max_bytes, MIB, PIB);
    check(faults, "store.max_bytes", &store.max_bytes, MIB, PIB);
    check(faults, "store.session_max_bytes", &store.session_max_bytes, 64 * KIB, PIB);
    check(faults, "store.history_max_bytes", &store.history_max_bytes, 0, PIB);
    check(faults, "limits.max_message_bytes", &limits.max_message_bytes, KIB, 256 * MIB);
    check(
        faults,
        "limits.idempotency_max_bytes",
        &limits.idempotency_max_bytes,
        64 * KIB,
        64 * GIB,
    );
}

fn check_spans(settings: &Settings, faults: &mut Faults) {
    let check = |faults: &mut Faults, key, span: &SpanText, min, max| {
        if !(min..=max).contains(&span.time()) {
            let [span, min, max] = [span.time(), min, max].map(humantime::format_duration);
            fault(faults, key, format!("{span} is out of range, allowed are {min} to {max}"));
        }
    };
    let (store, limits) = (&settings.store, &settings.limits);
    check(faults, "heartbeat.interval", &settings.heartbeat.interval, 10 * MS, HOUR);
    check(faults, "heartbeat.timeout", &settings.heartbeat.timeout, 20 * MS, DAY);
    check(faults, "reconnect.initial", &settings.reconnect.initial, MS, HOUR);
    check(faults, "reconnect.max", &settings.reconnect.max, MS, DAY);
    check(faults, "retry.ack_timeout", &settings.retry.ack_timeout, 10 * MS, DAY);
    check(faults, "retry.max_backoff", &settings.retry.max_backoff, 10 * MS, DAY);
    check(faults, "routing.offer_delay", &settings.routing.offer_delay, Duration::ZERO, MINUTE);
    check(faults, "store.event_ttl", &store.event_ttl, SECOND, 30 * DAY);
    check(faults, "store.tombstone_ttl", &store.tombstone_ttl, SECOND, 3650 * DAY);
    check(faults, "store.session_ttl", &store.session_ttl, SECOND, 3650 * DAY);
    check(faults, "limits.max_clock_drift", &limits.max_clock_drift, 10 * MS, DAY);
    check(faults, "limits.handshake_timeout", &limits.handshake_timeout, 100 * MS, 5 * MINUTE);
}

fn check_names(settings: &Settings, faults: &mut Faults) {
    let tags = &settings.node.tags;
    for (index, tag) in tags.iter().enumerate().filter(|(_, tag)| !is_name(tag)) {
        let key = format!("node.tags[{index}]");
        fault(faults, &key, format!("`{tag}` is no tag, allowed are 1 to 64 of A-Za-z0-9._-"));
    }
    if tags.len() > settings.limits.max_tags as usize {
        let max = settings.limits.max_tags;
        fault(faults, "node.tags", format!("{} tags, limits.max_tags is {max}", tags.len()));
    }
    if let Some(group) = settings.node.cluster_group.as_ref().filter(|group| !is_name(group)) {
        let message = format!("`{group}` is no name, allowed are 1 to 64 of A-Za-z0-9._-");
        fault(faults, "node.cluster_group", message);
    }
    let mut urls = BTreeSet::new();
    for (index, peer) in settings.peers.iter().enumerate() {
        if !urls.insert(peer.url.secret().trim_end_matches('/')) {
            let key = format!("peers[{index}].url");
            fault(faults, &key, format!("`{}` is there twice: keep one", peer.url));
        }
    }
}

fn check_listeners(settings: &Settings, faults: &mut Faults) {
    let listen = &settings.listen;
    for (key, address, switch, allowed) in [
        ("listen.address", listen.address, "allow_insecure", listen.allow_insecure),
        ("listen.admin", listen.admin, "admin_allow_insecure", listen.admin_allow_insecure),
    ] {
        if !address.ip().is_loopback() && !allowed {
            let message = format!(
                "{address} is not on loopback, and there is neither TLS nor authentication: \
                 anyone who reaches it gets in. Listen on loopback, or write {switch} = true \
                 under [listen]"
            );
            fault(faults, key, message);
        }
    }
    if listen.address == listen.admin && listen.address.port() != 0 {
        fault(faults, "listen.admin", "is the same as listen.address: give it another port");
    }
    for (index, origin) in listen.allowed_origins.iter().enumerate() {
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        if host.is_empty() || host.contains(['/', '*', '@', '?', '#']) {
            let key = format!("listen.allowed_origins[{index}]");
            let message = format!("`{origin}` is no origin, such as https://ops.example:8443");
            fault(faults, &key, message);
        }
    }
    for (index, host) in listen.allowed_hosts.iter().enumerate() {
        if host.is_empty() || host.contains([':', '/', '*', '@', ' ']) {
            let key = format!("listen.allowed_hosts[{index}]");
            let message = format!("`{host}` is no host name, such as ops.example (without a port)");
            fault(faults, &key, message);
        }
    }
}

/// Rules between two keys: the first must be below, or at most, the second.
fn check_relations(settings: &Settings, faults: &mut Faults) {
    let (store, limits) = (&settings.store, &settings.limits);
    if settings.heartbeat.timeout.time() <= settings.heartbeat.interval.time() {
        fault(faults, "heartbeat.timeout", "must be longer than heartbeat.interval");
    }
    if settings.reconnect.max.time() < settings.reconnect.initial.time() {
        fault(faults, "reconnect.max", "must not be shorter than reconnect.initial");
    }
    if settings.retry.max_backoff.time() < settings.retry.ack_timeout.time() {
        fault(faults, "retry.max_backoff", "must not be shorter than retry.ack_timeout");
    }
    if store.history_max_bytes.bytes() >= store.max_bytes.bytes() {
        let message = "must be below store.max_bytes, else what is settled fills the store";
        fault(faults, "store.history_max_bytes", message);
    }
    if u64::from(limits.max_key_bytes) > limits.max_message_bytes.bytes() {
        fault(faults, "limits.max_key_bytes", "must not be above limits.max_message_bytes");
    }
    if limits.max_message_bytes.bytes() > store.max_bytes.bytes() {
        fault(faults, "limits.max_message_bytes", "must not be above store.max_bytes");
    }
}
