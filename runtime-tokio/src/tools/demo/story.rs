//! The course of the demo: publish, cut a link, kill a node, heal both, wait, check; then a site
//! joins that was never there, and is brought up to date.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slipstream_core::client::ClientOptions;
use slipstream_core::config::Reconnect;
use slipstream_core::io::Protocol;
use tokio::time::sleep;

use super::check::{Arrived, CheckVerdict, CheckedReceipt, Late, Published, check, check_late};
use super::nodes::{DemoMesh, Figures, settled};
use super::publisher::DemoPublisher;
use super::subscriber::Subscriber;
use super::traffic::{DemoSample, LATE, NODES, samples};
use crate::daemon::failed::Failed;

/// Everything has arrived by then, or it is missing.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// For publishing everything, with all that happens meanwhile.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks at how far publishers are.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Between two looks at whether everything has arrived.
const CHECK_AGAIN: Duration = Duration::from_millis(100);

/// The longest wait before a lost connection is opened again.
const RECONNECT: Duration = Duration::from_millis(20);

/// Name of the application that receives at a node.
const SUBSCRIBER: &str = "demo-subscriber";

/// Of a hundred messages at the first node, how many are published when it happens.
const CUT_AT: usize = 20;
const KILL_AT: usize = 40;
const RESTART_AT: usize = 60;
const HEAL_AT: usize = 80;

/// The part of its messages that the victim is given at once when it is killed.
const BURST_PART: usize = 4;

/// The node that is killed: the only way around the link that is cut.
const VICTIM: usize = 2;

/// Tells on standard error what happens.
pub(super) fn say(since: Instant, phase: &str, text: &str) {
    let seconds = since.elapsed().as_secs_f64();
    // If standard error is gone, the exit code still tells.
    let _ = writeln!(std::io::stderr(), "{seconds:5.1}s  {phase:<8} {text}");
}

/// Who publishes and who receives, at each node.
struct Cast {
    samples: Vec<Arc<[DemoSample]>>,
    publishers: Vec<DemoPublisher>,
    subscribers: Vec<Subscriber>,
}

/// Runs it to the end, with so many messages at each node.
pub(super) async fn tell(
    mesh: &mut DemoMesh,
    messages: usize,
    since: Instant,
) -> Result<(CheckVerdict, Figures), Failed> {
    let mut figures = Figures::default();
    let cast = Cast::start(mesh, messages).await?;
    let text = format!("{messages} messages at each node, to a durable subscriber at each");
    say(since, "publish", &text);
    mistreat(mesh, &cast, messages, &mut figures, since).await?;
    let Cast { samples, publishers, subscribers } = cast;
    let mut receipts = Vec::new();
    for publisher in publishers {
        receipts.push(in_time(publisher.finish()).await?);
    }
    say(since, "wait", "everything is published; until everything has arrived");
    wait(mesh, &samples, &receipts, &subscribers).await;
    let mut verdict = judge(&samples, &receipts, &subscribers);
    for node in &mesh.nodes {
        figures.add(node.id, &node.status().await?);
    }
    for (node, samples) in NODES.iter().zip(&samples) {
        figures.least_copies += samples.iter().map(|sample| sample.least_copies(node)).sum::<u64>();
    }
    join_late(mesh, &samples, &receipts, &mut verdict, since).await?;
    let held = if verdict.failures.is_empty() { "all of it held" } else { "FAILED" };
    say(since, "check", held);
    for (node, subscriber) in NODES.iter().zip(&subscribers) {
        if let Some(why) = subscriber.trouble().filter(|_| !verdict.failures.is_empty()) {
            say(since, "check", &format!("the subscriber at {node} was last cut off by: {why}"));
        }
    }
    Ok((verdict, figures))
}

impl Cast {
    async fn start(mesh: &DemoMesh, messages: usize) -> Result<Self, Failed> {
        let samples: Vec<_> = NODES.iter().map(|node| samples(node, messages)).collect();
        let mut subscribers = Vec::new();
        for (at, node) in mesh.nodes.iter().enumerate() {
            subscribers.push(Subscriber::start(node.url(), SUBSCRIBER, options(at)).await?);
        }
        let mut publishers = Vec::new();
        for (at, node) in mesh.nodes.iter().enumerate() {
            let samples = samples[at].clone();
            publishers
                .push(DemoPublisher::start(node.id, &node.url(), options(at), samples).await?);
        }
        Ok(Self { publishers, samples, subscribers })
    }

    /// Waits until so many of a hundred messages at the first node have their receipts.
    async fn progress(&self, percent: usize) -> Result<(), Failed> {
        let goal = self.samples[0].len() * percent / 100;
        self.until(|| self.publishers[0].answered() >= goal).await
    }

