//! `timed wallet`: one key in `wallet.key`. Keys stay in this process; the node gets signed
//! transactions.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ed25519_dalek::SigningKey;
use serde::Deserialize;
use serde_json::{Value, json};
use timed::ledger::Rules;
use timed::node::files::{DataDir, load_genesis};
use timed::node::keys;
use timed::node::wallet::file::{Passphrase, WalletFile};
use timed::node::wallet::{Fee, Transfer, Wallet};
use timed::types::{Address, Amount, Network, OutPoint, Transaction, TxId, TxOutput, codec};

use super::client::{Client, OtherNode, Refusal};
use super::{Environment, history, output, passphrase};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a new key in wallet.key
    New(New),
    /// Show the wallet's address
    Address(NetworkArgument),
    /// Show what an address holds
    Balance {
        /// The address [default: the wallet's]
        address: Option<String>,
    },
    /// Send TIME, and wait until it is final
    Send(Send),
    /// Show what was received, sent and earned, newest first
    History {
        /// The address [default: the wallet's]
        address: Option<String>,
        /// How many of the newest blocks are read
        #[arg(long, default_value_t = 1_000)]
        blocks: u64,
    },
    /// Encrypt wallet.key with a passphrase, change it, or remove it
    ///
    /// The address, balance and history are shown without it; sending needs it. Nobody can help when
    /// it is lost. The key that was in clear may be left on the disk's unused sectors and in backups:
    /// for a key that never was, use "timed wallet new --encrypt".
    Passphrase(ChangePassphrase),
}

#[derive(clap::Args)]
pub(super) struct New {
    #[command(flatten)]
    network: NetworkArgument,
    /// Encrypt it with a passphrase, asked for on the terminal or in --passphrase-file
    #[arg(long)]
    encrypt: bool,
    #[command(flatten)]
    passphrase: passphrase::Source,
}

