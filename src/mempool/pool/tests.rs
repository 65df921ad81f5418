use proptest::prelude::*;

use super::*;
use crate::ledger::fixture::{ALLOCATED, Ledger, WALLETS, address, genesis_with_powers};

const SMALL: PoolLimits = PoolLimits {
    transactions: 12,
    bytes: 3_500,
    chain: 4,
};

fn ledger() -> Ledger {
    Ledger::new(genesis_with_powers(&[1]))
}

fn pool(ledger: &Ledger, limits: PoolLimits) -> Pool {
    Pool::new(ledger.rules, limits)
}

fn insert(
    pool: &mut Pool,
    ledger: &Ledger,
    transaction: &Transaction,
) -> Result<Insertion, MempoolError> {
    let verified = Verified::check(transaction.clone(), &ledger.rules)?;
    pool.insert(verified, &ledger.outputs)
}

fn take(pool: &mut Pool, ledger: &Ledger, transaction: &Transaction) {
    assert!(matches!(
        insert(pool, ledger, transaction),
        Ok(Insertion::New { .. })
    ));
}

/// Wallet `from`'s allocation, to wallet `to`.
fn payment(ledger: &Ledger, from: u8, to: u8, fee: u64) -> Transaction {
    ledger.spend(
        &[(ledger.allocation(from), from)],
        &[(to, ALLOCATED.0 - fee)],
    )
}

/// The first output of a transaction, which belongs to `owner`, back to the same wallet.
fn child(ledger: &Ledger, parent: &Transaction, owner: u8, fee: u64) -> Transaction {
    let (outpoint, output) = parent.created().next().unwrap();
    ledger.spend(&[(outpoint, owner)], &[(owner, output.amount.0 - fee)])
}

fn ids(transactions: &[Transaction]) -> Vec<TxId> {
    transactions.iter().map(Transaction::id).collect()
}

#[test]
fn a_transaction_taken_twice_is_known() {
    let (ledger, mut pool) = (ledger(), pool(&ledger(), SMALL));
    let transaction = payment(&ledger, 0, 1, 500);
    take(&mut pool, &ledger, &transaction);
    assert_eq!(
        insert(&mut pool, &ledger, &transaction),
        Ok(Insertion::Known)
    );
    assert_eq!(pool.len(), 1);
    assert_eq!(pool.bytes(), transaction.encoded_bytes());
}

#[test]
fn a_double_spend_is_refused_and_names_the_waiting_transaction() {
    let (ledger, mut pool) = (ledger(), pool(&ledger(), SMALL));
    let first = payment(&ledger, 0, 1, 500);
    let second = payment(&ledger, 0, 2, 900_000);
    take(&mut pool, &ledger, &first);
    let error = insert(&mut pool, &ledger, &second).unwrap_err();
    assert_eq!(
        error,
        MempoolError::Conflict {
            txid: second.id(),
            outpoint: ledger.allocation(0),
            other: first.id()
        }
    );
    assert!(error.to_string().contains(&first.id().to_string()));
    assert_eq!(ids(&pool.select(usize::MAX)), [first.id()]);
}

#[test]
fn what_breaks_a_rule_is_refused() {
    let (ledger, mut pool) = (ledger(), pool(&ledger(), SMALL));
    let cheap = payment(&ledger, 0, 1, 189);
    assert!(matches!(
        insert(&mut pool, &ledger, &cheap),
        Err(MempoolError::Invalid(error)) if matches!(*error, TransactionError::FeeTooLow { .. })
    ));
    let mut forged = payment(&ledger, 0, 1, 500);
    forged.inputs[0].signature.0[5] ^= 1;
    assert!(matches!(
        insert(&mut pool, &ledger, &forged),
        Err(MempoolError::Invalid(error)) if matches!(*error, TransactionError::BadSignature { .. })
    ));
    let orphan = child(&ledger, &payment(&ledger, 0, 1, 500), 1, 500);
    assert!(matches!(
        insert(&mut pool, &ledger, &orphan),
        Err(MempoolError::Invalid(error)) if matches!(*error, TransactionError::MissingInput { .. })
    ));
    assert!(pool.is_empty());
}

