use super::*;
use crate::ledger::fixture::{ALLOCATED, Ledger, address, genesis_with_powers, sign};
use crate::types::{Signature, TxId};

fn ledger() -> Ledger {
    Ledger::new(genesis_with_powers(&[1, 1]))
}

/// A valid payment of wallet 0 to wallet 1 with a fee of 1,000 units.
fn payment(ledger: &Ledger) -> Transaction {
    ledger.spend(&[(ledger.allocation(0), 0)], &[(1, ALLOCATED.0 - 1_000)])
}

fn check(ledger: &Ledger, transaction: &Transaction) -> Result<Amount, TransactionError> {
    check_transaction(transaction, &ledger.outputs, &ledger.rules)
}

#[test]
fn a_valid_payment_returns_its_fee() {
    let ledger = ledger();
    assert_eq!(check(&ledger, &payment(&ledger)), Ok(Amount(1_000)));
}

#[test]
fn an_unknown_version_is_refused() {
    let ledger = ledger();
    let mut transaction = payment(&ledger);
    transaction.version = 2;
    sign(&mut transaction, &ledger.rules.genesis, [0]);
    assert_eq!(
        check(&ledger, &transaction),
        Err(TransactionError::Version { got: 2 })
    );
}

#[test]
fn a_transaction_without_inputs_or_outputs_is_refused() {
    let ledger = ledger();
    let nothing_in = ledger.spend(&[], &[(1, 5)]);
    assert_eq!(check(&ledger, &nothing_in), Err(TransactionError::NoInputs));
    let nothing_out = ledger.spend(&[(ledger.allocation(0), 0)], &[]);
    assert_eq!(
        check(&ledger, &nothing_out),
        Err(TransactionError::NoOutputs)
    );
}

#[test]
fn a_transaction_over_the_size_limit_is_refused_and_one_below_is_not() {
    let ledger = ledger();
    let with_outputs = |count: usize| {
        let outputs = vec![(1, 1); count];
        ledger.spend(&[(ledger.allocation(0), 0)], &outputs)
    };
    let largest = with_outputs(2_496);
    assert!(largest.encoded_bytes() <= MAX_TRANSACTION_BYTES);
    assert!(check(&ledger, &largest).is_ok());
    let bytes = largest.encoded_bytes() + 40;
    assert_eq!(
        check(&ledger, &with_outputs(2_497)),
        Err(TransactionError::TooLarge {
            bytes,
            limit: MAX_TRANSACTION_BYTES
        })
    );
}

#[test]
fn a_transaction_larger_than_any_block_of_the_chain_is_refused() {
    let mut genesis = genesis_with_powers(&[1]);
    genesis.max_block_bytes = 10_000;
    let ledger = Ledger::new(genesis);
    let limit = 10_000 - BLOCK_OVERHEAD_BYTES;
    assert_eq!(ledger.rules.max_transaction_bytes, limit);
    let large = ledger.spend(&[(ledger.allocation(0), 0)], &[(1, 1); 250]);
    assert!(matches!(
        check(&ledger, &large),
        Err(TransactionError::TooLarge { .. })
    ));
}

#[test]
fn a_double_spend_within_a_transaction_is_refused() {
    let ledger = ledger();
    let outpoint = ledger.allocation(0);
    let transaction = ledger.spend(&[(outpoint, 0), (outpoint, 0)], &[(1, ALLOCATED.0 + 5)]);
    assert_eq!(
        check(&ledger, &transaction),
        Err(TransactionError::DuplicateInput { index: 1, outpoint })
    );
}

#[test]
fn a_double_spend_of_a_spent_output_is_refused() {
    let mut ledger = ledger();
    let outpoint = ledger.allocation(0);
    let first = payment(&ledger);
    let block = ledger.advance(vec![first]);
    assert_eq!(block.transactions.len(), 1);
    let second = ledger.spend(&[(outpoint, 0)], &[(2, 1_000)]);
    assert_eq!(
        check(&ledger, &second),
        Err(TransactionError::MissingInput { index: 0, outpoint })
    );
}

#[test]
fn an_output_that_never_was_is_refused() {
    let ledger = ledger();
    let outpoint = OutPoint {
        txid: TxId([9; 32]),
        index: 0,
    };
    let transaction = ledger.spend(&[(ledger.allocation(0), 0), (outpoint, 0)], &[(1, 5)]);
    assert_eq!(
        check(&ledger, &transaction),
        Err(TransactionError::MissingInput { index: 1, outpoint })
    );
}

#[test]
fn a_key_that_does_not_own_the_output_is_refused() {
    let ledger = ledger();
    let outpoint = ledger.allocation(0);
    let transaction = ledger.spend(&[(outpoint, 3)], &[(3, 5)]);
    let public_key = transaction.inputs[0].public_key;
    let error = check(&ledger, &transaction).unwrap_err();
    assert_eq!(
        error,
        TransactionError::WrongKey {
            index: 0,
            outpoint,
            public_key
        }
    );
    assert!(error.is_about_witness());
}

#[test]
fn a_bad_signature_is_refused_at_its_input() {
    let ledger = ledger();
    let inputs = [(ledger.allocation(0), 0), (ledger.allocation(1), 1)];
    let valid = ledger.spend(&inputs, &[(2, 5)]);
    assert!(check(&ledger, &valid).is_ok());
    for bit in [0, 255, 256, 511] {
        let mut forged = valid.clone();
        forged.inputs[1].signature.0[bit / 8] ^= 1 << (bit % 8);
        let error = check(&ledger, &forged).unwrap_err();
        assert!(
            matches!(error, TransactionError::BadSignature { index: 1, outpoint, .. }
                if outpoint == inputs[1].0),
            "{error}"
        );
        assert!(error.is_about_witness());
    }
}

