//! The nodes of the demo: processes of this same binary, in a ring on loopback, and one that joins
//! late.
//!
//! Each has a folder of its own with configuration, database and log. A node is killed for real,
//! by SIGKILL to its own process; all of them end with the value.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use super::proxy::Proxy;
use super::traffic::NODES;
use crate::daemon::admin_client::AdminClient;
use crate::daemon::failed::Failed;

/// Until a node answers, or has its links.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Between two looks at a node that is not ready.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Attempts to start all nodes; somebody may take a port before its node does.
const START_ATTEMPTS: usize = 3;

/// Ports are taken from here on: below those that systems give to outgoing connections, so that
/// nothing takes the port of a node while it is down.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 22_000;

/// Lines of a log that are shown when its node has failed.
const LOG_TAIL: usize = 5;

/// What configures a node, for its environment would configure the children too.
const ENVIRONMENT: &str = "SLIPSTREAM_";

/// The nodes; the link from the first to the second can be cut.
#[derive(Debug)]
pub(super) struct DemoMesh {
    /// In the order of [`NODES`], and then the one that joined.
    pub(super) nodes: Vec<DemoNode>,
    /// The link from the first to the second.
    pub(super) link: Proxy,
    home: PathBuf,
}

impl DemoMesh {
    /// Starts the nodes with their files under `home` and waits until every link is up.
    pub(super) async fn start(home: &Path) -> Result<Self, Failed> {
        let mut attempt = 1;
        loop {
            match Self::try_start(&home.join(attempt.to_string())).await {
                Err(_) if attempt < START_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn try_start(home: &Path) -> Result<Self, Failed> {
        let mut nodes = Vec::new();
        for id in NODES {
            nodes.push(DemoNode::new(id, home)?);
        }
        let link = Proxy::to(nodes[1].address)
            .await
            .map_err(|error| Failed::general(format!("cannot listen on loopback: {error}")))?;
        // Each dials the next, the first through the proxy.
        let next = [link.address, nodes[2].address, nodes[0].address];
        for (node, peer) in nodes.iter_mut().zip(next) {
            node.configure(&[peer])?;
            node.start()?;
        }
        let mut mesh = Self { nodes, link, home: home.to_owned() };
        mesh.all_linked().await?;
        Ok(mesh)
    }

    /// Starts a node that was never there before, linked to the first two.
    pub(super) async fn join(&mut self, id: &'static str) -> Result<&DemoNode, Failed> {
        let mut late = DemoNode::new(id, &self.home)?;
        late.configure(&[self.nodes[0].address, self.nodes[1].address])?;
        late.start()?;
        late.linked(2).await?;
        self.nodes.push(late);
        Ok(&self.nodes[self.nodes.len() - 1])
    }

    /// Waits until every node has a link to every other.
    pub(super) async fn all_linked(&mut self) -> Result<(), Failed> {
        for node in &mut self.nodes {
            node.linked(NODES.len() - 1).await?;
        }
        Ok(())
    }
}

/// One node.
#[derive(Debug)]
pub(super) struct DemoNode {
    /// Its id, which is also its tag.
    pub(super) id: &'static str,
    address: SocketAddr,
    admin: SocketAddr,
    folder: PathBuf,
    child: Option<Child>,
}

impl DemoNode {
    fn new(id: &'static str, home: &Path) -> Result<Self, Failed> {
        let folder = home.join(id);
        fs::create_dir_all(&folder).map_err(|error| cannot_write(&folder, &error))?;
        Ok(Self { id, address: free_port()?, admin: free_port()?, folder, child: None })
    }

    /// URL for applications.
    pub(super) fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// URL of the admin endpoint.
    pub(super) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    fn configure(&self, peers: &[SocketAddr]) -> Result<(), Failed> {
        let Self { id, address, admin, .. } = self;
        let peers: String =
            peers.iter().map(|peer| format!("[[peers]]\nurl = \"ws://{peer}/\"\n\n")).collect();
        let toml = format!(
            "[node]\nid = \"{id}\"\ntags = [\"{id}\"]\n\n\
             [listen]\naddress = \"{address}\"\nadmin = \"{admin}\"\n\n\
             {peers}\
             [reconnect]\ninitial = \"50ms\"\nmax = \"500ms\"\n\n\
             [log]\nformat = \"text\"\n"
        );
        let file = self.config_file();
        fs::write(&file, toml).map_err(|error| cannot_write(&file, &error))
    }

    fn config_file(&self) -> PathBuf {
        self.folder.join("slipstream.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Starts its process.
    pub(super) fn start(&mut self) -> Result<(), Failed> {
        let (log, errors) = self.open_log().map_err(|e| cannot_write(&self.log_file(), &e))?;
        let cannot = |error| Failed::general(format!("cannot start node {}: {error}", self.id));
        let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(ENVIRONMENT) {
                command.env_remove(name);
            }
        }
        command.arg("run").arg("-c").arg(self.config_file());
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.child = Some(command.spawn().map_err(cannot)?);
        Ok(())
    }

    fn open_log(&self) -> std::io::Result<(File, File)> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        Ok((log.try_clone()?, log))
    }

    /// Kills its process, by SIGKILL.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until it has a link to so many other nodes.
    pub(super) async fn linked(&mut self, count: usize) -> Result<(), Failed> {
        let since = Instant::now();
        loop {
            let exited = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let why = match (exited, self.status().await) {
                (Some(status), _) => return Err(self.failed(&format!("ended: {status}"))),
                (None, Ok(status)) if linked_to(&status) >= count => return Ok(()),
                (None, Ok(status)) => {
                    format!("has links to {} of {count} nodes", linked_to(&status))
                }
                (None, Err(failed)) => failed.message,
            };
            if since.elapsed() > READY_TIMEOUT {
                return Err(self.failed(&why));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn failed(&self, why: &str) -> Failed {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n  ");
        Failed::general(format!("node {} {why}; its log ends with\n  {tail}", self.id))
    }

    /// What it says of itself.
    pub(super) async fn status(&self) -> Result<Value, Failed> {
        let url = self.admin_url();
        let asking = tokio::task::spawn_blocking(move || {
            let client = AdminClient::new(&url)?;
            client.parse(&client.get("/status")?)
        });
        asking.await.map_err(|error| Failed::general(format!("asking a node failed: {error}")))?
    }
}

impl Drop for DemoNode {
    fn drop(&mut self) {
        self.kill();
    }
}

fn linked_to(status: &Value) -> usize {
    let links = status["links"].as_array().map(Vec::as_slice).unwrap_or_default();
    let up = links.iter().filter(|link| link["role"] == "peer" && link["state"] == "up");
    up.filter_map(|link| link["name"].as_str()).collect::<HashSet<_>>().len()
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failed {
    Failed::general(format!("cannot write {}: {error}; set TMPDIR", path.display()))
}

/// An address on loopback that nobody listens on.
fn free_port() -> Result<SocketAddr, Failed> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Demos that run at the same time do not begin at the same port.
    let own = (std::process::id().wrapping_mul(64) % u32::from(PORTS)) as u16;
    for _ in 0..PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let address = SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + (own + step) % PORTS));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(Failed::general(format!("no port from {FIRST_PORT} on is free on loopback")))
}

/// What nodes have counted, added up; a restarted node begins again, so it is asked before too.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Copies that came by another route as well.
    pub(super) other_route: u64,
    /// Messages that were published again.
    pub(super) published_again: u64,
    /// Messages that came back to a node on their path.
    pub(super) loops_prevented: u64,
    /// What all messages would have cost at least, each sent once to each other destination.
    pub(super) least_copies: u64,
    /// Copies sent, by sender and receiver.
    pub(super) copies: BTreeMap<(&'static str, &'static str), u64>,
}

impl Figures {
    /// Adds what the node `from` has counted.
    pub(super) fn add(&mut self, from: &'static str, status: &Value) {
        let counters = &status["counters"];
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        self.other_route += number(&counters["duplicates"]["seen"]);
        self.published_again += number(&counters["duplicates"]["idempotent"]);
        self.loops_prevented += number(&counters["loops_prevented"]);
        for to in NODES {
            let modes = counters["sent"][to].as_object().into_iter().flat_map(|by| by.values());
            let copies: u64 = modes.map(number).sum();
            if to != from {
                *self.copies.entry((from, to)).or_default() += copies;
            }
        }
    }
}

/// Whether a node owes nothing to anybody who is connected.
pub(super) fn settled(status: &Value) -> bool {
    let sessions = status["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut connected = sessions.iter().filter(|session| session["connected"] == true);
    connected.all(|session| session["behind"] == 0 && session["in_flight"] == 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_of_two_starts_add_up() {
        let status = json!({ "counters": {
            "duplicates": { "seen": 3, "idempotent": 2 },
            "loops_prevented": 1,
            "sent": { "azure": { "eager": 5, "retry": 1 }, "10.0.0.1:1": { "eager": 9 } },
        } });
        let mut figures = Figures::default();
        figures.add("aws", &status);
        figures.add("aws", &status);
        assert_eq!((figures.other_route, figures.published_again), (6, 4));
        assert_eq!(figures.loops_prevented, 2);
        assert_eq!(figures.copies[&("aws", "azure")], 12);
        assert_eq!(figures.copies[&("aws", "gcp")], 0);
    }

    #[test]
    fn a_node_is_settled_when_nobody_there_is_owed_anything() {
        let status = |connected, behind, in_flight| {
            let session =
                json!({ "connected": connected, "behind": behind, "in_flight": in_flight });
            json!({ "sessions": [session] })
        };
        assert!(settled(&status(true, 0, 0)));
        assert!(settled(&status(false, 7, 0)));
        assert!(!settled(&status(true, 1, 0)));
        assert!(!settled(&status(true, 0, 1)));
    }
}
