//! Blocks and the state after the newest of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::error::Fault;
use super::tables::{
    self, BODIES, CERTIFICATES, HEADERS, HEIGHTS, OUTPUTS, OUTPUTS_BY_ADDRESS, STATE, STATE_SET,
    STATE_TIP, TRANSACTIONS,
};
use super::{Store, StoreError, wal};
use crate::ledger::{Applied, LtHash};
use crate::types::{
    Address, Block, BlockHash, BlockHeader, CommitCertificate, EncodedBody, Height, OutPoint,
    StateCommitment, Tip, Transaction, TxId, TxOutput, codec,
};

/// The newest block and the set hash over the unspent outputs after it.
#[derive(Clone)]
pub(crate) struct ChainState {
    pub(crate) tip: Tip,
    pub(crate) set: LtHash,
}

/// A block to be committed, with what it changes.
pub(crate) struct BlockCommit {
    pub(crate) block: Arc<Block>,
    pub(crate) hash: BlockHash,
    pub(crate) applied: Arc<Applied>,
    pub(crate) certificate: Option<CommitCertificate>,
}

impl BlockCommit {
    /// The chain's state after this block.
    pub(crate) fn state(&self) -> ChainState {
        let header = &self.block.header;
        ChainState {
            tip: Tip {
                height: header.height,
                hash: self.hash,
                time_ms: header.time_ms,
                state: header.state,
            },
            set: self.applied.set.clone(),
        }
    }
}

