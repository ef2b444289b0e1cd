//! A node on smol in a process of its own, which the tests and `slipstream bench --program` start
//! as `daemon run -c FILE`.
//!
//! It reads the configuration and writes the logs of `slipstream`, and of its admin endpoint it has
//! what they ask for: `/livez`, `/readyz`, `/status` and `/metrics`. For operators it is not meant.

use std::error::Error;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use slipstream_smol::{Exit, Node, NodeGone, Options};
use slipstream_tokio::daemon::config::{self, Settings};
use slipstream_tokio::daemon::logging::{self, LogHandle};
use slipstream_tokio::daemon::metrics::Metrics;
use smol::Timer;
use smol::future::or;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};
use smol::stream::StreamExt;

/// Longest request that is read.
const MAX_REQUEST: usize = 16 * 1024;
/// After a connection that could not be accepted, for want of descriptors most likely.
const REST: Duration = Duration::from_millis(100);
/// Between two turns of housekeeping for histograms.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ["run", "-c", file] = words[..] else {
        eprintln!("usage: daemon run -c FILE");
        return ExitCode::from(2);
    };
    match smol::block_on(live(Path::new(file))) {
        Ok(Exit::Stopped) => ExitCode::SUCCESS,
        Ok(Exit::Halted(failure)) => {
            eprintln!("daemon: {failure}");
            ExitCode::from(3)
        }
        Ok(Exit::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("daemon: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a node until it is told to end.
async fn live(file: &Path) -> Result<Exit, Box<dyn Error>> {
    let settings = config::load(file)?;
    let log = logging::init(&settings.log)?;
    let metrics = Arc::new((Metrics::install()?, log.clone()));
    let mut signals = Signals::new([Signal::Term, Signal::Int])?;
    let listener = TcpListener::bind(settings.listen.admin).await?;
    let admin = listener.local_addr()?;
    let node = Node::start(options(&settings)).await?;
    smol::spawn(serve(listener, node.clone(), metrics.clone())).detach();
    smol::spawn(upkeep(metrics)).detach();
    tracing::info!(node = %settings.node.id, listen = %node.local_addr(), %admin, "ready");
    let told = async {
        signals.next().await;
        // A node that has ended already is what was asked for.
        let _ = node.stop().await;
        node.ended().await
    };
    let exit = or(node.ended(), told).await;
    log.end();
    Ok(exit)
}

fn options(settings: &Settings) -> Options {
    let slipstream_tokio::Options { config, data_dir, listen, allowed_origins, .. } =
        settings.options();
    Options { listen, allowed_origins, ..Options::new(config, data_dir) }
}

/// Metrics, and the log that they tell of.
type Told = (Metrics, LogHandle);

async fn upkeep(told: Arc<Told>) {
    loop {
        Timer::after(METRICS_UPKEEP).await;
        told.0.upkeep();
    }
}

/// Answers one request a connection, for ever.
async fn serve(listener: TcpListener, node: Node, metrics: Arc<Told>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            Timer::after(REST).await;
            continue;
        };
        let (node, metrics) = (node.clone(), metrics.clone());
        smol::spawn(async move {
            // Whoever asked and has gone needs to know nothing.
            let _ = answer(stream, &node, &metrics).await;
        })
        .detach();
    }
}

async fn answer(mut stream: TcpStream, node: &Node, metrics: &Told) -> io::Result<()> {
    let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") && request.len() < MAX_REQUEST {
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            size => request.extend_from_slice(&chunk[..size]),
        }
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = page(path, node, metrics)
        .await
        .unwrap_or_else(|gone| ("503 Service Unavailable", format!("{gone}\n")));
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.close().await
}

async fn page(
    path: &str,
    node: &Node,
    (metrics, log): &Told,
) -> Result<(&'static str, String), NodeGone> {
    node.alive().await?;
    let status = node.status().await?;
    Ok(match path {
        "/livez" => ("200 OK", "ok\n".into()),
        "/readyz" if status.shutting_down || status.refusing.is_some() => {
            ("503 Service Unavailable", "publishers are refused\n".into())
        }
        "/readyz" => ("200 OK", "ready\n".into()),
        "/status" => {
            ("200 OK", serde_json::to_string(&status).expect("a status has a form in JSON"))
        }
        "/metrics" => ("200 OK", metrics.render(&status, log.dropped_lines())),
        _ => ("404 Not Found", "there is nothing under this path\n".into()),
    })
}
