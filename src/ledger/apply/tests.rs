use proptest::prelude::*;

use super::*;
use crate::ledger::fixture::{
    ALLOCATED, Ledger, WALLETS, address, consensus_key, genesis_with_powers,
};
use crate::ledger::reward::REWARD_PER_SLOT;
use crate::types::codec;

fn ledger() -> Ledger {
    Ledger::new(genesis_with_powers(&[1, 2]))
}

fn assemble(ledger: &Ledger, draft: Draft) -> Result<(Block, Applied), BlockError> {
    let Ledger {
        genesis,
        validators,
        parent,
        outputs,
        ..
    } = ledger;
    assemble_block(genesis, validators, parent, draft, outputs)
}

fn apply(ledger: &Ledger, block: &Block) -> Result<Applied, BlockError> {
    let Ledger {
        genesis,
        validators,
        parent,
        outputs,
        ..
    } = ledger;
    apply_block(genesis, validators, parent, block, outputs)
}

fn payment(ledger: &Ledger, from: u8, fee: u64) -> Transaction {
    let input = (ledger.allocation(from), from);
    ledger.spend(&[input], &[(from + 1, ALLOCATED.0 - fee)])
}

#[test]
fn the_size_without_transactions_is_exact() {
    let ledger = ledger();
    let (empty, _) = assemble(&ledger, ledger.draft(vec![])).unwrap();
    assert_eq!(codec::encode(&empty).len(), BLOCK_OVERHEAD_BYTES);
    let (full, _) = assemble(&ledger, ledger.draft(vec![payment(&ledger, 0, 500)])).unwrap();
    assert_eq!(
        codec::encode(&full).len(),
        BLOCK_OVERHEAD_BYTES + transactions_bytes(&full.transactions)
    );
}

#[test]
fn a_first_block_builds_on_genesis() {
    let ledger = ledger();
    let (block, applied) = assemble(&ledger, ledger.draft(vec![])).unwrap();
    assert_eq!(block.header.height, Height(1));
    assert_eq!(block.header.parent, ledger.genesis.as_parent());
    assert_eq!(applied.set, ledger.parent.set);
    assert_eq!(apply(&ledger, &block), Ok(applied));
}

#[test]
fn an_output_made_and_spent_within_the_block_appears_in_neither_list() {
    let ledger = ledger();
    let first = payment(&ledger, 0, 500);
    let (between, _) = first.created().next().unwrap();
    let second = ledger.spend(&[(between, 1)], &[(2, ALLOCATED.0 - 1_000)]);
    let (block, applied) = assemble(&ledger, ledger.draft(vec![first, second.clone()])).unwrap();
    assert_eq!(block.transactions.len(), 2);
    let spent = (ledger.allocation(0), ledger.outputs[&ledger.allocation(0)]);
    assert_eq!(applied.spent, [spent]);
    assert_eq!(applied.fees, Amount(1_000));
    let reward = OutPoint {
        txid: reward_txid(&ledger.parent.hash, Height(1)),
        index: 0,
    };
    let fees = TxOutput {
        amount: Amount(1_000),
        address: ledger.genesis.masternodes[0].payout,
    };
    let mut created: Vec<_> = second.created().chain([(reward, fees)]).collect();
    created.sort_by_key(|(outpoint, _)| *outpoint);
    assert_eq!(applied.created, created);
}

#[test]
fn a_child_before_its_parent_is_refused() {
    let ledger = ledger();
    let first = payment(&ledger, 0, 500);
    let (between, _) = first.created().next().unwrap();
    let second = ledger.spend(&[(between, 1)], &[(2, ALLOCATED.0 - 1_000)]);
    let (mut block, _) = assemble(&ledger, ledger.draft(vec![first, second.clone()])).unwrap();
    block.transactions.swap(0, 1);
    block.header.transactions_root = transactions_root(&block.transactions);
    assert_eq!(
        apply(&ledger, &block),
        Err(BlockError::Transaction {
            height: Height(1),
            index: 0,
            txid: second.id(),
            source: Box::new(TransactionError::MissingInput {
                index: 0,
                outpoint: between
            }),
        })
    );
}

#[test]
fn a_double_spend_within_a_block_is_refused_and_left_out_when_building() {
    let ledger = ledger();
    let (first, second) = (payment(&ledger, 0, 500), payment(&ledger, 0, 600));
    let draft = ledger.draft(vec![first.clone(), second.clone(), first.clone()]);
    let (mut block, _) = assemble(&ledger, draft).unwrap();
    assert_eq!(block.transactions, [first]);
    block.transactions.push(second.clone());
    block.header.transactions_root = transactions_root(&block.transactions);
    assert_eq!(
        apply(&ledger, &block),
        Err(BlockError::Transaction {
            height: Height(1),
            index: 1,
            txid: second.id(),
            source: Box::new(TransactionError::MissingInput {
                index: 0,
                outpoint: ledger.allocation(0)
            }),
        })
    );
}