    /// Waits for a condition that publishing brings about.
    async fn until(&self, reached: impl Fn() -> bool) -> Result<(), Failed> {
        let waiting = async {
            // One that has failed is asked for its reason later.
            while !reached() && !self.publishers.iter().all(DemoPublisher::is_finished) {
                sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        in_time(waiting).await
    }
}

/// A site joins that was never there: its subscriber is handed the current value of every key.
async fn join_late(
    mesh: &mut DemoMesh,
    samples: &[Arc<[DemoSample]>],
    receipts: &[Vec<CheckedReceipt>],
    verdict: &mut CheckVerdict,
    since: Instant,
) -> Result<(), Failed> {
    let joined = Instant::now();
    let url = mesh.join(LATE).await?.url();
    let subscriber = Subscriber::start(url, SUBSCRIBER, options(1)).await?;
    let published = published(samples, receipts);
    let look = || {
        let taken = subscriber.taken();
        check_late(&published, &Arrived { node: LATE, deliveries: &taken })
    };
    let mut late = look();
    while !(late.is_up_to_date() && all_settled(mesh).await) && joined.elapsed() < ARRIVAL_TIMEOUT {
        sleep(CHECK_AGAIN).await;
        late = look();
    }
    let Late { keys, current, .. } = late;
    let text = format!("{LATE}, never there before, has {current} of {keys} current values");
    say(since, "join", &text);
    verdict.take_late(late);
    Ok(())
}

/// Applications of the first node speak JSON, the others binary frames.
fn options(at: usize) -> ClientOptions {
    let protocol = if at == 0 { Protocol::Json } else { Protocol::Postcard };
    let reconnect = Reconnect { initial: RECONNECT, max: RECONNECT, max_attempts: 0 };
    ClientOptions { protocol, reconnect, ..ClientOptions::default() }
}

async fn in_time<T>(publishing: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    match tokio::time::timeout(PUBLISH_TIMEOUT, publishing).await {
        Ok(outcome) => outcome,
        Err(_) => {
            Err(Failed::general(format!("publishing was not done within {PUBLISH_TIMEOUT:?}")))
        }
    }
}

/// Cuts a link and kills a node while messages flow, and heals both.
async fn mistreat(
    mesh: &mut DemoMesh,
    cast: &Cast,
    messages: usize,
    figures: &mut Figures,
    since: Instant,
) -> Result<(), Failed> {
    let victim = NODES[VICTIM];
    cast.progress(CUT_AT).await?;
    mesh.link.cut();
    let text = format!("the link from {} to {}; {victim} is the way around", NODES[0], NODES[1]);
    say(since, "cut", &text);

    cast.progress(KILL_AT).await?;
    figures.add(victim, &mesh.nodes[VICTIM].status().await?);
    // A burst, so that it dies with messages that are stored and not yet answered.
    let publisher = &cast.publishers[VICTIM];
    let before = publisher.sent();
    publisher.burst(messages / BURST_PART);
    tokio::select! {
        () = publisher.answered_beyond(before) => {}
        outcome = cast.until(|| false) => outcome?,
    }
    mesh.nodes[VICTIM].kill();
    let unanswered = publisher.sent().saturating_sub(publisher.answered());
    let text = format!("{victim}, by SIGKILL, with {unanswered} messages unanswered");
    say(since, "kill", &text);

    cast.progress(RESTART_AT).await?;
    mesh.nodes[VICTIM].start()?;
    mesh.nodes[VICTIM].linked(NODES.len() - 1).await?;
    say(since, "restart", &format!("{victim} is back, with its database"));

    cast.progress(HEAL_AT).await?;
    mesh.link.heal();
    mesh.all_linked().await?;
    say(since, "heal", &format!("{} and {} are linked again", NODES[0], NODES[1]));
    Ok(())
}

/// Waits until everything has arrived and no node owes anything: what could come twice has come.
/// If that takes too long, the check says what is missing.
async fn wait(
    mesh: &DemoMesh,
    samples: &[Arc<[DemoSample]>],
    receipts: &[Vec<CheckedReceipt>],
    subscribers: &[Subscriber],
) {
    let since = Instant::now();
    while since.elapsed() < ARRIVAL_TIMEOUT {
        if judge(samples, receipts, subscribers).outstanding == 0 && all_settled(mesh).await {
            return;
        }
        sleep(CHECK_AGAIN).await;
    }
}

async fn all_settled(mesh: &DemoMesh) -> bool {
    for node in &mesh.nodes {
        if !node.status().await.is_ok_and(|status| settled(&status)) {
            return false;
        }
    }
    true
}

fn judge(
    samples: &[Arc<[DemoSample]>],
    receipts: &[Vec<CheckedReceipt>],
    subscribers: &[Subscriber],
) -> CheckVerdict {
    let published = published(samples, receipts);
    let taken: Vec<_> = subscribers.iter().map(Subscriber::taken).collect();
    let arrived: Vec<_> =
        NODES.iter().zip(&taken).map(|(node, deliveries)| Arrived { node, deliveries }).collect();
    check(&published, &arrived)
}

fn published<'a>(
    samples: &'a [Arc<[DemoSample]>],
    receipts: &'a [Vec<CheckedReceipt>],
) -> Vec<Published<'a>> {
    let published = NODES.iter().zip(samples.iter().zip(receipts));
    published.map(|(node, (samples, receipts))| Published { node, samples, receipts }).collect()
}
