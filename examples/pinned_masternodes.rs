//! A masternode with the wrong certificate for its address is refused; the right one is accepted.
//!
//! `cargo run --release --example pinned_masternodes [-- --json]`
//!
//! 127.0.0.1 runs the masternode alpha. First a node with a fresh key takes 127.0.0.2, the address
//! recorded for beta: alpha closes the connection, and both sides say why. Then the real beta starts
//! there and is connected. Exits with 1 when anything else happens.

mod support;

use std::net::UdpSocket;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;
use tokio::time::{interval, timeout};

use timed::node::Node;
use timed::types::{Network, PeerIp};

const ALPHA: &str = "127.0.0.1";
const BETA: &str = "127.0.0.2";
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
#[command(about = "A wrong and a right certificate for a pinned address")]
struct Options {
    /// Print the result as one JSON object in the last line.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcome {
    /// What alpha says about the impostor.
    refused_by_alpha: Option<String>,
    /// What the impostor says about alpha.
    told_to_impostor: Option<String>,
    impostor_connected: bool,
    real_connected: bool,
    real_is_pinned_as: Option<String>,
}

impl Outcome {
    fn is_as_it_must_be(&self) -> bool {
        let names_the_pin =
            |text: &Option<String>| text.as_deref().is_some_and(|text| text.contains("pin"));
        names_the_pin(&self.refused_by_alpha)
            && names_the_pin(&self.told_to_impostor)
            && !self.impostor_connected
            && self.real_connected
            && self.real_is_pinned_as.as_deref() == Some("beta")
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match run_in_temporary_folder().await {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("pinned_masternodes: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let good = outcome.is_as_it_must_be();
    println!("{}", if good { "all as it must be" } else { "FAILED" });
    if options.json {
        let json = serde_json::to_string(&outcome).expect("the outcome is plain values");
        println!("{json}");
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn run_in_temporary_folder() -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    run(folder.path()).await
}

async fn run(root: &Path) -> anyhow::Result<Outcome> {
    let alpha = support::init(root, "alpha", ALPHA, true)?;
    let beta = support::init(root, "beta", BETA, true)?;
    let impostor = support::init(root, "impostor", BETA, false)?;
    support::build_genesis(root, &[&alpha, &beta], &[&alpha, &beta, &impostor], vec![])?;
    let (alpha_ip, beta_ip): (PeerIp, PeerIp) = (ALPHA.parse()?, BETA.parse()?);

    let alpha = support::start(&alpha).await?;
    let node = support::start(&impostor).await?;
    println!("a node with a fresh key has taken {BETA}, the address recorded for beta");
    let told_to_impostor = until(|| last_refusal(&node, alpha_ip)).await;
    let refused_by_alpha = until(|| last_refusal(&alpha, beta_ip)).await;
    let impostor_connected = is_connected(&alpha, beta_ip) || is_connected(&node, alpha_ip);
    println!(
        "alpha says:        {}",
        refused_by_alpha.as_deref().unwrap_or("nothing")
    );
    println!(
        "the impostor says: {}",
        told_to_impostor.as_deref().unwrap_or("nothing")
    );
    node.stop().await?;
    // QUIC lets go of its socket a moment after the node has stopped.
    until(|| UdpSocket::bind((BETA, Network::Dev.p2p_port())).ok()).await;

    let node = support::start(&beta).await?;
    println!("the real beta has started on {BETA}");
    let real = until(|| is_connected(&alpha, beta_ip).then_some(())).await;
    let peers = alpha.net().peers();
    let real_is_pinned_as = peers
        .into_iter()
        .find(|peer| peer.ip == beta_ip)
        .and_then(|peer| peer.name);
    println!(
        "alpha is connected to {}",
        real_is_pinned_as.as_deref().unwrap_or("nobody")
    );
    node.stop().await?;
    alpha.stop().await?;
    Ok(Outcome {
        refused_by_alpha,
        told_to_impostor,
        impostor_connected,
        real_connected: real.is_some(),
        real_is_pinned_as,
    })
}

/// Why a connection with a peer was last refused.
fn last_refusal(node: &Node, peer: PeerIp) -> Option<String> {
    let known = node.net().known_peers().into_iter();
    let (_, _, reason) = known
        .filter(|known| known.ip == peer)
        .find_map(|known| known.last_refusal)?;
    Some(reason)
}

fn is_connected(node: &Node, peer: PeerIp) -> bool {
    node.net()
        .peers()
        .iter()
        .any(|connected| connected.ip == peer)
}

/// Looks every 50 ms until there is something to see; `None` when patience ends.
async fn until<T>(look: impl Fn() -> Option<T>) -> Option<T> {
    let seen = async {
        let mut tick = interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    timeout(PATIENCE, seen).await.ok()
}