#[test]
fn an_unconfirmed_chain_ends_at_its_limit() {
    let (mut ledger, mut pool) = (ledger(), pool(&ledger(), PoolLimits::RECOMMENDED));
    let mut chain = vec![payment(&ledger, 0, 0, 500)];
    for _ in 1..26 {
        let next = child(&ledger, chain.last().unwrap(), 0, 500);
        chain.push(next);
    }
    for transaction in &chain[..25] {
        take(&mut pool, &ledger, transaction);
    }
    assert_eq!(
        insert(&mut pool, &ledger, &chain[25]),
        Err(MempoolError::ChainTooLong {
            txid: chain[25].id(),
            limit: 25
        })
    );
    // When the first is final, there is room for the last.
    let block = ledger.advance(vec![chain[0].clone()]);
    assert!(pool.apply_block(&block.transactions).is_empty());
    take(&mut pool, &ledger, &chain[25]);
    assert_eq!(ids(&pool.select(usize::MAX)), ids(&chain[1..]));
    check(&pool, &ledger);
}

#[test]
fn selection_is_by_rate_and_puts_parents_first() {
    let (ledger, mut pool) = (ledger(), pool(&ledger(), PoolLimits::RECOMMENDED));
    let parent = payment(&ledger, 0, 0, 400);
    let rich_child = child(&ledger, &parent, 0, 4_000);
    let middle = payment(&ledger, 1, 1, 1_500);
    let best = payment(&ledger, 2, 2, 9_000);
    let tied = payment(&ledger, 3, 3, 1_500);
    for transaction in [&parent, &rich_child, &middle, &best, &tied] {
        take(&mut pool, &ledger, transaction);
    }
    // The pair of parent and child pays 2,200 each.
    let order = [&best, &parent, &rich_child, &middle, &tied].map(|one| one.id());
    assert_eq!(ids(&pool.select(usize::MAX)), order);
    let bytes = parent.encoded_bytes();
    assert_eq!(ids(&pool.select(3 * bytes)), order[..3]);
    // Where the pair does not fit, the next that fits follows.
    assert_eq!(ids(&pool.select(2 * bytes)), [best.id(), middle.id()]);
    assert!(pool.select(bytes - 1).is_empty());
    let shown: Vec<TxId> = pool.list().into_iter().map(|one| one.txid).collect();
    assert_eq!(
        shown,
        [&best, &rich_child, &middle, &tied, &parent].map(|one| one.id())
    );
}

#[test]
fn the_best_of_some_arrivals_come_in_the_order_of_selection() {
    let ledger = ledger();
    let mut pool = pool(&ledger, PoolLimits::RECOMMENDED);
    let parent = payment(&ledger, 0, 1, 500);
    let rich_child = child(&ledger, &parent, 1, 9_000);
    let better = payment(&ledger, 2, 3, 900);
    let late = payment(&ledger, 4, 5, 90_000);
    for transaction in [&parent, &rich_child, &better] {
        take(&mut pool, &ledger, transaction);
    }
    let arrivals = pool.arrivals();
    take(&mut pool, &ledger, &late);
    let order = ids(&[parent, rich_child, better, late]);
    let best = |arrivals, most| pool.best_of_arrivals(arrivals, most);
    assert_eq!(best(pool.arrivals(), 10), ids(&pool.select(usize::MAX)));
    assert_eq!(best(pool.arrivals(), 1), order[3..]);
    assert_eq!(best(arrivals, 10), order[..3]);
    assert_eq!(best(arrivals, 1), order[..1]);
}