#[test]
fn a_blocks_time_must_be_after_its_parents() {
    let ledger = ledger();
    let parent_time_ms = ledger.parent.time_ms;
    let at = |time_ms: u64| Draft {
        time_ms,
        ..ledger.draft(vec![])
    };
    for time_ms in [0, parent_time_ms - 1, parent_time_ms] {
        let error = BlockError::Time {
            height: Height(1),
            time_ms,
            parent_time_ms,
        };
        assert_eq!(assemble(&ledger, at(time_ms)), Err(error.clone()));
        let (mut block, _) = assemble(&ledger, at(parent_time_ms + 1)).unwrap();
        block.header.time_ms = time_ms;
        assert_eq!(apply(&ledger, &block), Err(error));
    }
    // The upper bound needs a clock and is not the ledger's: a far time is valid here.
    let (block, _) = assemble(&ledger, at(parent_time_ms + 86_400_000)).unwrap();
    assert!(apply(&ledger, &block).is_ok());
}

#[test]
fn a_time_whose_reward_overflows_is_refused() {
    let ledger = ledger();
    let draft = Draft {
        time_ms: u64::MAX,
        ..ledger.draft(vec![])
    };
    assert_eq!(
        assemble(&ledger, draft),
        Err(BlockError::RewardOverflow { height: Height(1) })
    );
}

#[test]
fn a_reward_across_skipped_slots_is_paid_and_spendable_in_the_next_block() {
    let mut ledger = ledger();
    // The payout of masternode 1 becomes a wallet that can sign.
    ledger.genesis.masternodes[1].payout = address(5);
    ledger = Ledger::new(ledger.genesis);
    let draft = Draft {
        proposer: consensus_key(1),
        time_ms: ledger.genesis.slot_start_ms(3) + 7,
        ..ledger.draft(vec![])
    };
    let (block, applied) = assemble(&ledger, draft).unwrap();
    let paid: u64 = applied
        .created
        .iter()
        .map(|(_, output)| output.amount.0)
        .sum();
    assert_eq!(paid, 3 * REWARD_PER_SLOT.0);
    let reward = OutPoint {
        txid: reward_txid(&ledger.parent.hash, Height(1)),
        index: 1,
    };
    ledger.outputs.extend(applied.created);
    ledger.parent = Parent {
        height: Height(1),
        hash: block.hash(),
        time_ms: block.header.time_ms,
        set: applied.set,
    };
    let spending = ledger.spend(&[(reward, 5)], &[(6, 2 * REWARD_PER_SLOT.0 - 500)]);
    let next = ledger.advance(vec![spending]);
    assert_eq!(next.transactions.len(), 1);
}

#[test]
fn a_stranger_cannot_propose() {
    let ledger = ledger();
    let draft = Draft {
        proposer: consensus_key(9),
        ..ledger.draft(vec![])
    };
    assert_eq!(
        assemble(&ledger, draft),
        Err(BlockError::Proposer {
            height: Height(1),
            proposer: consensus_key(9)
        })
    );
}

#[test]
fn a_block_over_the_limit_is_refused_and_building_stops_in_time() {
    let mut ledger = ledger();
    let payments: Vec<_> = (0..WALLETS)
        .map(|from| payment(&ledger, from, 500))
        .collect();
    let bytes = payments[0].encoded_bytes();
    let limited = Draft {
        max_bytes: BLOCK_OVERHEAD_BYTES + 3 * bytes,
        ..ledger.draft(payments.clone())
    };
    let (block, _) = assemble(&ledger, limited).unwrap();
    assert_eq!(block.transactions, payments[..3]);
    let (full, _) = assemble(&ledger, ledger.draft(payments)).unwrap();
    assert_eq!(full.transactions.len(), usize::from(WALLETS));
    let limit = BLOCK_OVERHEAD_BYTES + 10 * bytes - 1;
    ledger.genesis.max_block_bytes = limit as u32;
    assert_eq!(
        apply(&ledger, &full),
        Err(BlockError::TooLarge {
            height: Height(1),
            bytes: limit + 1,
            limit
        })
    );
}

#[test]
fn no_room_at_all_gives_an_empty_block() {
    let ledger = ledger();
    let draft = Draft {
        max_bytes: 0,
        ..ledger.draft(vec![payment(&ledger, 0, 500)])
    };
    let (block, applied) = assemble(&ledger, draft).unwrap();
    assert!(block.transactions.is_empty());
    assert_eq!(apply(&ledger, &block), Ok(applied));
}

/// A header field, changed.
fn mutate_header(header: &mut BlockHeader, field: u8, bit: u8) {
    let mask = 1 << (bit % 8);
    let at = usize::from(bit / 8);
    match field {
        0 => header.version ^= 1 << (bit % 16),
        1 => header.height.0 ^= 1 << (bit % 64),
        2 => header.time_ms = header.time_ms.wrapping_sub(1 + u64::from(bit)),
        3 => header.parent.0[at] ^= mask,
        4 => header.proposer.0[at] ^= mask,
        5 => header.transactions_root.0[at] ^= mask,
        6 => header.state.0[at] ^= mask,
        _ => header.validators.0[at] ^= mask,
    }
}

