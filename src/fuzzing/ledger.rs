//! Blocks of transactions from a few wallets, most right and some broken, on chains of a few blocks.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ed25519_dalek::SigningKey;

use super::{Choices, round_trip};
use crate::ledger::fixture::{
    Ledger, WALLETS, address, consensus_key, genesis_with_powers, wallet,
};
use crate::ledger::reward::REWARD_PER_SLOT;
use crate::ledger::{
    Applied, Draft, LtHash, MAX_TRANSACTION_BYTES, StateView, apply_block, apply_signed_block,
    assemble_block, check_form, check_signatures, check_spending, check_transaction,
};
use crate::types::block::transactions_root;
use crate::types::transaction::TRANSACTION_VERSION;
use crate::types::{
    Address, Amount, Block, Genesis, GenesisHash, OutPoint, PublicKey, Signature, Transaction,
    TxId, TxInput, TxOutput, ValidatorSet, signing,
};

const POWERS: [u64; 3] = [1, 2, 4];
const MAX_BLOCKS: usize = 4;
const MAX_CANDIDATES: usize = 4;

/// Chains to start from: ordinary; with blocks that three transactions fill; with nearly all the
/// amount that there can be.
static GENESES: LazyLock<[Genesis; 3]> = LazyLock::new(|| {
    let ordinary = genesis_with_powers(&POWERS);
    let mut tight = ordinary.clone();
    // Below what a checked genesis may say, so that few transactions reach it.
    tight.max_block_bytes = 800;
    let mut rich = ordinary.clone();
    for allocation in &mut rich.allocations {
        allocation.amount = Amount(u64::MAX / u64::from(WALLETS));
    }
    [ordinary, tight, rich]
});

/// Who owns what: the wallets with an allocation, and those that are paid the rewards.
static OWNERS: LazyLock<BTreeMap<Address, (SigningKey, PublicKey)>> = LazyLock::new(|| {
    let owners = (0..WALLETS).chain(200..200 + POWERS.len() as u8);
    owners
        .map(|index| (address(index), (wallet(index), (&wallet(index)).into())))
        .collect()
});

/// A few blocks, one on the other. What is checked of each:
///
/// - a transaction is accepted exactly when its parts are, and its fee is what its sums leave;
/// - a block is assembled unless nobody could make it, and what is assembled applies;
/// - transactions that were refused leave no trace in it;
/// - the supply grows by the reward alone, no output is worth nothing, none is spent twice;
/// - the set hash is that of the outputs;
/// - a block that was altered is refused.
pub fn ledger(input: &[u8]) {
    let mut choices = Choices::new(input);
    let genesis = GENESES[choices.below(GENESES.len())].clone();
    let mut chain = Ledger::new(genesis);
    let mut known: Vec<(OutPoint, TxOutput)> = chain.genesis.outputs();
    for _ in 0..MAX_BLOCKS {
        if choices.is_empty() {
            return;
        }
        next_block(&mut chain, &mut known, &mut choices);
    }
}

fn next_block(
    chain: &mut Ledger,
    known: &mut Vec<(OutPoint, TxOutput)>,
    choices: &mut Choices<'_>,
) {
    let mut candidates = Vec::new();
    for _ in 0..choices.below(MAX_CANDIDATES + 1) {
        let candidate = transaction(chain, known, choices);
        transaction_alone(chain, &candidate);
        // Also of one that will be refused: then its outputs are unknown ones.
        known.extend(candidate.created());
        candidates.push(candidate);
    }
    let parent_ms = chain.parent.time_ms;
    let time_ms = match choices.below(5) {
        0 => parent_ms.saturating_add(1),
        1 => parent_ms.saturating_add(chain.genesis.slot_ms),
        2 => parent_ms.saturating_add(u64::from(choices.byte()) * chain.genesis.slot_ms),
        3 => parent_ms.saturating_add(1 << choices.below(64)),
        _ => parent_ms,
    };
    let proposer = choices.below(POWERS.len() + 1);
    let max_bytes = match choices.flag() {
        true => usize::from(choices.byte()) * 8,
        false => usize::MAX,
    };
    let draft = |candidates| Draft {
        proposer: consensus_key(proposer as u8),
        time_ms,
        candidates,
        max_bytes,
    };
    let Ok((block, applied)) = assemble(chain, draft(candidates)) else {
        assert!(proposer == POWERS.len() || nobody_could_make_one(chain, time_ms));
        return;
    };
    let again = assemble(chain, draft(block.transactions.clone()));
    assert_eq!(again, Ok((block.clone(), applied.clone())));
    let size = round_trip(&block).len();
    // The draft may allow less than an empty block has.
    assert!(size <= max_bytes || block.transactions.is_empty());
    assert_eq!(apply(chain, &block), Some(applied.clone()));
    altered(chain, &block, choices);
    let expected = supply(&chain.outputs) + reward(chain, time_ms);
    advance(chain, &block, applied, known);
    assert_eq!(supply(&chain.outputs), expected);
}

