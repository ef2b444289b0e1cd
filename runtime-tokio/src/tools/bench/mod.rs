//! `slipstream bench`: how fast messages go in at one node and come out at another.
//!
//! By default it starts nodes of its own, so that it can tell what they cost. Everything that
//! is published is also counted in at the other end: a figure for messages that were lost, changed
//! or repeated is not printed.

mod board;
mod line;
mod load;
mod mesh;
mod report;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::load::{BenchLoad, BenchPace, Shape};
use self::mesh::{BenchMesh, BenchSample};
use self::report::{BenchReport, Cost};
use crate::daemon::commands::connecting::Speak;
use crate::daemon::failed::Failed;

/// Messages that are published one by one, each when the one before has arrived.
const ALONE: u64 = 500;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  slipstream bench\n  \
                        slipstream bench --protocol json --seconds 10\n  \
                        slipstream bench --nodes 5\n  \
                        slipstream bench --url ws://10.0.0.7:7400 --to ws://10.0.0.8:7400\n\n\
                        Existing nodes keep up to --keys values under keys that begin with \
                        bench: and are not told to sync: what they are set to is measured.")]
pub(crate) struct Bench {
    /// Publish at this node, instead of starting two
    #[arg(long, value_name = "URL", requires = "to")]
    url: Option<String>,
    /// Receive from this node
    #[arg(long, value_name = "URL", requires = "url")]
    to: Option<String>,
    /// Start so many nodes, each linked to each: in at the first, out at the last
    #[arg(long, value_name = "N", default_value_t = 2, conflicts_with = "url",
          value_parser = clap::value_parser!(u8).range(2..=16))]
    nodes: u8,
    /// Different keys
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: u64,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    size: u32,
    /// Messages that may be without a receipt
    #[arg(long, value_name = "N", default_value_t = 8192,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    window: u32,
    /// Messages a second of the part below full speed [default: half of what was measured]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// Time for each of the two parts under load
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// End each part after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    messages: Option<u64>,
    /// What the two applications speak
    #[arg(long, value_enum, default_value_t = Speak::Postcard)]
    protocol: Speak,
    /// Acknowledge every delivery
    #[arg(long)]
    manual: bool,
    /// Start nodes of this program, as `PROGRAM run -c FILE` [default: this one]
    #[arg(long, value_name = "PROGRAM", conflicts_with = "url")]
    program: Option<PathBuf>,
    /// Where the nodes put their data [default: the folder for temporary files]
    #[arg(long, value_name = "FOLDER", conflicts_with = "url")]
    dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(crate) fn execute(self) -> Result<ExitCode, Failed> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failed::general(format!("cannot start threads: {error}")))?;
        let report = runtime.block_on(unless_interrupted(self.run()));
        runtime.shutdown_background();
        let report = report?;
        report.print(self.json)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn run(&self) -> Result<BenchReport, Failed> {
        // Dropped last: its nodes end, and their files go.
        let mesh = match &self.url {
            Some(_) => None,
            None => {
                let (program, place) = (self.program.as_deref(), self.dir.as_deref());
                Some(BenchMesh::start(program, place, self.nodes.into()).await?)
            }
        };
        let (from, to) = match (&self.url, &self.to, &mesh) {
            (Some(url), Some(to), _) => (url.clone(), to.clone()),
            (_, _, Some(mesh)) => mesh.urls(),
            (_, _, None) => return Err(Failed::usage("--url needs --to")),
        };
        let shape = Shape {
            keys: self.keys,
            size: self.size as usize,
            window: self.window as usize,
            protocol: self.protocol.into(),
            manual: self.manual,
        };
        let mut load = BenchLoad::connect(&from, &to, shape).await?;
        let limit = self.messages.unwrap_or(u64::MAX);
        let time = Duration::from_secs(self.seconds);
        // Until every key is there once, the store is smaller than it is going to be.
        load.measure(BenchPace::Full { messages: self.keys, time: Duration::MAX }).await?;
        let alone = load.measure(BenchPace::Alone { messages: ALONE.min(limit) }).await?;
        let before = sample(mesh.as_ref())?;
        let full = load.measure(BenchPace::Full { messages: limit, time }).await?;
        let after = sample(mesh.as_ref())?;
        let rate = self.rate.unwrap_or_else(|| ((full.delivered_a_second() / 2.0) as u64).max(1));
        let messages = limit.min(rate.saturating_mul(self.seconds));
        let paced = load.measure(BenchPace::Rate { rate, messages }).await?;
        let cost = Cost::between(&before, &after, full.messages);
        let place = mesh.as_ref().map(BenchMesh::place);
        let level = load.level();
        Ok(BenchReport { shape, place, level, from, to, alone, full, paced, rate, cost })
    }
}

fn sample(mesh: Option<&BenchMesh>) -> Result<Vec<BenchSample>, Failed> {
    mesh.map_or_else(|| Ok(Vec::new()), BenchMesh::sample)
}

/// Does the work, or gives it up when the process is told to end; what it holds is cleaned up.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failed::general(format!("cannot take signals: {error}")))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => Err(Failed::general("interrupted")),
        _ = terminate.recv() => Err(Failed::general("told to end")),
        _ = hang_up.recv() => Err(Failed::general("the terminal is gone")),
    }
}