impl Store {
    /// The stored state; `None` in a new database.
    pub(crate) async fn chain_state(&self) -> Result<Option<ChainState>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(STATE)?;
            let Some(tip) = table.get(STATE_TIP)? else {
                return Ok(None);
            };
            let tip: Tip = tables::decode("state", STATE_TIP, tip.value())?;
            let set = table
                .get(STATE_SET)?
                .ok_or_else(|| Fault::missing("state", STATE_SET))?;
            let set = LtHash::from_bytes(set.value())
                .ok_or_else(|| Fault::row("state", STATE_SET, "not 1,024 lanes"))?;
            check_state(transaction, &tip, set.commitment())?;
            Ok(Some(ChainState { tip, set }))
        })
        .await
    }

    /// Writes the state at height 0 into a new database.
    pub(crate) async fn write_genesis(
        &self,
        state: ChainState,
        outputs: Vec<(OutPoint, TxOutput)>,
    ) -> Result<(), StoreError> {
        self.write(move |transaction| {
            change_outputs(transaction, &[], &outputs)?;
            write_state(transaction, &state)
        })
        .await
    }

    /// Commits blocks that follow the stored tip in order, and prunes the consensus log up to the
    /// last of them, in one durable transaction. `then` runs once it is durable, with the state
    /// after the last block, even when the caller has gone. The list must not be empty.
    pub(crate) async fn commit_blocks<U: Send + 'static>(
        &self,
        commits: Vec<BlockCommit>,
        then: impl FnOnce(ChainState) -> U + Send + 'static,
    ) -> Result<U, StoreError> {
        self.write_then(move |transaction| commit(transaction, &commits), then)
            .await
    }

    pub(crate) async fn header(&self, height: Height) -> Result<Option<BlockHeader>, StoreError> {
        self.read(move |transaction| {
            let table = transaction.open_table(HEADERS)?;
            let row = table.get(height.0)?;
            row.map(|row| tables::decode("headers", height, row.value()))
                .transpose()
        })
        .await
    }

    /// The stored headers of a range, ascending.
    pub(crate) async fn headers(
        &self,
        heights: RangeInclusive<u64>,
    ) -> Result<Vec<BlockHeader>, StoreError> {
        self.read(move |transaction| {
            let table = transaction.open_table(HEADERS)?;
            let rows = table.range(heights)?;
            rows.map(|row| {
                let (height, header) = row?;
                tables::decode("headers", height.value(), header.value())
            })
            .collect()
        })
        .await
    }

    pub(crate) async fn block(&self, height: Height) -> Result<Option<Block>, StoreError> {
        self.read(move |transaction| {
            let headers = transaction.open_table(HEADERS)?;
            let Some(header) = headers.get(height.0)? else {
                return Ok(None);
            };
            let bodies = transaction.open_table(BODIES)?;
            let body = bodies
                .get(height.0)?
                .ok_or_else(|| Fault::missing("bodies", height))?;
            Ok(Some(Block {
                header: tables::decode("headers", height, header.value())?,
                transactions: tables::decode_body(height, body.value())?,
            }))
        })
        .await
    }

    /// The row as it is, once its form is checked.
    pub(crate) async fn encoded_body(
        &self,
        height: Height,
    ) -> Result<Option<EncodedBody>, StoreError> {
        self.read(move |transaction| {
            let table = transaction.open_table(BODIES)?;
            let row = table.get(height.0)?;
            row.map(|row| tables::encoded_body(height, row.value()))
                .transpose()
        })
        .await
    }

    pub(crate) async fn height_of(&self, block: BlockHash) -> Result<Option<Height>, StoreError> {
        self.read(move |transaction| {
            let table = transaction.open_table(HEIGHTS)?;
            let row = table.get(block.as_bytes())?;
            Ok(row.map(|height| Height(height.value())))
        })
        .await
    }

    /// The highest stored certificate of a range.
    pub(crate) async fn last_certificate(
        &self,
        heights: RangeInclusive<u64>,
    ) -> Result<Option<CommitCertificate>, StoreError> {
        self.read(move |transaction| {
            let table = transaction.open_table(CERTIFICATES)?;
            let row = table.range(heights)?.next_back().transpose()?;
            row.map(|(height, row)| tables::decode("certificates", height.value(), row.value()))
                .transpose()
        })
        .await
    }

    pub(crate) async fn find_transaction(
        &self,
        txid: TxId,
    ) -> Result<Option<(Height, u32)>, StoreError> {
        self.read(move |transaction| {
            let table = transaction.open_table(TRANSACTIONS)?;
            let row = table.get(txid.as_bytes())?;
            Ok(row.map(|row| {
                let (height, position) = row.value();
                (Height(height), position)
            }))
        })
        .await
    }

    /// The unspent outputs among these, in the same order.
    pub(crate) async fn outputs(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> Result<Vec<Option<TxOutput>>, StoreError> {
        self.read(move |transaction| {
            let table = transaction.open_table(OUTPUTS)?;
            outpoints
                .iter()
                .map(|outpoint| output(&table, outpoint))
                .collect()
        })
        .await
    }

    /// Those of these outputs that are unspent.
    pub(crate) async fn unspent(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> Result<BTreeMap<OutPoint, TxOutput>, StoreError> {
        self.read(move |transaction| {
            let table = transaction.open_table(OUTPUTS)?;
            let mut unspent = BTreeMap::new();
            for outpoint in outpoints {
                if let Some(output) = output(&table, &outpoint)? {
                    unspent.insert(outpoint, output);
                }
            }
            Ok(unspent)
        })
        .await
    }

    pub(crate) async fn outputs_of(
        &self,
        address: Address,
    ) -> Result<Vec<(OutPoint, TxOutput)>, StoreError> {
        self.read(move |transaction| {
            let outputs = transaction.open_table(OUTPUTS)?;
            let (first, last) = address_range(&address);
            let table = transaction.open_table(OUTPUTS_BY_ADDRESS)?;
            let rows = table.range::<&[u8; tables::ADDRESS_OUTPOINT_BYTES]>(&first..=&last)?;
            rows.map(|row| {
                let outpoint = tables::outpoint_of(row?.0.value());
                let output = output(&outputs, &outpoint)?
                    .ok_or_else(|| Fault::missing("outputs", show(&outpoint)))?;
                Ok((outpoint, output))
            })
            .collect()
        })
        .await
    }
}

/// Checks that the rows of the tip agree with each other.
fn check_state(
    transaction: &ReadTransaction,
    tip: &Tip,
    set: StateCommitment,
) -> Result<(), Fault> {
    let bad = |detail: &str| Err(Fault::row("state", STATE_TIP, detail));
    if tip.state != set {
        return bad("its state commitment is not that of the stored set hash");
    }
    let headers = transaction.open_table(HEADERS)?;
    if headers.range(tip.height.0 + 1..)?.next().is_some() {
        return bad("there are blocks above it");
    }
    if tip.height == Height::GENESIS {
        return Ok(());
    }
    let header = headers
        .get(tip.height.0)?
        .ok_or_else(|| Fault::missing("headers", tip.height))?;
    let header: BlockHeader = tables::decode("headers", tip.height, header.value())?;
    if header.height != tip.height || header.hash() != tip.hash {
        return bad("its hash is not that of the stored header");
    }
    if header.state != tip.state || header.time_ms != tip.time_ms {
        return bad("it differs from the stored header");
    }
    Ok(())
}

fn commit(transaction: &WriteTransaction, commits: &[BlockCommit]) -> Result<ChainState, Fault> {
    let last = commits
        .last()
        .expect("callers commit at least one block")
        .state();
    check_order(transaction, commits)?;
    write_blocks(transaction, commits)?;
    let (spent, created) = net_changes(commits)?;
    change_outputs(transaction, &spent, &created)?;
    write_state(transaction, &last)?;
    wal::prune(transaction, last.tip.height)?;
    Ok(last)
}

/// Whatever the caller believes, nothing is written that does not follow what is stored.
fn check_order(transaction: &WriteTransaction, commits: &[BlockCommit]) -> Result<(), Fault> {
    let table = transaction.open_table(STATE)?;
    let tip = table
        .get(STATE_TIP)?
        .ok_or_else(|| Fault::missing("state", STATE_TIP))?;
    let tip: Tip = tables::decode("state", STATE_TIP, tip.value())?;
    let mut parent = (tip.height, tip.hash);
    for commit in commits {
        let header = &commit.block.header;
        if (header.height, header.parent) != (parent.0.next(), parent.1) {
            return Err(Fault::row(
                "state",
                STATE_TIP,
                format!(
                    "height {} is to be followed by block {}",
                    parent.0, commit.hash
                ),
            ));
        }
        parent = (header.height, commit.hash);
    }
    Ok(())
}

/// Each table is opened once and written in the order of its keys: hashes come in no order of their
/// own, and the pages of a tree are copied once per transaction however many of their rows change.
fn write_blocks(transaction: &WriteTransaction, commits: &[BlockCommit]) -> Result<(), Fault> {
    let mut headers = transaction.open_table(HEADERS)?;
    let mut bodies = transaction.open_table(BODIES)?;
    let mut certificates = transaction.open_table(CERTIFICATES)?;
    let mut hashes = BTreeMap::new();
    let mut positions = BTreeMap::new();
    for commit in commits {
        let height = commit.block.header.height.0;
        let transactions: &[Transaction] = &commit.block.transactions;
        headers.insert(height, codec::encode(&commit.block.header).as_slice())?;
        bodies.insert(height, codec::encode(transactions).as_slice())?;
        if let Some(certificate) = &commit.certificate {
            certificates.insert(height, codec::encode(certificate).as_slice())?;
        }
        hashes.insert(commit.hash, height);
        let ids = transactions.iter().map(Transaction::id);
        positions.extend(
            ids.zip(0u32..)
                .map(|(id, position)| (id, (height, position))),
        );
    }
    let mut heights = transaction.open_table(HEIGHTS)?;
    for (hash, height) in hashes {
        heights.insert(hash.as_bytes(), height)?;
    }
    let mut table = transaction.open_table(TRANSACTIONS)?;
    for (id, at) in positions {
        table.insert(id.as_bytes(), at)?;
    }
    Ok(())
}

type Outputs = Vec<(OutPoint, TxOutput)>;

/// What consecutive blocks spend of the outputs before them, and what they leave; both ascending.
fn net_changes(commits: &[BlockCommit]) -> Result<(Outputs, Outputs), Fault> {
    let mut spent = BTreeMap::new();
    let mut created = BTreeMap::new();
    for commit in commits {
        for (outpoint, output) in &commit.applied.spent {
            if created.remove(outpoint).is_none() && spent.insert(*outpoint, *output).is_some() {
                return Err(Fault::missing("outputs", show(outpoint)));
            }
        }
        for (outpoint, output) in &commit.applied.created {
            if created.insert(*outpoint, *output).is_some() {
                return Err(made_twice(outpoint));
            }
        }
    }
    Ok((spent.into_iter().collect(), created.into_iter().collect()))
}

fn change_outputs(
    transaction: &WriteTransaction,
    spent: &[(OutPoint, TxOutput)],
    created: &[(OutPoint, TxOutput)],
) -> Result<(), Fault> {
    let mut outputs = transaction.open_table(OUTPUTS)?;
    for (outpoint, _) in spent {
        if outputs.remove(&tables::outpoint_key(outpoint))?.is_none() {
            return Err(Fault::missing("outputs", show(outpoint)));
        }
    }
    for (outpoint, output) in created {
        let key = tables::outpoint_key(outpoint);
        if outputs
            .insert(&key, codec::encode(output).as_slice())?
            .is_some()
        {
            return Err(made_twice(outpoint));
        }
    }
    let mut by_address = transaction.open_table(OUTPUTS_BY_ADDRESS)?;
    for (key, outpoint) in address_keys(spent) {
        if by_address.remove(&key)?.is_none() {
            return Err(Fault::missing("outputs_by_address", show(&outpoint)));
        }
    }
    for (key, _) in address_keys(created) {
        by_address.insert(&key, ())?;
    }
    Ok(())
}

/// The keys of `outputs_by_address`, ascending.
fn address_keys(
    outputs: &[(OutPoint, TxOutput)],
) -> BTreeMap<[u8; tables::ADDRESS_OUTPOINT_BYTES], OutPoint> {
    let keys = outputs.iter();
    keys.map(|(outpoint, output)| (tables::address_key(&output.address, outpoint), *outpoint))
        .collect()
}

fn made_twice(outpoint: &OutPoint) -> Fault {
    Fault::row("outputs", show(outpoint), "it is made a second time")
}

fn write_state(transaction: &WriteTransaction, state: &ChainState) -> Result<(), Fault> {
    let mut table = transaction.open_table(STATE)?;
    table.insert(STATE_TIP, codec::encode(&state.tip).as_slice())?;
    table.insert(STATE_SET, state.set.to_bytes().as_slice())?;
    Ok(())
}

fn output(
    table: &impl ReadableTable<tables::OutPointKey, &'static [u8]>,
    outpoint: &OutPoint,
) -> Result<Option<TxOutput>, Fault> {
    let row = table.get(&tables::outpoint_key(outpoint))?;
    row.map(|row| tables::decode("outputs", show(outpoint), row.value()))
        .transpose()
}

fn address_range(
    address: &Address,
) -> (
    [u8; tables::ADDRESS_OUTPOINT_BYTES],
    [u8; tables::ADDRESS_OUTPOINT_BYTES],
) {
    let outpoint = |byte, index| OutPoint {
        txid: TxId([byte; 32]),
        index,
    };
    (
        tables::address_key(address, &outpoint(0, 0)),
        tables::address_key(address, &outpoint(0xff, u32::MAX)),
    )
}

fn show(outpoint: &OutPoint) -> String {
    format!("{}:{}", outpoint.txid, outpoint.index)
}