#[derive(clap::Args)]
pub(super) struct ChangePassphrase {
    /// Write the key in clear again
    #[arg(long, conflicts_with = "new_passphrase_file")]
    remove: bool,
    #[command(flatten)]
    passphrase: passphrase::Source,
    /// A file whose first line is the new passphrase [default: asked for on the terminal, twice]
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(super) struct Send {
    /// Who is paid
    to: String,
    /// How much, like 12 or 12.5
    amount: Amount,
    /// How soon it should be in a block, judged by what waits now: low pays the least that the chain
    /// takes, normal to be among the next three blocks, high the next one. While blocks are not full
    /// all three are the same
    #[arg(long, value_enum, default_value_t = Priority::Normal)]
    priority: Priority,
    /// The fee for each 1000 bytes, in TIME; never less than the chain takes
    #[arg(long, value_name = "AMOUNT", conflicts_with = "priority")]
    fee_rate: Option<Amount>,
    /// The whole fee
    #[arg(long, value_name = "AMOUNT", conflicts_with_all = ["priority", "fee_rate"])]
    fee: Option<Amount>,
    /// Return at once, without waiting until the transaction is final
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    passphrase: passphrase::Source,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Priority {
    Low,
    Normal,
    High,
}

#[derive(clap::Args)]
pub(super) struct NetworkArgument {
    /// The network that the address is for [default: that of genesis.toml]
    #[arg(long)]
    network: Option<Network>,
}

pub(super) fn run(environment: &Environment, command: Command) -> anyhow::Result<()> {
    match command {
        Command::New(arguments) => new(environment, &arguments),
        Command::Address(argument) => address(environment, &argument),
        Command::Balance { address } => balance(environment, address),
        Command::Send(arguments) => send(environment, &arguments),
        Command::History { address, blocks } => show_history(environment, address, blocks),
        Command::Passphrase(arguments) => change_passphrase(environment, &arguments),
    }
}

fn new(environment: &Environment, arguments: &New) -> anyhow::Result<()> {
    let path = DataDir::new(&environment.data_dir).wallet_key();
    if path.symlink_metadata().is_ok() {
        // Said before anybody thinks of a passphrase.
        bail!(
            "{} exists: it is not overwritten; move it away first",
            path.display()
        );
    }
    let file = arguments.passphrase.passphrase_file.as_deref();
    let passphrase = match arguments.encrypt || file.is_some() {
        true => Some(passphrase::new(file)?),
        false => None,
    };
    let secret = keys::new_secret().context("the operating system gives no random bytes")?;
    WalletFile::create(&path, &SigningKey::from_bytes(&secret), passphrase.as_ref())?;
    address(environment, &arguments.network)
}

fn change_passphrase(
    environment: &Environment,
    arguments: &ChangePassphrase,
) -> anyhow::Result<()> {
    let file = open(&DataDir::new(&environment.data_dir))?;
    let (old_file, new_file) = (
        arguments.passphrase.passphrase_file.as_deref(),
        arguments.new_passphrase_file.as_deref(),
    );
    if file.is_encrypted() && old_file.is_some() && old_file == new_file {
        bail!("the old and the new passphrase cannot come from the same place");
    }
    if arguments.remove && !file.is_encrypted() {
        bail!("wallet.key has no passphrase: nothing was changed");
    }
    let old = unlock(&file, old_file)?;
    let new = match arguments.remove {
        true => None,
        false => Some(passphrase::new(new_file)?),
    };
    file.change(old.as_ref(), new.as_ref())?;
    let encrypted = !arguments.remove;
    if environment.json {
        return output::json(&json!({ "encrypted": encrypted }));
    }
    output::line(match encrypted {
        true => {
            "wallet.key is encrypted. Renew its backup; without the passphrase it is worth nothing"
        }
        false => "wallet.key is in clear: whoever can read it can spend",
    });
    Ok(())
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

fn send(environment: &Environment, arguments: &Send) -> anyhow::Result<()> {
    let dir = DataDir::new(&environment.data_dir);
    let genesis = load_genesis(&dir)?;
    let file = open(&dir)?;
    let to = Address::parse(&arguments.to, genesis.network)?;
    let client = Client::of(&environment.data_dir)?;
    let own = file.address();
    let unspent = spendable(&client, &own.to_text(genesis.network), own)?;
    let transfer = Transfer {
        to,
        amount: arguments.amount,
        fee: fee(&client, arguments)?,
    };
    let passphrase = unlock(&file, arguments.passphrase.passphrase_file.as_deref())?;
    let wallet: Wallet = file.unlock(passphrase.as_ref())?;
    let transaction = wallet.transfer(&Rules::of(&genesis), &unspent, &transfer)?;
    let fee = fee_of(&transaction, &unspent);
    hand_in(&client, &transaction)?;
    let id = transaction.id();
    let mut finality = match arguments.no_wait {
        false => {
            // Whoever interrupts the wait can ask for it.
            eprintln!("timed: {id} is handed in; waiting until it is final");
            wait(&client, id)?
        }
        true => json!({ "txid": id, "status": "waiting" }),
    };
    finality["fee"] = json!(fee);
    if environment.json {
        return output::json(&finality);
    }
    output::line(match finality["status"].as_str() {
        Some("final") => format!(
            "{id} is final in block {}, fee {fee} TIME",
            finality["height"]
        ),
        _ => format!(
            "{id} waits for a block, fee {fee} TIME; timed rpc waittransactionfinality {id}"
        ),
    });
    Ok(())
}

/// Gives the node a transaction. Where the answer is lost, it may have been taken.
fn hand_in(client: &Client, transaction: &Transaction) -> anyhow::Result<()> {
    let encoded = hex::encode(codec::encode(transaction));
    let Err(error) = client.call("sendrawtransaction", json!([encoded])) else {
        return Ok(());
    };
    if error.is::<Refusal>() || error.is::<OtherNode>() {
        return Err(error);
    }
    let id = transaction.id();
    Err(unsettled(
        id,
        format!("{id} may have been handed in ({error:#}): before you send again,"),
    ))
}

/// Waits until a transaction that was handed in is final, as long as one call may take.
fn wait(client: &Client, id: TxId) -> anyhow::Result<Value> {
    let reason = match client.call("waittransactionfinality", json!([id, 60_000])) {
        Ok(finality) if finality["status"] != "unknown" => return Ok(finality),
        Ok(_) => "the node does not know it any more, but its peers may".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    Err(unsettled(
        id,
        format!("{id} was handed in; whether it is final is not known ({reason}):"),
    ))
}

/// A payment of which nobody can say yet whether it is made: whoever sends it again may pay twice.
fn unsettled(id: TxId, what: String) -> anyhow::Error {
    let failure = output::Failure {
        sentence: format!("{what} ask with timed rpc gettransactionfinality {id}"),
        facts: json!({ "txid": id }),
    };
    failure.into()
}

fn fee(client: &Client, arguments: &Send) -> anyhow::Result<Fee> {
    let blocks = match (arguments.fee, arguments.fee_rate, arguments.priority) {
        (Some(fee), _, _) => return Ok(Fee::Exact(fee)),
        (None, Some(rate), _) => return Ok(Fee::PerKb(rate)),
        (None, None, Priority::Low) => return Ok(Fee::Lowest),
        (None, None, Priority::Normal) => 3,
        (None, None, Priority::High) => 1,
    };
    let answer = client.call("estimatesmartfee", json!([blocks]))?;
    let rate = serde_json::from_value(answer["feerate"].clone());
    Ok(Fee::PerKb(rate.context(
        "the node's answer to estimatesmartfee is not as expected",
    )?))
}

/// What the inputs hold above the outputs.
fn fee_of(transaction: &Transaction, unspent: &[(OutPoint, TxOutput)]) -> Amount {
    let spent = transaction.inputs.iter().filter_map(|input| {
        let mut found = unspent.iter();
        found.find(|(outpoint, _)| *outpoint == input.outpoint)
    });
    let paid = Amount::checked_sum(transaction.outputs.iter().map(|output| output.amount));
    Amount::checked_sum(spent.map(|(_, output)| output.amount))
        .zip(paid)
        .and_then(|(spent, paid)| spent.checked_sub(paid))
        .expect("the wallet built it from these outputs within the amounts' limits")
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

fn open(dir: &DataDir) -> anyhow::Result<WalletFile> {
    Ok(WalletFile::open(&dir.wallet_key())?)
}

/// The passphrase that opens the wallet; none for one in clear.
fn unlock(file: &WalletFile, from: Option<&Path>) -> anyhow::Result<Option<Passphrase>> {
    if !file.is_encrypted() {
        return Ok(None);
    }
    let passphrase = passphrase::given(from, "Passphrase of wallet.key: ")?;
    file.unlock(Some(&passphrase))?;
    Ok(Some(passphrase))
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