#[test]
fn a_full_pool_evicts_the_worst_for_a_better_one_and_refuses_a_worse() {
    let limits = PoolLimits {
        transactions: 3,
        ..PoolLimits::RECOMMENDED
    };
    let (ledger, mut pool) = (ledger(), pool(&ledger(), limits));
    for (from, fee) in [(0, 1_000), (1, 500), (2, 2_000)] {
        take(&mut pool, &ledger, &payment(&ledger, from, from, fee));
    }
    for fee in [400, 500] {
        let worse = payment(&ledger, 3, 3, fee);
        assert_eq!(
            insert(&mut pool, &ledger, &worse),
            Err(MempoolError::Full {
                txid: worse.id(),
                offered: fee * 1_000 / 190,
                needed: 500 * 1_000 / 190
            })
        );
    }
    let better = payment(&ledger, 3, 3, 600);
    assert_eq!(
        insert(&mut pool, &ledger, &better),
        Ok(Insertion::New {
            evicted: vec![payment(&ledger, 1, 1, 500).id()]
        })
    );
    assert_eq!(pool.len(), 3);
    check(&pool, &ledger);
}

#[test]
fn eviction_takes_descendants_along_but_a_rich_child_protects_its_parent() {
    let limits = PoolLimits {
        transactions: 3,
        ..PoolLimits::RECOMMENDED
    };
    let (ledger, mut pool) = (ledger(), pool(&ledger(), limits));
    let poor = payment(&ledger, 0, 0, 300);
    let poor_child = child(&ledger, &poor, 0, 200);
    let protected = payment(&ledger, 1, 1, 250);
    for transaction in [&poor, &poor_child, &protected] {
        take(&mut pool, &ledger, transaction);
    }
    // The child of the newcomer's own parent: the parent must not leave for it, the others do.
    let rich_child = child(&ledger, &protected, 1, 5_000);
    assert_eq!(
        insert(&mut pool, &ledger, &rich_child),
        Ok(Insertion::New {
            evicted: vec![poor_child.id()]
        })
    );
    let newcomer = payment(&ledger, 2, 2, 1_000);
    assert_eq!(
        insert(&mut pool, &ledger, &newcomer),
        Ok(Insertion::New {
            evicted: vec![poor.id()]
        })
    );
    assert!(pool.contains(&protected.id()));
    check(&pool, &ledger);
}

#[test]
fn a_pool_full_of_the_newcomers_ancestors_refuses_it() {
    let limits = PoolLimits {
        transactions: 2,
        ..PoolLimits::RECOMMENDED
    };
    let (ledger, mut pool) = (ledger(), pool(&ledger(), limits));
    let first = payment(&ledger, 0, 0, 300);
    let second = child(&ledger, &first, 0, 300);
    take(&mut pool, &ledger, &first);
    take(&mut pool, &ledger, &second);
    let third = child(&ledger, &second, 0, 9_000);
    assert!(matches!(
        insert(&mut pool, &ledger, &third),
        Err(MempoolError::Full { .. })
    ));
    assert_eq!(pool.len(), 2);
    check(&pool, &ledger);
}

#[test]
fn a_block_takes_out_what_it_contains_and_what_it_contradicts_with_descendants() {
    let (mut ledger, mut pool) = (ledger(), pool(&ledger(), PoolLimits::RECOMMENDED));
    let confirmed = payment(&ledger, 0, 0, 500);
    let stays = child(&ledger, &confirmed, 0, 500);
    let contradicted = payment(&ledger, 1, 1, 500);
    let its_child = child(&ledger, &contradicted, 1, 500);
    for transaction in [&confirmed, &stays, &contradicted, &its_child] {
        take(&mut pool, &ledger, transaction);
    }
    let block = ledger.advance(vec![confirmed, payment(&ledger, 1, 2, 700)]);
    assert_eq!(block.transactions.len(), 2);
    assert_eq!(
        pool.apply_block(&block.transactions),
        [its_child.id(), contradicted.id()]
    );
    assert_eq!(ids(&pool.select(usize::MAX)), [stays.id()]);
    check(&pool, &ledger);
}