/// A transaction that spends one to three of the known outputs, and what is wrong with it.
fn transaction(
    chain: &Ledger,
    known: &[(OutPoint, TxOutput)],
    choices: &mut Choices<'_>,
) -> Transaction {
    let count = 1 + choices.below(3);
    let inputs: Vec<(OutPoint, TxOutput)> = (0..count)
        .map(|_| known[known.len() - 1 - choices.below(known.len().min(256))])
        .collect();
    let sum: u128 = inputs.iter().map(|(_, one)| u128::from(one.amount.0)).sum();
    let count = 1 + choices.below(3);
    let bytes = 18 + 132 * inputs.len() + 40 * count;
    let fee = match choices.below(4) {
        0 => u128::from(chain.rules.min_fee(bytes).0),
        1 => u128::from(chain.rules.min_fee(bytes).0).saturating_sub(1),
        2 => sum / 2,
        _ => sum.saturating_sub(count as u128),
    };
    let each = sum.saturating_sub(fee) / count as u128;
    let mut outputs: Vec<TxOutput> = (0..count)
        .map(|_| TxOutput {
            amount: Amount(u64::try_from(each).unwrap_or(u64::MAX)),
            address: address(choices.below(usize::from(WALLETS)) as u8),
        })
        .collect();
    // What the division left: so that a fee is as low as it may be, exactly.
    let rest = sum.saturating_sub(fee) - each * count as u128;
    outputs[0].amount.0 = outputs[0].amount.0.saturating_add(rest as u64);
    let mut made = Transaction {
        version: TRANSACTION_VERSION,
        inputs: inputs.iter().map(unsigned).collect(),
        outputs,
    };
    break_before_signing(&mut made, choices);
    let genesis = match choices.byte() {
        1 => GenesisHash([0; 32]),
        _ => chain.rules.genesis,
    };
    let digest = made.signing_digest(&genesis);
    for (input, (_, output)) in made.inputs.iter_mut().zip(&inputs) {
        input.signature = signing::sign(&OWNERS[&output.address].0, &digest);
    }
    if choices.byte() == 1 {
        let bit = choices.below(256) + 256 * choices.below(2);
        if let Some(input) = made.inputs.last_mut() {
            input.signature.0[bit / 8] ^= 1 << (bit % 8);
        }
    }
    made
}

fn unsigned((outpoint, output): &(OutPoint, TxOutput)) -> TxInput {
    TxInput {
        outpoint: *outpoint,
        public_key: OWNERS[&output.address].1,
        signature: Signature([0; 64]),
    }
}

/// Changes that a signature covers; most choices change nothing.
fn break_before_signing(made: &mut Transaction, choices: &mut Choices<'_>) {
    match choices.byte() {
        1 => made.version = 0,
        2 => made.inputs.clear(),
        3 => made.outputs.clear(),
        4 => made.inputs.push(made.inputs[0]),
        5 => made.inputs[0].outpoint.txid = TxId(choices.bytes()),
        6 => made.inputs[0].outpoint.index ^= 1,
        7 => made.inputs[0].public_key = PublicKey(choices.bytes()),
        8 => made.outputs[0].amount = Amount(choices.u64()),
        9 => made.outputs[0].amount = Amount::ZERO,
        10 => made.outputs[0].amount.0 = made.outputs[0].amount.0.saturating_add(1),
        11 => {
            let output = made.outputs[0];
            let most = (MAX_TRANSACTION_BYTES - 18) / 40;
            made.outputs.resize(most, output);
        }
        _ => {}
    }
}

/// A transaction over the state as it is: accepted exactly when every part accepts it, and then a
/// block with it alone applies.
fn transaction_alone(chain: &Ledger, one: &Transaction) {
    let (view, rules) = (&chain.outputs, &chain.rules);
    let whole = check_transaction(one, view, rules);
    let parts = check_form(one, rules)
        .and_then(|()| check_spending(one, view, rules))
        .and_then(|fee| check_signatures(one, rules).map(|()| fee));
    assert_eq!(whole, parts);
    round_trip(one);
    let Ok(fee) = whole else {
        return;
    };
    let spent = one.inputs.iter().map(|input| view[&input.outpoint].amount);
    let paid = one.outputs.iter().map(|output| output.amount);
    let sum = |amounts: &mut dyn Iterator<Item = Amount>| -> u128 {
        amounts.map(|amount| u128::from(amount.0)).sum()
    };
    assert_eq!(sum(&mut { spent }) - sum(&mut { paid }), fee.0.into());
    assert!(fee >= rules.min_fee(one.encoded_bytes()));
    let time_ms = chain.parent.time_ms.saturating_add(1);
    let draft = Draft {
        proposer: consensus_key(0),
        time_ms,
        candidates: vec![one.clone()],
        max_bytes: usize::MAX,
    };
    let Ok((block, applied)) = assemble(chain, draft) else {
        assert!(nobody_could_make_one(chain, time_ms));
        return;
    };
    assert_eq!(block.transactions, std::slice::from_ref(one));
    assert_eq!(applied.fees, fee);
    assert_eq!(apply(chain, &block), Some(applied));
}

