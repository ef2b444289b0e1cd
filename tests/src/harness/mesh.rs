//! Several nodes and the links between them, some of which can be cut.

use super::{Daemon, NodeConfig, Proxy};

/// Nodes that are linked. The link between node 0 and node 1 goes through a proxy.
#[derive(Debug)]
pub struct Mesh {
    /// The nodes, in order.
    pub nodes: Vec<Daemon>,
    /// The link from node 0 to node 1.
    pub link: Proxy,
}

impl Mesh {
    /// A ring: each node has a link to the next, and the last to the first.
    pub fn ring(binary: &str, configs: Vec<NodeConfig>) -> Self {
        let count = configs.len();
        Self::linked(binary, configs, |from, to| to == (from + 1) % count)
    }

    /// A full mesh: every node has a link to every other.
    pub fn full(binary: &str, configs: Vec<NodeConfig>) -> Self {
        Self::linked(binary, configs, |from, to| from < to)
    }

    /// A line: each node has a link to the next.
    pub fn line(binary: &str, configs: Vec<NodeConfig>) -> Self {
        Self::linked(binary, configs, |from, to| to == from + 1)
    }

    /// Starts nodes in which `from` dials `to` wherever `dials(from, to)`, and waits until all
    /// of these links are up, and every node knows the whole mesh.
    fn linked(
        binary: &str,
        configs: Vec<NodeConfig>,
        dials: impl Fn(usize, usize) -> bool,
    ) -> Self {
        let addresses: Vec<_> = configs.iter().map(|config| config.address.clone()).collect();
        let ids: Vec<_> = configs.iter().map(|config| config.id.clone()).collect();
        let link = Proxy::to(&addresses[1]);
        let reach = |from: usize, to: usize| match (from, to) {
            (0, 1) => &link.address,
            _ => &addresses[to],
        };
        let nodes: Vec<_> = configs
            .into_iter()
            .enumerate()
            .map(|(from, config)| {
                let peers = (0..ids.len()).filter(|to| dials(from, *to));
                let config = peers.fold(config, |config, to| config.peer(reach(from, to)));
                Daemon::start(binary, config)
            })
            .collect();
        for (from, node) in nodes.iter().enumerate() {
            let peers = (0..ids.len()).filter(|to| dials(from, *to));
            peers.for_each(|to| node.await_peer(&ids[to]));
        }
        nodes.iter().for_each(|node| node.await_mesh(nodes.len()));
        Self { nodes, link }
    }
}