#[test]
fn a_changed_output_breaks_the_signature() {
    let ledger = ledger();
    let mut transaction = payment(&ledger);
    transaction.outputs[0].address = address(7);
    assert!(matches!(
        check(&ledger, &transaction),
        Err(TransactionError::BadSignature { .. })
    ));
}

#[test]
fn a_small_order_key_spends_nothing() {
    // The identity point's key with R = identity and s = 0 satisfies the cofactorless equation for
    // every message: without the strict rule, anyone could spend an output paid to its address.
    let mut identity = [0; 32];
    identity[0] = 1;
    let key = PublicKey(identity);
    let mut forged = [0; 64];
    forged[0] = 1;
    let mut ledger = ledger();
    let outpoint = OutPoint {
        txid: TxId([9; 32]),
        index: 0,
    };
    let output = TxOutput {
        amount: Amount(1_000_000),
        address: Address::of(&key),
    };
    ledger.outputs.insert(outpoint, output);
    let mut transaction = ledger.spend(&[(outpoint, 0)], &[(1, 5)]);
    transaction.inputs[0].public_key = key;
    transaction.inputs[0].signature = Signature(forged);
    let digest = transaction.signing_digest(&ledger.rules.genesis);
    let lenient = ed25519_dalek::VerifyingKey::from_bytes(&identity).unwrap();
    let signature = ed25519_dalek::Signature::from_bytes(&forged);
    assert!(ed25519_dalek::Verifier::verify(&lenient, &digest, &signature).is_ok());
    assert!(matches!(
        check(&ledger, &transaction),
        Err(TransactionError::BadSignature { index: 0, .. })
    ));
}

#[test]
fn a_replay_from_another_genesis_is_refused() {
    let here = ledger();
    let mut genesis = genesis_with_powers(&[1, 1]);
    genesis.chain_id = "another".into();
    let there = Ledger::new(genesis);
    // The same outpoint on both chains, so that only the signature can tell them apart.
    let mut outputs = there.outputs.clone();
    outputs.insert(here.allocation(0), here.outputs[&here.allocation(0)]);
    let transaction = payment(&here);
    assert!(check(&here, &transaction).is_ok());
    assert!(matches!(
        check_transaction(&transaction, &outputs, &there.rules),
        Err(TransactionError::BadSignature { genesis, .. }) if genesis == there.rules.genesis
    ));
}

#[test]
fn an_output_without_value_is_refused() {
    let ledger = ledger();
    let transaction = ledger.spend(&[(ledger.allocation(0), 0)], &[(1, 5), (2, 0)]);
    assert_eq!(
        check(&ledger, &transaction),
        Err(TransactionError::ZeroOutput { index: 1 })
    );
}

#[test]
fn an_overflow_of_amounts_is_refused_on_either_side() {
    let mut ledger = ledger();
    let transaction = ledger.spend(&[(ledger.allocation(0), 0)], &[(1, u64::MAX), (2, 1)]);
    let overflow = |side| Err(TransactionError::AmountOverflow { side });
    assert_eq!(check(&ledger, &transaction), overflow("outputs"));
    let rich = OutPoint {
        txid: TxId([8; 32]),
        index: 0,
    };
    let output = TxOutput {
        amount: Amount(u64::MAX),
        address: address(0),
    };
    ledger.outputs.insert(rich, output);
    let transaction = ledger.spend(&[(rich, 0), (ledger.allocation(0), 0)], &[(1, 5)]);
    assert_eq!(check(&ledger, &transaction), overflow("inputs"));
}

#[test]
fn paying_more_than_is_spent_is_refused_with_both_sums() {
    let ledger = ledger();
    let transaction = ledger.spend(&[(ledger.allocation(0), 0)], &[(1, ALLOCATED.0), (2, 1)]);
    assert_eq!(
        check(&ledger, &transaction),
        Err(TransactionError::Overspent {
            inputs: ALLOCATED,
            outputs: Amount(ALLOCATED.0 + 1)
        })
    );
}

#[test]
fn the_lowest_fee_is_rounded_up_and_enforced_to_the_unit() {
    let ledger = ledger();
    // 190 bytes at 1,000 units for 1,000 bytes.
    assert_eq!(ledger.rules.min_fee(190), Amount(190));
    assert_eq!(
        Rules {
            min_fee_per_kb: Amount(1),
            ..ledger.rules
        }
        .min_fee(1),
        Amount(1)
    );
    assert_eq!(
        Rules {
            min_fee_per_kb: Amount(0),
            ..ledger.rules
        }
        .min_fee(190),
        Amount(0)
    );
    let paying = |fee: u64| ledger.spend(&[(ledger.allocation(0), 0)], &[(1, ALLOCATED.0 - fee)]);
    assert_eq!(paying(0).encoded_bytes(), 190);
    assert_eq!(check(&ledger, &paying(190)), Ok(Amount(190)));
    assert_eq!(
        check(&ledger, &paying(189)),
        Err(TransactionError::FeeTooLow {
            fee: Amount(189),
            required: Amount(190),
            bytes: 190
        })
    );
}

#[test]
fn errors_name_the_outpoint_and_say_what_to_do() {
    let outpoint = OutPoint {
        txid: TxId([0xab; 32]),
        index: 3,
    };
    let error = TransactionError::MissingInput { index: 1, outpoint };
    assert_eq!(
        error.to_string(),
        format!(
            "input 1: output {}:3 is spent or was never made; look up what is unspent, or wait \
             until the transaction that makes it has arrived",
            "ab".repeat(32)
        )
    );
}
