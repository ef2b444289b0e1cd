//! Prometheus metrics: histograms as the library records them, everything else taken from the
//! state of the node at each scrape.
//!
//! Gauges that a scrape does not set again, such as those of a session that has ended, are gone
//! from the next scrape. Labels are bounded: sessions beyond the first `MAX_SESSIONS` share one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use slipstream_core::admin::{Counters, LinkStatus, SessionStatus, Status};
use slipstream_core::message::Kind;
use slipstream_core::refusal::Code;
use slipstream_core::store::DeadReason;

/// Session names that get a label of their own.
pub(super) const MAX_SESSIONS: usize = 1000;

/// Node names (origins, peers) that get a label of their own.
pub(super) const MAX_NODES: usize = 1024;

/// A gauge that no scrape has set for so long is not shown again.
const STALE: Duration = Duration::from_secs(1);

/// Buckets of everything that takes time, in seconds.
const SECONDS: [f64; 16] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 60.0,
];

/// Buckets of batch sizes.
const MESSAGES: [f64; 9] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

/// Every metric that is not taken as a histogram: name, whether it is a counter, and its help.
const DESCRIPTIONS: &[(&str, bool, &str)] = &[
    ("slipstream_active_connections", false, "Links that are up, by role."),
    ("slipstream_messages_processed_total", true, "Messages accepted into the log."),
    ("slipstream_link_up", false, "1 while a link to the peer is up, else 0."),
    ("slipstream_link_rtt_seconds", false, "Last round trip to the peer."),
    ("slipstream_link_reconnects_total", true, "Links lost, by reason."),
    ("slipstream_link_bytes_total", true, "Bytes on links to the peer."),
    ("slipstream_messages_sent_total", true, "Messages sent to the peer."),
    ("slipstream_messages_delivered_total", true, "Messages handed to the session."),
    ("slipstream_duplicates_total", true, "Copies dropped, by stage."),
    ("slipstream_loops_prevented_total", true, "Messages that came back to a node on their path."),
    ("slipstream_superseded_total", true, "State messages that a newer one had overtaken."),
    ("slipstream_conflated_total", true, "Deliveries left out for a newer value of their key."),
    ("slipstream_retransmits_total", true, "Second and later hand-overs."),
    ("slipstream_dead_letters", false, "Dead letters now held, by reason."),
    ("slipstream_dead_letters_taken_back_total", true, "Dead letters acknowledged after all."),
    ("slipstream_rejected_total", true, "Frames of applications that were refused, by code."),
    ("slipstream_outbox_messages", false, "Messages that the session may still be owed."),
    ("slipstream_outbox_bytes", false, "Bytes of the log not yet looked at for the session."),
    ("slipstream_outbox_oldest_age_seconds", false, "Age of its oldest unsettled message."),
    ("slipstream_store_bytes", false, "Size of the store's files."),
    ("slipstream_refusing_publishers", false, "1 while publishers are refused: room, or clock."),
    ("slipstream_clock_offset_seconds", false, "How far the peer's clock is ahead."),
    ("slipstream_clock_refused_total", true, "Messages refused in doubt of a clock."),
    ("slipstream_expired_total", true, "Events that ended by their time to live."),
    ("slipstream_forgotten_total", true, "Events deleted before their time, for newer history."),
    ("slipstream_rewinds_total", true, "Sessions set back, by reason."),
    ("slipstream_offers_total", true, "Offers made to the peer."),
    ("slipstream_seen_bytes", false, "Memory of the seen-set."),
    ("slipstream_tombstones", false, "Deletes that are remembered."),
    ("slipstream_convergence_lag_seconds", false, "Since the peer last held what this node holds."),
    ("slipstream_missed_total", true, "Messages that unnamed applications lagged too far to get."),
    ("slipstream_log_lines_dropped_total", true, "Log lines that nobody read in time."),
    ("slipstream_identity_conflicts_total", true, "Signs of a second process under one node id."),
    ("slipstream_build_info", false, "1, with the version as a label."),
];

const HISTOGRAMS: [(&str, &str); 4] = [
    ("slipstream_publish_ack_seconds", "From the arrival of a publish to its receipt."),
    ("slipstream_propagation_seconds", "From acceptance at the origin to the commit here."),
    ("slipstream_store_commit_seconds", "One commit of the store."),
    ("slipstream_store_batch_messages", "Messages in one commit."),
];

/// The names that have a label of their own: the first so many ever seen.
#[derive(Debug, Default)]
struct Labels {
    applications: HashSet<String>,
    nodes: HashSet<String>,
}

