//! The processes of one deployment, and the network between them.
//!
//! What they say to each other is timely's own: neither secret nor asking who is there. So it stays
//! on this machine unless its operators say that nobody else is on the network.

use std::net::IpAddr;

use clap::Args;

use crate::engine::Cluster;

/// Which processes share the work.
#[derive(Args, Debug)]
pub struct PeerArgs {
    /// This process's number among those of --peers.
    #[arg(long, requires = "peers")]
    process: Option<usize>,
    /// The addresses of all processes that share the work, host:port, comma-separated; each listens
    /// on its own.
    #[arg(long, value_delimiter = ',', requires = "process")]
    peers: Vec<String>,
    /// Let --peers be on other machines: nobody but these processes reaches those addresses. What
    /// they say to each other is not encrypted, and whoever reaches them can join in.
    #[arg(long, requires = "peers")]
    peers_trusted_network: bool,
}

/// Peers that cannot work together, or not safely: their operators' to correct.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is no address of this number.
    #[error("--process {process} is not among the {peers} addresses of --peers, counted from 0")]
    NoSuchProcess {
        /// The number.
        process: usize,
        /// How many addresses there are.
        peers: usize,
    },
    /// What is sent there may be read, and forged.
    #[error(
        "the peer {0} may be on another machine, and peers neither encrypt nor ask who is there: if \
         nobody else reaches that network, say --peers-trusted-network"
    )]
    Exposed(String),
}

impl PeerArgs {
    /// The processes; none for one alone.
    ///
    /// # Errors
    /// Addresses that do not fit the number, or that strangers may reach.
    pub fn cluster(&self) -> Result<Option<Cluster>, PeerError> {
        let Some(process) = self.process else { return Ok(None) };
        if process >= self.peers.len() {
            return Err(PeerError::NoSuchProcess { process, peers: self.peers.len() });
        }
        let exposed = self.peers.iter().find(|address| !is_loopback(address));
        match exposed {
            Some(address) if !self.peers_trusted_network => {
                Err(PeerError::Exposed(address.clone()))
            }
            _ => Ok(Some(Cluster { process, addresses: self.peers.clone() })),
        }
    }
}

/// Whether an address is this machine's own and reached from nowhere else. A name may lead anywhere,
/// except the one that is reserved for this.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_own = |ip: IpAddr| ip.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(process: usize, peers: &[&str], peers_trusted_network: bool) -> PeerArgs {
        let peers = peers.iter().map(ToString::to_string).collect();
        PeerArgs { process: Some(process), peers, peers_trusted_network }
    }

    #[test]
    fn peers_elsewhere_must_be_said_to_be_trusted() {
        let own = ["127.0.0.1:1", "localhost:2", "[::1]:3", "127.9.9.9:4", "[::ffff:127.0.0.1]:5"];
        assert!(args(1, &own, false).cluster().is_ok());
        for elsewhere in ["10.0.0.1:1", "0.0.0.0:1", "[::]:1", "citycell-1:1", "localhost.evil:1"] {
            let refused = args(1, &["127.0.0.1:1", elsewhere], false).cluster();
            assert_eq!(refused, Err(PeerError::Exposed(elsewhere.to_owned())));
            assert!(args(1, &["127.0.0.1:1", elsewhere], true).cluster().is_ok());
        }
    }

    #[test]
    fn a_process_has_an_address() {
        let refused = args(2, &["localhost:1", "localhost:2"], false).cluster();
        assert_eq!(refused, Err(PeerError::NoSuchProcess { process: 2, peers: 2 }));
    }
}