/// Changes one thing in a valid block: it is refused, whatever the thing.
fn altered(chain: &Ledger, block: &Block, choices: &mut Choices<'_>) {
    let mut block = block.clone();
    let at = choices.below(block.transactions.len().max(1));
    let bit = 1 << choices.below(8);
    let header = &mut block.header;
    match choices.below(11) {
        0 => header.version ^= 1,
        1 => header.height.0 ^= u64::from(bit),
        2 => header.parent.0[at] ^= bit,
        3 => header.proposer = consensus_key(POWERS.len() as u8),
        4 => header.transactions_root.0[at] ^= bit,
        5 => header.state.0[at] ^= bit,
        6 => header.validators.0[at] ^= bit,
        7 => header.time_ms = chain.parent.time_ms,
        _ if block.transactions.is_empty() => return,
        // A transaction, under the root that belongs to the altered ones.
        what => {
            match what {
                8 => drop(block.transactions.remove(at)),
                9 => block.transactions.push(block.transactions[at].clone()),
                _ => block.transactions[at].inputs[0].signature.0[at] ^= bit,
            }
            block.header.transactions_root = transactions_root(&block.transactions);
        }
    }
    assert_eq!(apply(chain, &block), None, "{block:?}");
}

/// Both ways to apply a block: the one that checks signatures accepts nothing that the other refuses.
fn apply(chain: &Ledger, block: &Block) -> Option<Applied> {
    let (genesis, validators, view) = (&chain.genesis, &chain.validators, &chain.outputs);
    let whole = apply_block(genesis, validators, &chain.parent, block, view).ok();
    let signed = |one: &Transaction| check_signatures(one, &chain.rules).is_ok();
    if block.transactions.iter().all(signed) {
        let trusting = apply_signed_block(genesis, validators, &chain.parent, block, view);
        assert_eq!(trusting.ok(), whole);
    }
    whole
}

fn assemble(chain: &Ledger, draft: Draft) -> Result<(Block, Applied), crate::ledger::BlockError> {
    let (genesis, validators): (&Genesis, &ValidatorSet) = (&chain.genesis, &chain.validators);
    assemble_block(genesis, validators, &chain.parent, draft, &chain.outputs)
}

/// Moves on to a block.
fn advance(
    chain: &mut Ledger,
    block: &Block,
    applied: Applied,
    known: &mut Vec<(OutPoint, TxOutput)>,
) {
    for (outpoint, output) in &applied.spent {
        assert_eq!(chain.outputs.remove(outpoint), Some(*output));
    }
    for (outpoint, output) in &applied.created {
        assert!(output.amount > Amount::ZERO);
        assert_eq!(chain.outputs.insert(*outpoint, *output), None);
        if !known.contains(&(*outpoint, *output)) {
            known.push((*outpoint, *output));
        }
    }
    for transaction in &block.transactions {
        for input in &transaction.inputs {
            assert_eq!(chain.outputs.output(&input.outpoint), None);
        }
    }
    assert_eq!(applied.set, LtHash::of(chain.outputs.clone()));
    chain.parent = crate::ledger::Parent {
        height: block.header.height,
        hash: block.hash(),
        time_ms: block.header.time_ms,
        set: applied.set,
    };
}

/// Whether no block can have this time: it is not later than the parent's, or reward and fees may be
/// more than an amount can hold.
fn nobody_could_make_one(chain: &Ledger, time_ms: u64) -> bool {
    time_ms <= chain.parent.time_ms
        || reward(chain, time_ms) + supply(&chain.outputs) > u128::from(u64::MAX)
}

fn reward(chain: &Ledger, time_ms: u64) -> u128 {
    let slot = |time_ms| u128::from(chain.genesis.slot_at(time_ms));
    let slots = slot(time_ms).saturating_sub(slot(chain.parent.time_ms));
    u128::from(REWARD_PER_SLOT.0) * slots
}

fn supply(outputs: &BTreeMap<OutPoint, TxOutput>) -> u128 {
    outputs.values().map(|one| u128::from(one.amount.0)).sum()
}