#[test]
fn a_recheck_finds_what_blocks_unseen_have_changed() {
    let (mut ledger, mut pool) = (ledger(), pool(&ledger(), PoolLimits::RECOMMENDED));
    let confirmed = payment(&ledger, 0, 0, 500);
    let stays = child(&ledger, &confirmed, 0, 500);
    let contradicted = payment(&ledger, 1, 1, 500);
    let its_child = child(&ledger, &contradicted, 1, 500);
    for transaction in [&confirmed, &stays, &contradicted, &its_child] {
        take(&mut pool, &ledger, transaction);
    }
    ledger.advance(vec![confirmed.clone(), payment(&ledger, 1, 2, 700)]);
    assert_eq!(
        pool.recheck(&ledger.outputs),
        [confirmed.id(), contradicted.id(), its_child.id()]
    );
    assert_eq!(ids(&pool.select(usize::MAX)), [stays.id()]);
    check(&pool, &ledger);
}

/// Every invariant of the pool, recomputed from nothing.
fn check(pool: &Pool, ledger: &Ledger) {
    let mut bytes = 0;
    let mut spenders = BTreeMap::new();
    for (txid, entry) in &pool.entries {
        bytes += entry.bytes;
        assert_eq!(*txid, entry.transaction.id());
        assert_eq!(entry.bytes, entry.transaction.encoded_bytes());
        for input in &entry.transaction.inputs {
            let outpoint = input.outpoint;
            assert_eq!(spenders.insert(outpoint, *txid), None, "spent twice");
            let made_here = pool.output(&outpoint).is_some();
            assert_eq!(made_here, entry.parents.contains(&outpoint.txid));
            assert!(made_here || ledger.outputs.contains_key(&outpoint));
        }
        for parent in &entry.parents {
            assert!(pool.entries[parent].children.contains(txid));
            assert!(pool.entries[parent].arrival < entry.arrival);
        }
        for child in &entry.children {
            assert!(pool.entries[child].parents.contains(txid));
        }
        let family = pool.with_descendants(*txid);
        let rates = family.iter().map(|one| pool.entries[one].rate());
        let sum = rates.reduce(FeeRate::plus).unwrap();
        assert_eq!((entry.family.fee, entry.family.bytes), (sum.fee, sum.bytes));
        assert!(pool.ancestors_of(&entry.parents).len() < pool.limits.chain);
        assert!(pool.by_worth.contains(&entry.worth(*txid)));
    }
    assert_eq!(spenders, pool.spenders);
    assert_eq!(bytes, pool.bytes);
    assert_eq!(pool.by_worth.len(), pool.len());
    assert!(pool.len() <= pool.limits.transactions);
    assert!(pool.bytes() <= pool.limits.bytes);
}

#[derive(Clone, Debug)]
enum Step {
    /// Spends one or two of the outputs ever made, into this many outputs.
    Spend {
        coins: (prop::sample::Index, Option<prop::sample::Index>),
        outputs: u8,
        fee: u64,
    },
    /// A block of what the pool selects.
    Mine { max_bytes: usize },
    /// A block that spends an output which a waiting transaction may spend too.
    Foreign { coin: prop::sample::Index },
    /// The same, unseen, and a re-check.
    Jump { coin: prop::sample::Index },
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (index(), prop::option::of(index()), 1u8..4, 250u64..4_000).prop_map(
            |(first, second, outputs, fee)| Step::Spend { coins: (first, second), outputs, fee }
        ),
        1 => (0usize..3_000).prop_map(|max_bytes| Step::Mine { max_bytes }),
        1 => index().prop_map(|coin| Step::Foreign { coin }),
        1 => index().prop_map(|coin| Step::Jump { coin }),
    ]
}