impl Labels {
    /// Label of a session: `peer:NAME`, `app:NAME` or `app:other`.
    fn session(&mut self, name: &str) -> String {
        match name.split_once(':') {
            Some(("peer", peer)) => format!("peer:{}", self.node(peer)),
            Some(("app", _)) => admit(&mut self.applications, name, MAX_SESSIONS, "app:other"),
            // An application without a name, shown by its link.
            Some(_) | None => "app:other".to_owned(),
        }
    }

    fn node(&mut self, name: &str) -> String {
        admit(&mut self.nodes, name, MAX_NODES, "other")
    }
}

fn admit(known: &mut HashSet<String>, name: &str, max: usize, other: &str) -> String {
    if known.len() < max || known.contains(name) {
        known.insert(name.to_owned());
        name.to_owned()
    } else {
        other.to_owned()
    }
}

/// The metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    handle: PrometheusHandle,
    labels: Mutex<Labels>,
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[error("cannot record metrics: {0}")]
pub struct MetricsError(String);

impl From<BuildError> for MetricsError {
    fn from(error: BuildError) -> Self {
        Self(error.to_string())
    }
}

impl Metrics {
    /// Begins to record for this process.
    ///
    /// # Errors
    /// [`MetricsError`] if something records already.
    pub fn install() -> Result<Self, MetricsError> {
        let (recorder, metrics) = Self::new()?;
        metrics::set_global_recorder(recorder).map_err(|error| MetricsError(error.to_string()))?;
        register();
        Ok(metrics)
    }

    fn new() -> Result<(metrics_exporter_prometheus::PrometheusRecorder, Self), MetricsError> {
        let batches = Matcher::Full("slipstream_store_batch_messages".to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)?
            .set_buckets_for_metric(batches, &MESSAGES)?
            .idle_timeout(MetricKindMask::GAUGE, Some(STALE))
            .build_recorder();
        let handle = recorder.handle();
        Ok((recorder, Self { handle, labels: Mutex::default() }))
    }

    /// Moves recorded samples into their buckets; to be called every few seconds, so that they do
    /// not pile up while nobody scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// All metrics in Prometheus' text format, brought up to `status` and `dropped_lines` of the
    /// log.
    pub fn render(&self, status: &Status, dropped_lines: u64) -> String {
        counter!("slipstream_log_lines_dropped_total").absolute(dropped_lines);
        {
            let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
            take_node(status);
            take_links(status, &mut labels);
            take_sessions(status, &mut labels);
            take_counters(&status.counters, status.node.as_str(), &mut labels);
        }
        self.handle.render()
    }
}

/// Describes every metric, and makes those without labels known.
fn register() {
    for &(name, is_counter, help) in DESCRIPTIONS {
        if is_counter {
            metrics::describe_counter!(name, help);
        } else {
            metrics::describe_gauge!(name, help);
        }
    }
    for (name, help) in HISTOGRAMS {
        metrics::describe_histogram!(name, help);
        if name != "slipstream_propagation_seconds" {
            let _known = histogram!(name);
        }
    }
}

fn take_node(status: &Status) {
    gauge!("slipstream_build_info", "version" => status.version).set(1.0);
    for (file, bytes) in
        [("database", status.store.usage.database_bytes), ("wal", status.store.usage.wal_bytes)]
    {
        gauge!("slipstream_store_bytes", "file" => file).set(bytes as f64);
    }
    let refusing = status.refusing.is_some();
    gauge!("slipstream_refusing_publishers").set(f64::from(u8::from(refusing)));
    gauge!("slipstream_seen_bytes").set(status.store.seen_bytes as f64);
    counter!("slipstream_forgotten_total").absolute(status.store.usage.forgotten_total);
    gauge!("slipstream_tombstones").set(status.store.usage.tombstones as f64);
}

fn take_links(status: &Status, labels: &mut Labels) {
    let mut connections = HashMap::from([("peer", 0_u32), ("app", 0)]);
    let mut up = HashMap::<String, bool>::new();
    for link in &status.links {
        let is_up = link.state == "up";
        *connections.entry(link.role).or_default() += u32::from(is_up);
        if !link.is_of_peer() {
            continue;
        }
        let peer = labels.node(&peer_name(link));
        *up.entry(peer.clone()).or_default() |= is_up;
        if let Some(rtt_ms) = link.rtt_ms.filter(|_| is_up) {
            gauge!("slipstream_link_rtt_seconds", "peer" => peer.clone()).set(rtt_ms / 1e3);
        }
        if let Some(offset_ms) = link.clock_offset_ms.filter(|_| is_up) {
            gauge!("slipstream_clock_offset_seconds", "peer" => peer).set(offset_ms as f64 / 1e3);
        }
    }
    for (role, count) in connections {
        gauge!("slipstream_active_connections", "role" => role).set(count);
    }
    for (peer, up) in up {
        gauge!("slipstream_link_up", "peer" => peer.clone()).set(u32::from(up));
        gauge!("slipstream_convergence_lag_seconds", "peer" => peer.clone()).set(0.0);
        for mode in ["eager", "pulled", "retry"] {
            counter!("slipstream_messages_sent_total", "peer" => peer.clone(), "mode" => mode)
                .absolute(0);
        }
        take_peer_bytes(&peer, 0, 0);
        for name in ["slipstream_offers_total", "slipstream_clock_refused_total"] {
            counter!(name, "peer" => peer.clone()).absolute(0);
        }
    }
}

