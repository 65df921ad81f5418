//! Who is who: addresses, keys, records and the genesis of a world.

use std::net::{Ipv4Addr, SocketAddr};

use ed25519_dalek::SigningKey;
use timed::net::Identity;
use timed::node::wallet::Wallet;
use timed::types::{
    Address, Allocation, Amount, Genesis, GenesisMasternode, MasternodeRecord, Network, Signature,
    Timeouts,
};

use super::{BEGIN_MS, Plan};
use crate::check::name;

/// Addresses ascend with the numbers.
pub fn address(node: usize) -> SocketAddr {
    let low = u8::try_from(node + 1).expect("worlds are small");
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, low), Network::Dev.p2p_port()))
}

pub(super) fn key(node: usize, use_of_it: u8) -> [u8; 32] {
    let mut key = [use_of_it; 32];
    key[..8].copy_from_slice(&(node as u64).to_le_bytes());
    key
}

pub(super) fn consensus_key(node: usize) -> SigningKey {
    SigningKey::from_bytes(&key(node, 1))
}

pub(super) fn identity(node: usize) -> Identity {
    identity_of(node, &key(node, 2))
}

/// The key that a machine has made for the time after its first one.
pub(super) fn next_identity(node: usize) -> Identity {
    identity_of(node, &key(node, 4))
}

fn identity_of(node: usize, key: &[u8; 32]) -> Identity {
    Identity::create(key, address(node).into(), &name(node), BEGIN_MS).unwrap()
}

pub(super) fn wallet() -> Wallet {
    Wallet::new(wallet_key())
}

pub(super) fn wallet_key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

pub(super) fn record(node: usize) -> MasternodeRecord {
    MasternodeRecord {
        name: name(node),
        serial: 1,
        ip: address(node).into(),
        port: address(node).port(),
        pins: vec![identity(node).node_id()],
        consensus_key: (&consensus_key(node)).into(),
        payout: Address([9; 32]),
        signature: Signature([0; 64]),
    }
    .signed(&consensus_key(node), Network::Dev)
}

fn power(plan: &Plan, node: usize) -> u64 {
    let first = if node == 0 { plan.first_power } else { 1 };
    plan.powers.get(node).copied().unwrap_or(first)
}

pub(super) fn genesis(plan: &Plan) -> Genesis {
    let masternode = |node| GenesisMasternode {
        name: name(node),
        consensus_key: (&consensus_key(node)).into(),
        power: power(plan, node),
        payout: Address([9; 32]),
    };
    let allocation = Allocation {
        address: wallet().address(),
        amount: Amount::from_time(10).unwrap(),
    };
    Genesis {
        chain_id: TRUE_CHAIN.into(),
        network: Network::Dev,
        time_ms: BEGIN_MS,
        slot_ms: plan.slot.as_millis() as u64,
        min_block_interval_ms: 250,
        max_block_bytes: 4_000_000,
        min_fee_per_kb: Amount(1_000),
        uplink_mbit: 20,
        timeouts: Timeouts::default(),
        masternodes: (0..plan.masternodes).map(masternode).collect(),
        allocations: vec![allocation; plan.allocations],
    }
}

/// The chain that a world's nodes are on.
pub const TRUE_CHAIN: &str = "simulated";
