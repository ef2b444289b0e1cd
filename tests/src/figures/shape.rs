//! The meshes that are measured: who is linked to whom, and what can be taken away from that.

use std::collections::BTreeSet;

use crate::simulator::random::Random;

/// Attempts to draw a random mesh before its seed is given up.
const ATTEMPTS: usize = 10_000;

/// A connected mesh.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What it is called in tables.
    pub name: String,
    /// Nodes, numbered from 0.
    pub nodes: usize,
    /// Who dials whom.
    pub links: Vec<(usize, usize)>,
}

impl Shape {
    /// Every link that there can be.
    pub fn full(nodes: usize) -> Self {
        let links = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))).collect();
        Self { name: format!("full {nodes}"), nodes, links }
    }

    /// A random mesh in which every node has `degree` links: a ring in random order, and random
    /// pairs on top of it. `nodes` must be even.
    ///
    /// # Panics
    /// If there is no such mesh.
    pub fn random(nodes: usize, degree: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let drawn = (0..ATTEMPTS).find_map(|_| draw(nodes, degree, &mut random));
        let links = drawn.expect("a mesh with an even number of nodes and a small degree exists");
        Self { name: format!("random {nodes}, degree {degree}"), nodes, links }
    }

    /// Links beyond those of a tree.
    pub fn redundant_links(&self) -> usize {
        self.links.len() + 1 - self.nodes
    }

    /// Links without which the mesh is still connected.
    pub fn spare_links(&self) -> Vec<usize> {
        (0..self.links.len()).filter(|link| self.is_connected(None, Some(*link))).collect()
    }

    /// Nodes without which the others are still connected.
    pub fn spare_nodes(&self) -> Vec<usize> {
        (0..self.nodes).filter(|node| self.is_connected(Some(*node), None)).collect()
    }

    fn is_connected(&self, without_node: Option<usize>, without_link: Option<usize>) -> bool {
        let there = |node: usize| Some(node) != without_node;
        let mut reached: BTreeSet<usize> =
            (0..self.nodes).find(|node| there(*node)).into_iter().collect();
        let mut before = 0;
        while reached.len() > before {
            before = reached.len();
            for (number, (a, b)) in self.links.iter().enumerate() {
                let touched = reached.contains(a) || reached.contains(b);
                if Some(number) != without_link && there(*a) && there(*b) && touched {
                    reached.extend([*a, *b]);
                }
            }
        }
        reached.len() == self.nodes - usize::from(without_node.is_some())
    }
}

fn draw(nodes: usize, degree: usize, random: &mut Random) -> Option<Vec<(usize, usize)>> {
    let ring = shuffled(nodes, random);
    let mut links: BTreeSet<(usize, usize)> =
        (0..nodes).map(|at| ordered(ring[at], ring[(at + 1) % nodes])).collect();
    for _ in 2..degree {
        for pair in shuffled(nodes, random).chunks_exact(2) {
            links.insert(ordered(pair[0], pair[1]));
        }
    }
    // Two draws of the same pair leave a node with fewer links.
    (links.len() == nodes * degree / 2).then(|| links.into_iter().collect())
}

fn shuffled(nodes: usize, random: &mut Random) -> Vec<usize> {
    let mut all: Vec<usize> = (0..nodes).collect();
    for at in (1..nodes).rev() {
        all.swap(at, random.index(at + 1));
    }
    all
}

fn ordered(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_mesh_has_its_degree_and_can_spare_every_link() {
        for (nodes, degree) in [(8, 3), (16, 3), (64, 3), (16, 4), (64, 4)] {
            let shape = Shape::random(nodes, degree, 1);
            let links_of =
                |node: usize| shape.links.iter().filter(|(a, b)| *a == node || *b == node).count();
            assert!((0..nodes).all(|node| links_of(node) == degree));
            assert_eq!(shape.redundant_links(), nodes * degree / 2 - nodes + 1);
            assert_eq!(shape.spare_links().len(), shape.links.len());
        }
    }

    #[test]
    fn a_link_that_holds_two_halves_together_cannot_be_spared() {
        let links = vec![(0, 1), (1, 2), (0, 2), (2, 3)];
        let shape = Shape { name: "a tail".into(), nodes: 4, links };
        assert_eq!(shape.spare_links(), [0, 1, 2]);
        assert_eq!(shape.spare_nodes(), [0, 1, 3]);
    }
}