/// Node id of a peer, or `host:port` before its first Hello: nothing else of a URL.
fn peer_name(link: &LinkStatus) -> String {
    let name = link.name.as_deref().unwrap_or(&link.remote);
    let authority = match name.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?', '#']).next().unwrap_or_default(),
        None => name,
    };
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

fn take_peer_bytes(peer: &str, received: u64, sent: u64) {
    for (direction, bytes) in [("received", received), ("sent", sent)] {
        let peer = peer.to_owned();
        counter!("slipstream_link_bytes_total", "peer" => peer, "direction" => direction)
            .absolute(bytes);
    }
}

/// What the sessions with one label add up to.
#[derive(Default)]
struct OutboxGauges {
    messages: u64,
    bytes: u64,
    oldest_ms: u64,
    dead_letters: [u64; DeadReason::ALL.len()],
}

impl OutboxGauges {
    fn add(&mut self, session: &SessionStatus) {
        self.messages += session.behind + session.in_flight as u64;
        self.bytes += session.behind_bytes;
        self.oldest_ms = self.oldest_ms.max(session.oldest_ms);
        for (count, reason) in self.dead_letters.iter_mut().zip(DeadReason::ALL) {
            *count += session.dead_letters.get(reason.as_str()).copied().unwrap_or(0);
        }
    }
}

fn take_sessions(status: &Status, labels: &mut Labels) {
    let mut outboxes = HashMap::<String, OutboxGauges>::new();
    for session in &status.sessions {
        outboxes.entry(labels.session(&session.name)).or_default().add(session);
    }
    for session in &status.sessions {
        if let Some(peer) = session.name.strip_prefix("peer:")
            && let Some(lag_ms) = session.lag_ms
        {
            let peer = labels.node(peer);
            gauge!("slipstream_convergence_lag_seconds", "peer" => peer).set(lag_ms as f64 / 1e3);
        }
    }
    for (session, outbox) in outboxes {
        let label = || session.clone();
        gauge!("slipstream_outbox_messages", "session" => label()).set(outbox.messages as f64);
        gauge!("slipstream_outbox_bytes", "session" => label()).set(outbox.bytes as f64);
        gauge!("slipstream_outbox_oldest_age_seconds", "session" => label())
            .set(outbox.oldest_ms as f64 / 1e3);
        for (count, reason) in outbox.dead_letters.into_iter().zip(DeadReason::ALL) {
            let reason = reason.as_str();
            gauge!("slipstream_dead_letters", "session" => label(), "reason" => reason)
                .set(count as f64);
        }
        for name in [
            "slipstream_messages_delivered_total",
            "slipstream_retransmits_total",
            "slipstream_conflated_total",
            "slipstream_dead_letters_taken_back_total",
        ] {
            counter!(name, "session" => label()).absolute(0);
        }
    }
    for reason in DeadReason::ALL.map(DeadReason::as_str) {
        let count = status.dead_letters.get(reason).copied().unwrap_or(0);
        gauge!("slipstream_dead_letters", "session" => "node", "reason" => reason)
            .set(count as f64);
    }
}

