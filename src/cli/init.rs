//! `timed init`.

use std::net::{IpAddr, SocketAddr};

use timed::node::setup::{self, InitOptions, InitReport};
use timed::types::{Address, Network, PeerIp};

use super::{Environment, output};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The node's name: of a masternode, its name in genesis
    #[arg(long)]
    name: String,
    /// The address at which peers reach the node
    #[arg(long)]
    ip: PeerIp,
    /// main, test or dev
    #[arg(long, default_value = "main")]
    network: Network,
    /// A full node: follows the chain and does not vote
    #[arg(long)]
    full: bool,
    /// The P2P port (UDP) [default: 24000 main, 24100 test, 24200 dev]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The RPC port (TCP) [default: one above the P2P port]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rpc_port: Option<u16>,
    /// The address to listen on, when it is not --ip (behind a router)
    #[arg(long, value_name = "IP")]
    listen: Option<IpAddr>,
    /// Where a masternode's rewards go [default: a new key in wallet.key]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "full")]
    payout: Option<String>,
    /// A peer to dial besides the recorded masternodes; may be repeated
    #[arg(long, value_name = "IP:PORT")]
    peer: Vec<SocketAddr>,
}

pub(super) fn run(environment: &Environment, arguments: Arguments) -> anyhow::Result<()> {
    let network = arguments.network;
    let payout = arguments.payout;
    let payout = payout
        .map(|text| Address::parse(&text, network))
        .transpose()?;
    let report = setup::init(&InitOptions {
        data_dir: environment.data_dir.clone(),
        name: arguments.name,
        network,
        masternode: !arguments.full,
        ip: arguments.ip,
        listen_ip: arguments.listen,
        port: arguments.port,
        rpc_port: arguments.rpc_port,
        payout,
        peers: arguments.peer,
    })?;
    if environment.json {
        return output::json(&report);
    }
    output::line(describe(&report));
    Ok(())
}

fn describe(report: &InitReport) -> String {
    let dir = report.data_dir.display();
    let kind = if report.masternode {
        "masternode"
    } else {
        "full node"
    };
    let mut facts = vec![
        (
            "node",
            format!("{kind} {} on {}", report.name, report.network),
        ),
        ("address", report.address.to_string()),
        ("pin", report.pin.to_string()),
    ];
    if let Some(payout) = &report.payout {
        facts.push(("payout", payout.clone()));
    }
    facts.push(("files", dir.to_string()));
    let facts = output::facts(&facts);
    if !report.masternode {
        return format!(
            "{facts}\n\nNext: install the chain with\n  \
             timed genesis install --data-dir {dir} --genesis FILE --certs FOLDER\n\
             and start the node with\n  timed run --data-dir {dir}"
        );
    }
    let public: Vec<String> = report
        .public_files
        .iter()
        .map(|path| format!("  {}", path.display()))
        .collect();
    format!(
        "{facts}\n\nPublic files, for the other masternodes and for \"timed genesis build\":\n{}\n\n\
         Back up node.key and consensus.key. Never run consensus.key on two machines:\n\
         the masternode would sign twice, and everyone would see it.",
        public.join("\n")
    )
}