/// A change of the transactions that keeps the header's promise about them.
fn mutate_transactions(block: &mut Block, kind: u8, bit: u8) {
    let at = usize::from(bit) % block.transactions.len();
    let transaction = &mut block.transactions[at];
    match kind {
        0 => transaction.version ^= 1,
        1 => transaction.inputs[0].outpoint.index ^= 1,
        2 => transaction.inputs[0].outpoint.txid.0[0] ^= 1,
        3 => transaction.inputs[0].public_key.0[0] ^= 1,
        4 => transaction.inputs[0].signature.0[usize::from(bit % 64)] ^= 1,
        5 => transaction.outputs[0].amount.0 -= 1,
        6 => transaction.outputs[0].address.0[0] ^= 1,
        7 => drop(block.transactions.remove(at)),
        _ => block.transactions.push(block.transactions[at].clone()),
    }
    block.header.transactions_root = transactions_root(&block.transactions);
}

/// Candidates of every kind: valid ones, chains, double spends, bad fees.
fn any_candidates() -> impl Strategy<Value = Vec<(u8, u64, bool)>> {
    proptest::collection::vec((0..WALLETS - 1, 0u64..2_000, any::<bool>()), 1..12)
}

fn candidates(ledger: &Ledger, choices: &[(u8, u64, bool)]) -> Vec<Transaction> {
    let mut candidates: Vec<Transaction> = Vec::new();
    for (from, fee, chained) in choices {
        let parent = candidates.last().filter(|_| *chained);
        let next = match parent.and_then(|parent| parent.created().next()) {
            Some((outpoint, output)) => {
                let owner = (0..WALLETS)
                    .find(|owner| address(*owner) == output.address)
                    .expect("only wallets are paid");
                let rest = output.amount.0.saturating_sub(*fee).max(1);
                ledger.spend(&[(outpoint, owner)], &[(*from, rest)])
            }
            None => payment(ledger, *from, *fee),
        };
        candidates.push(next);
    }
    candidates
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_assembled_applies_and_changes_the_same(
        choices in any_candidates(),
        slots in 0u64..5,
        proposer in 0u8..2,
        room in 0usize..4_000,
    ) {
        let mut ledger = ledger();
        ledger.advance(vec![payment(&ledger, 0, 700)]);
        let draft = Draft {
            proposer: consensus_key(proposer),
            time_ms: ledger.parent.time_ms + 1 + slots * ledger.genesis.slot_ms,
            candidates: candidates(&ledger, &choices),
            max_bytes: room,
        };
        let (block, applied) = assemble(&ledger, draft).unwrap();
        prop_assert!(codec::encode(&block).len() <= room.max(BLOCK_OVERHEAD_BYTES));
        prop_assert_eq!(apply(&ledger, &block), Ok(applied.clone()));
        // The set hash is the one of the outputs themselves, and no TIME appears from nowhere.
        let total = |ledger: &Ledger| -> u64 {
            ledger.outputs.values().map(|output| output.amount.0).sum()
        };
        let before = total(&ledger);
        for (outpoint, output) in &applied.spent {
            prop_assert_eq!(ledger.outputs.remove(outpoint), Some(*output));
        }
        for (outpoint, output) in &applied.created {
            prop_assert_eq!(ledger.outputs.insert(*outpoint, *output), None);
        }
        prop_assert_eq!(LtHash::of(ledger.outputs.clone()), applied.set);
        prop_assert_eq!(total(&ledger), before + slots * REWARD_PER_SLOT.0);
    }

    #[test]
    fn any_single_change_of_the_header_is_refused(
        choices in any_candidates(),
        field in 0u8..8,
        bit in any::<u8>(),
    ) {
        let ledger = ledger();
        let draft = ledger.draft(candidates(&ledger, &choices));
        let (mut block, _) = assemble(&ledger, draft).unwrap();
        mutate_header(&mut block.header, field, bit);
        prop_assert!(apply(&ledger, &block).is_err());
    }

    #[test]
    fn any_single_change_of_the_transactions_is_refused(
        wallets in proptest::collection::btree_set(0..WALLETS - 1, 1..6),
        kind in 0u8..9,
        bit in any::<u8>(),
    ) {
        let ledger = ledger();
        let payments = wallets.iter().map(|from| payment(&ledger, *from, 700)).collect();
        let (mut block, _) = assemble(&ledger, ledger.draft(payments)).unwrap();
        prop_assert_eq!(block.transactions.len(), wallets.len());
        mutate_transactions(&mut block, kind, bit);
        prop_assert!(apply(&ledger, &block).is_err());
    }
}