fn take_counters(counters: &Counters, node: &str, labels: &mut Labels) {
    take_processed(counters, node, labels);
    for (peer, modes) in &counters.sent {
        for (mode, count) in modes {
            let peer = labels.node(peer);
            counter!("slipstream_messages_sent_total", "peer" => peer, "mode" => *mode)
                .absolute(*count);
        }
    }
    for (name, by_session) in [
        ("slipstream_messages_delivered_total", &counters.delivered),
        ("slipstream_retransmits_total", &counters.retransmits),
        ("slipstream_conflated_total", &counters.conflated),
        ("slipstream_dead_letters_taken_back_total", &counters.taken_back),
    ] {
        let mut sums = HashMap::<String, u64>::new();
        for (session, count) in by_session {
            *sums.entry(labels.session(session)).or_default() += count;
        }
        for (session, count) in sums {
            counter!(name, "session" => session).absolute(count);
        }
    }
    for (peer, (received, sent)) in &counters.peer_bytes {
        take_peer_bytes(&labels.node(peer), *received, *sent);
    }
    for (peer, count) in &counters.offers {
        counter!("slipstream_offers_total", "peer" => labels.node(peer)).absolute(*count);
    }
    for (peer, count) in &counters.clock_refused {
        counter!("slipstream_clock_refused_total", "peer" => labels.node(peer)).absolute(*count);
    }
    for (peer, reasons) in &counters.reconnects {
        for (reason, count) in reasons {
            let peer = labels.node(peer);
            counter!("slipstream_link_reconnects_total", "peer" => peer, "reason" => *reason)
                .absolute(*count);
        }
    }
    take_plain_counters(counters);
}

fn take_processed(counters: &Counters, node: &str, labels: &mut Labels) {
    let mut sums = HashMap::<(&str, String), u64>::new();
    for kind in Kind::ALL {
        sums.insert((kind.as_str(), labels.node(node)), 0);
    }
    let mut origins = BTreeSet::from([labels.node(node)]);
    for (kind, by_origin) in &counters.processed {
        for (origin, count) in by_origin {
            let origin = labels.node(origin);
            origins.insert(origin.clone());
            *sums.entry((kind, origin)).or_default() += count;
        }
    }
    for ((kind, origin), count) in sums {
        let kind = kind.to_owned();
        counter!("slipstream_messages_processed_total", "type" => kind, "origin" => origin)
            .absolute(count);
    }
    for origin in origins {
        let _known = histogram!("slipstream_propagation_seconds", "origin" => origin);
    }
}