/// A chain, a pool on it, and every output that was ever made.
struct World {
    ledger: Ledger,
    pool: Pool,
    coins: Vec<(OutPoint, TxOutput)>,
}

impl World {
    fn new() -> Self {
        let ledger = ledger();
        Self {
            pool: pool(&ledger, SMALL),
            coins: ledger.genesis.outputs(),
            ledger,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Spend {
                coins: (first, second),
                outputs,
                fee,
            } => self.spend(first, second, outputs, fee),
            Step::Mine { max_bytes } => {
                let selected = self.pool.select(max_bytes);
                let bytes: usize = selected.iter().map(Transaction::encoded_bytes).sum();
                assert!(bytes <= max_bytes);
                let block = self.ledger.advance(selected.clone());
                assert_eq!(block.transactions, selected, "all that is selected applies");
                assert!(self.pool.apply_block(&block.transactions).is_empty());
            }
            Step::Foreign { coin } => {
                let block = self.foreign(coin);
                self.pool.apply_block(&block);
            }
            Step::Jump { coin } => {
                self.foreign(coin);
                self.pool.recheck(&self.ledger.outputs);
            }
        }
        check(&self.pool, &self.ledger);
    }

    fn spend(
        &mut self,
        first: prop::sample::Index,
        second: Option<prop::sample::Index>,
        outputs: u8,
        fee: u64,
    ) {
        let mut picked = BTreeMap::from([*first.get(&self.coins)]);
        picked.extend(second.map(|second| *second.get(&self.coins)));
        let total: u64 = picked.values().map(|output| output.amount.0).sum();
        let Some(rest) = total.checked_sub(fee) else {
            return;
        };
        let inputs: Vec<(OutPoint, u8)> = picked
            .iter()
            .map(|(outpoint, output)| (*outpoint, owner(output)))
            .collect();
        let payees: Vec<(u8, u64)> = (0..outputs)
            .map(|payee| (payee, rest / u64::from(outputs)))
            .collect();
        let transaction = self.ledger.spend(&inputs, &payees);
        let before = self.pool.ids();
        match insert(&mut self.pool, &self.ledger, &transaction) {
            Ok(Insertion::New { evicted }) => {
                assert!(evicted.iter().all(|txid| before.contains(txid)));
                assert!(evicted.iter().all(|txid| !self.pool.contains(txid)));
                self.coins.extend(transaction.created());
            }
            Ok(Insertion::Known) => assert!(before.contains(&transaction.id())),
            Err(_) => assert_eq!(self.pool.ids(), before, "a refusal changes nothing"),
        }
    }

    fn foreign(&mut self, coin: prop::sample::Index) -> Vec<Transaction> {
        let unspent: Vec<_> = self.ledger.outputs.iter().collect();
        let (outpoint, output) = coin.get(&unspent);
        let (outpoint, output) = (**outpoint, **output);
        // The fees' output belongs to no wallet.
        if !(0..WALLETS).any(|owner| address(owner) == output.address) || output.amount.0 < 500 {
            return Vec::new();
        }
        let transaction = self
            .ledger
            .spend(&[(outpoint, owner(&output))], &[(9, output.amount.0 - 300)]);
        self.coins.extend(transaction.created());
        self.ledger.advance(vec![transaction]).transactions
    }
}

fn owner(output: &TxOutput) -> u8 {
    let mut wallets = 0..WALLETS;
    wallets
        .find(|owner| address(*owner) == output.address)
        .expect("only wallets are paid")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_invariants_hold_after_every_step(
        steps in proptest::collection::vec(any_step(), 1..60)
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        // What waits is valid to the last: a block without limit takes all of it.
        let selected = world.pool.select(usize::MAX);
        prop_assert_eq!(selected.len(), world.pool.len());
        let block = world.ledger.advance(selected.clone());
        prop_assert_eq!(block.transactions, selected);
    }
}
