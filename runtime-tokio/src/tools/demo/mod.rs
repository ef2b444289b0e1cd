//! `slipstream demo`: a mesh that is mistreated, and proof that nothing was lost or doubled.
//!
//! Three nodes run as processes of their own with their databases in a temporary folder. While
//! messages flow, a link is cut and a node is killed; both heal, and then every destination is
//! checked. Nothing outlives the command: neither processes nor files.

mod check;
mod nodes;
mod proxy;
mod publisher;
mod report;
mod story;
mod subscriber;
mod traffic;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::nodes::DemoMesh;
use self::report::DemoReport;
use crate::daemon::failed::Failed;

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  slipstream demo\n  \
                        slipstream demo --keep\n  \
                        slipstream demo --json | jq .deliveries")]
pub(crate) struct Demo {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Leave the nodes running afterwards, until interrupted
    #[arg(long)]
    keep: bool,
    /// Messages published at each node
    #[arg(long, value_name = "N", default_value_t = 2000, hide = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,
}

impl Demo {
    pub(crate) fn execute(self) -> Result<ExitCode, Failed> {
        // One thread: the cores are for the nodes.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failed::general(format!("cannot start: {error}")))?;
        let outcome = runtime.block_on(self.live());
        // A question to a node that is gone is not waited for.
        runtime.shutdown_background();
        outcome
    }

    async fn live(self) -> Result<ExitCode, Failed> {
        let mut interruption = Interruption::new()?;
        let home = TempDir::with_prefix("slipstream-demo-").map_err(|error| {
            Failed::general(format!("cannot make a temporary folder: {error}; set TMPDIR"))
        })?;
        let outcome = tokio::select! {
            biased;
            () = interruption.wait() => Err(Failed::general("interrupted")),
            outcome = self.perform(&home) => outcome,
        };
        let outcome = match outcome {
            Ok((mesh, report)) => {
                report
                    .print(self.json)
                    .and_then(|()| if self.keep { invite(&mesh) } else { Ok(()) })?;
                if self.keep {
                    interruption.wait().await;
                }
                drop(mesh);
                report.outcome()
            }
            Err(failed) => Err(failed),
        };
        let folder = home.path().to_owned();
        home.close().map_err(|error| {
            Failed::general(format!("cannot remove {}: {error}", folder.display()))
        })?;
        outcome.map(|()| ExitCode::SUCCESS)
    }

    async fn perform(&self, home: &TempDir) -> Result<(DemoMesh, DemoReport), Failed> {
        let since = Instant::now();
        story::say(since, "start", "three nodes in a ring: aws, azure, gcp");
        let mut mesh = DemoMesh::start(home.path()).await?;
        let (verdict, figures) = story::tell(&mut mesh, self.messages as usize, since).await?;
        Ok((mesh, DemoReport::new(verdict, &figures, since.elapsed())))
    }
}

/// Shows where the nodes are, and what to try.
fn invite(mesh: &DemoMesh) -> Result<(), Failed> {
    let mut page = "\nThe nodes go on running:\n".to_owned();
    for node in &mesh.nodes {
        page.push_str(&format!("  {:<6} {}  {}\n", node.id, node.url(), node.admin_url()));
    }
    let (first, second) = (&mesh.nodes[0], &mesh.nodes[1]);
    page.push_str(&format!(
        "\nTry, in two other terminals:\n  \
         slipstream sub --url {}\n  \
         slipstream pub SK order:1 '{{\"amount\":12.50}}' --tags azure --url {}\n\
         and see what a node knows:\n  \
         slipstream status --admin {}\n\n\
         Ctrl-C ends them and removes their files.\n",
        second.url(),
        first.url(),
        first.admin_url()
    ));
    // Standard output may be read by a program.
    let mut err = std::io::stderr();
    Ok(err.write_all(page.as_bytes())?)
}

/// Whatever asks the demo to end.
struct Interruption {
    signals: [Signal; 3],
}

impl Interruption {
    fn new() -> Result<Self, Failed> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failed::general(format!("cannot take signals: {error}")))
        };
        let interrupt = listen(SignalKind::interrupt())?;
        let terminate = listen(SignalKind::terminate())?;
        let hang_up = listen(SignalKind::hangup())?;
        Ok(Self { signals: [interrupt, terminate, hang_up] })
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hang_up] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}