fn take_plain_counters(counters: &Counters) {
    for stage in ["seen", "idempotent", "group"] {
        counter!("slipstream_duplicates_total", "stage" => stage).absolute(0);
    }
    for (stage, count) in &counters.duplicates {
        counter!("slipstream_duplicates_total", "stage" => *stage).absolute(*count);
    }
    for code in Code::ALL {
        let count = counters.rejected.get(code.as_str()).copied().unwrap_or(0);
        counter!("slipstream_rejected_total", "code" => code.as_str()).absolute(count);
    }
    for (reason, count) in &counters.rewinds {
        counter!("slipstream_rewinds_total", "reason" => *reason).absolute(*count);
    }
    for (name, count) in [
        ("slipstream_loops_prevented_total", counters.loops_prevented),
        ("slipstream_superseded_total", counters.superseded),
        ("slipstream_expired_total", counters.expired),
        ("slipstream_missed_total", counters.missed),
        ("slipstream_identity_conflicts_total", counters.identity_conflicts),
    ] {
        counter!(name).absolute(count);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use slipstream_core::admin::StoreStatus;
    use slipstream_core::config::Durability;
    use slipstream_core::ids::{NodeId, Position, StoreId};
    use slipstream_core::store::Usage;
    use slipstream_core::tags::TagSet;

    use super::*;

    fn status() -> Status {
        Status {
            node: NodeId::new("a").expect("a name"),
            version: "1.2.3",
            tags: TagSet::empty(),
            cluster_group: None,
            incarnation: 1,
            uptime_ms: 1,
            durability: Durability::Full,
            refusing: None,
            shutting_down: false,
            links: Vec::new(),
            sessions: Vec::new(),
            dead_letters: BTreeMap::new(),
            topology: Vec::new(),
            store: StoreStatus {
                store_id: StoreId(1),
                head: Position::new(0),
                usage: Usage { database_bytes: 4096, ..Usage::default() },
                max_bytes: 1,
                seen_bytes: 7,
                idempotency_ids: 0,
                idempotency_bytes: 0,
            },
            counters: Counters::default(),
        }
    }

    fn link(name: Option<&str>, remote: &str, state: &'static str) -> LinkStatus {
        LinkStatus {
            link: None,
            role: "peer",
            name: name.map(str::to_owned),
            remote: remote.to_owned(),
            state,
            dialed: true,
            protocol: "postcard",
            rtt_ms: Some(1.5),
            clock_offset_ms: Some(-250),
            received_bytes: 0,
            sent_bytes: 0,
            up_ms: None,
            last_error: None,
            durability: None,
        }
    }

    fn session(name: &str) -> SessionStatus {
        SessionStatus {
            id: 1,
            name: name.to_owned(),
            role: "app",
            connected: true,
            configuration: None,
            tags: None,
            cursor: 0,
            in_flight: 2,
            behind: 3,
            behind_bytes: 100,
            oldest_ms: 1500,
            delivered_total: 0,
            retransmits_total: 0,
            conflated_total: 0,
            conflating: false,
            dead_letters: BTreeMap::from([("rejected", 4)]),
            away_ms: 0,
            lag_ms: name.starts_with("peer:").then_some(2500),
            digests: None,
        }
    }

    /// Runs `test` with a recorder of its own.
    fn recorded(test: impl FnOnce(&Metrics)) {
        let (recorder, metrics) = Metrics::new().expect("good buckets");
        metrics::with_local_recorder(&recorder, || {
            register();
            test(&metrics);
        });
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|had| had == line), "no `{line}` in:\n{text}");
    }

    #[test]
    fn a_peer_that_is_down_is_there_by_host_and_port_alone() {
        recorded(|metrics| {
            let mut status = status();
            status.links.push(link(None, "ws://me:secret@gcp:7400/?x=y", "waiting"));
            status.links.push(link(Some("azure"), "10.0.0.1:5", "up"));
            let text = metrics.render(&status, 0);
            assert!(!text.contains("secret"), "{text}");
            has(&text, "slipstream_link_up{peer=\"gcp:7400\"} 0");
            has(&text, "slipstream_link_up{peer=\"azure\"} 1");
            has(&text, "slipstream_link_rtt_seconds{peer=\"azure\"} 0.0015");
            has(&text, "slipstream_clock_offset_seconds{peer=\"azure\"} -0.25");
            has(&text, "slipstream_active_connections{role=\"peer\"} 1");
            has(&text, "slipstream_messages_sent_total{peer=\"azure\",mode=\"pulled\"} 0");
            has(&text, "slipstream_offers_total{peer=\"azure\"} 0");
        });
    }

    // keeps: metrics
    #[test]
    fn sessions_beyond_the_bound_share_a_label() {
        recorded(|metrics| {
            let mut status = status();
            let names = (0..MAX_SESSIONS + 5).map(|number| format!("app:{number}"));
            status.sessions = names.map(|name| session(&name)).collect();
            status.sessions.push(session("peer:gcp"));
            status.sessions.push(session("link:17"));
            status.counters.delivered.insert("app:0".to_owned(), 9);
            status.dead_letters.insert("expired", 3);
            let text = metrics.render(&status, 0);
            has(&text, "slipstream_outbox_messages{session=\"app:0\"} 5");
            has(&text, "slipstream_outbox_messages{session=\"peer:gcp\"} 5");
            has(&text, "slipstream_convergence_lag_seconds{peer=\"gcp\"} 2.5");
            has(&text, "slipstream_outbox_messages{session=\"app:other\"} 30");
            has(&text, "slipstream_outbox_oldest_age_seconds{session=\"app:other\"} 1.5");
            has(&text, "slipstream_dead_letters{session=\"app:other\",reason=\"rejected\"} 24");
            has(&text, "slipstream_dead_letters{session=\"node\",reason=\"expired\"} 3");
            has(&text, "slipstream_messages_delivered_total{session=\"app:0\"} 9");
            has(&text, "slipstream_conflated_total{session=\"app:0\"} 0");
        });
    }

    #[test]
    fn the_gauges_of_what_is_gone_go() {
        recorded(|metrics| {
            let mut before = status();
            before.sessions.push(session("app:x"));
            assert!(metrics.render(&before, 0).contains("slipstream_outbox_bytes{"));
            std::thread::sleep(STALE + Duration::from_millis(100));
            let text = metrics.render(&status(), 0);
            assert!(!text.contains("slipstream_outbox_bytes{"), "{text}");
            has(&text, "slipstream_store_bytes{file=\"database\"} 4096");
            has(&text, "slipstream_build_info{version=\"1.2.3\"} 1");
        });
    }

    #[test]
    fn refusing_publishers_is_a_gauge() {
        recorded(|metrics| {
            has(&metrics.render(&status(), 0), "slipstream_refusing_publishers 0");
            let full = Status { refusing: Some("the disk is full".into()), ..status() };
            has(&metrics.render(&full, 0), "slipstream_refusing_publishers 1");
        });
    }

    #[test]
    fn samples_fall_into_buckets() {
        recorded(|metrics| {
            histogram!("slipstream_publish_ack_seconds").record(0.003);
            histogram!("slipstream_store_batch_messages").record(100.0);
            let text = metrics.render(&status(), 0);
            has(&text, "slipstream_publish_ack_seconds_bucket{le=\"0.005\"} 1");
            has(&text, "slipstream_store_batch_messages_bucket{le=\"256\"} 1");
            has(&text, "slipstream_propagation_seconds_count{origin=\"a\"} 0");
        });
    }
}
