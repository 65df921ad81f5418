//! `timed wallet`: one key in `wallet.key`. Keys stay in this process; the node gets signed
//! transactions.

use anyhow::{Context, bail};
use ed25519_dalek::SigningKey;
use serde::Deserialize;
use serde_json::{Value, json};
use timed::ledger::Rules;
use timed::node::files::{DataDir, load_genesis};
use timed::node::keys;
use timed::node::wallet::{Transfer, Wallet};
use timed::types::{Address, Amount, Network, OutPoint, TxId, TxOutput, codec};

use super::client::Client;
use super::{Environment, history, output};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a new key in wallet.key
    New(NetworkArgument),
    /// Show the wallet's address
    Address(NetworkArgument),
    /// Show what an address holds
    Balance {
        /// The address [default: the wallet's]
        address: Option<String>,
    },
    /// Send TIME
    Send {
        /// Who is paid
        to: String,
        /// How much, like 12 or 12.5
        amount: Amount,
        /// The fee [default: the lowest that the chain takes]
        #[arg(long)]
        fee: Option<Amount>,
        /// Return at once, without waiting until the transaction is final
        #[arg(long)]
        no_wait: bool,
    },
    /// Show what was received, sent and earned, newest first
    History {
        /// The address [default: the wallet's]
        address: Option<String>,
        /// How many of the newest blocks are read
        #[arg(long, default_value_t = 1_000)]
        blocks: u64,
    },
}

#[derive(clap::Args)]
pub(super) struct NetworkArgument {
    /// The network that the address is for [default: that of genesis.toml]
    #[arg(long)]
    network: Option<Network>,
}

pub(super) fn run(environment: &Environment, command: Command) -> anyhow::Result<()> {
    match command {
        Command::New(argument) => new(environment, &argument),
        Command::Address(argument) => address(environment, &argument),
        Command::Balance { address } => balance(environment, address),
        Command::Send {
            to,
            amount,
            fee,
            no_wait,
        } => send(environment, &to, amount, fee, !no_wait),
        Command::History { address, blocks } => show_history(environment, address, blocks),
    }
}

fn new(environment: &Environment, argument: &NetworkArgument) -> anyhow::Result<()> {
    let dir = DataDir::new(&environment.data_dir);
    let path = dir.wallet_key();
    if path.symlink_metadata().is_ok() {
        bail!(
            "{} exists: it is not overwritten; move it away first",
            path.display()
        );
    }
    let secret = keys::new_secret().context("the operating system gives no random bytes")?;
    keys::write_key(&path, &SigningKey::from_bytes(&secret))?;
    address(environment, argument)
}

fn address(environment: &Environment, argument: &NetworkArgument) -> anyhow::Result<()> {
    let dir = DataDir::new(&environment.data_dir);
    let text = match argument.network {
        Some(network) => open(&dir)?.address().to_text(network),
        None => own_address(&dir)?,
    };
    if environment.json {
        return output::json(&json!({ "address": text }));
    }
    output::line(text);
    Ok(())
}

fn balance(environment: &Environment, address: Option<String>) -> anyhow::Result<()> {
    let dir = DataDir::new(&environment.data_dir);
    let address = match address {
        Some(address) => address,
        None => own_address(&dir)?,
    };
    let client = Client::of(&environment.data_dir)?;
    let answer = client.call("getaddressbalance", json!([address]))?;
    if environment.json {
        return output::json(&answer);
    }
    let amount = |key: &str| format!("{} TIME", answer[key].as_str().unwrap_or("?"));
    output::line(output::facts(&[
        ("address", address),
        ("balance", amount("balance")),
        ("spendable", amount("spendable")),
        ("being spent", amount("being_spent")),
    ]));
    Ok(())
}

fn send(
    environment: &Environment,
    to: &str,
    amount: Amount,
    fee: Option<Amount>,
    wait: bool,
) -> anyhow::Result<()> {
    let dir = DataDir::new(&environment.data_dir);
    let genesis = load_genesis(&dir)?;
    let wallet = open(&dir)?;
    let to = Address::parse(to, genesis.network)?;
    let client = Client::of(&environment.data_dir)?;
    let unspent = spendable(
        &client,
        &wallet.address().to_text(genesis.network),
        wallet.address(),
    )?;
    let transfer = Transfer { to, amount, fee };
    let transaction = wallet.transfer(&Rules::of(&genesis), &unspent, &transfer)?;
    let encoded = hex::encode(codec::encode(&transaction));
    let txid = client.call("sendrawtransaction", json!([encoded]))?;
    let finality = match wait {
        true => client.call("waittransactionfinality", json!([txid, 60_000]))?,
        false => json!({ "txid": txid, "status": "waiting" }),
    };
    if environment.json {
        return output::json(&finality);
    }
    output::line(match finality["status"].as_str() {
        Some("final") => format!(
            "{} is final in block {}",
            transaction.id(),
            finality["height"]
        ),
        Some("waiting") => format!("{} waits for a block", transaction.id()),
        _ => bail!(
            "{} is no longer known to the node: send again",
            transaction.id()
        ),
    });
    Ok(())
}

fn show_history(
    environment: &Environment,
    address: Option<String>,
    blocks: u64,
) -> anyhow::Result<()> {
    let dir = DataDir::new(&environment.data_dir);
    let genesis = load_genesis(&dir)?;
    let address = match address {
        Some(text) => Address::parse(&text, genesis.network)?,
        None => open(&dir)?.address(),
    };
    let client = Client::of(&environment.data_dir)?;
    let entries = history::read(&client, &genesis, address, blocks)?;
    if environment.json {
        return output::json(&entries);
    }
    output::line(history::describe(&entries, blocks, genesis.network));
    Ok(())
}

fn open(dir: &DataDir) -> anyhow::Result<Wallet> {
    let path = dir.wallet_key();
    if !path.exists() {
        bail!(
            "{} is missing: make a key with \"timed wallet new\"",
            path.display()
        );
    }
    Ok(Wallet::new(keys::read_key(&path)?))
}

fn own_address(dir: &DataDir) -> anyhow::Result<String> {
    let wallet = open(dir)?;
    let genesis =
        load_genesis(dir).context("an address belongs to a network: name it with --network")?;
    Ok(wallet.address().to_text(genesis.network))
}

/// An entry of `getaddressutxos`.
#[derive(Deserialize)]
struct Utxo {
    txid: TxId,
    index: u32,
    amount: Amount,
    spent_by: Option<TxId>,
}

/// The outputs of an address that no waiting transaction spends.
fn spendable(
    client: &Client,
    text: &str,
    address: Address,
) -> anyhow::Result<Vec<(OutPoint, TxOutput)>> {
    let answer: Value = client.call("getaddressutxos", json!([text]))?;
    let utxos: Vec<Utxo> = serde_json::from_value(answer["utxos"].clone())
        .context("the node's answer to getaddressutxos is not as expected")?;
    let free = utxos.into_iter().filter(|utxo| utxo.spent_by.is_none());
    let outputs = free.map(|utxo| {
        let outpoint = OutPoint {
            txid: utxo.txid,
            index: utxo.index,
        };
        let amount = utxo.amount;
        (outpoint, TxOutput { amount, address })
    });
    Ok(outputs.collect())
}
