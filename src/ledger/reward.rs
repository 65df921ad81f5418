//! The reward of a block.

use crate::types::amount::UNITS_PER_TIME;
use crate::types::{Amount, ConsensusKey, Genesis, TxOutput, ValidatorSet};

/// What one slot brings, all validators together.
pub const REWARD_PER_SLOT: Amount = Amount(100 * UNITS_PER_TIME);

/// 100 TIME for each slot since the parent, shared by voting power; the remainder and the fees go to
/// the proposer. Output `i` pays masternode `i` of genesis; positions with nothing to pay are `None`.
///
/// The whole is `None` when an amount overflows or the proposer is not a validator.
pub fn reward_outputs(
    genesis: &Genesis,
    validators: &ValidatorSet,
    proposer: &ConsensusKey,
    parent_time_ms: u64,
    time_ms: u64,
    fees: Amount,
) -> Option<Vec<Option<TxOutput>>> {
    let slots = genesis
        .slot_at(time_ms)
        .saturating_sub(genesis.slot_at(parent_time_ms));
    let reward = REWARD_PER_SLOT.0.checked_mul(slots)?;
    let mut shares: Vec<u64> = validators
        .validators()
        .iter()
        .map(|validator| share(reward, validator.power, validators.total_power()))
        .collect();
    // Shares are rounded down, so their sum is at most the reward.
    let remainder = reward - shares.iter().sum::<u64>();
    let (index, _) = validators.get(proposer)?;
    shares[index] = shares[index].checked_add(remainder)?.checked_add(fees.0)?;
    let outputs = shares.iter().zip(validators.validators());
    Some(
        outputs
            .map(|(share, validator)| {
                (*share > 0).then_some(TxOutput {
                    amount: Amount(*share),
                    address: validator.payout,
                })
            })
            .collect(),
    )
}

/// `reward * power / total`, rounded down, without intermediate overflow.
fn share(reward: u64, power: u64, total: u64) -> u64 {
    let share = u128::from(reward) * u128::from(power) / u128::from(total);
    u64::try_from(share).expect("a power is at most the total, so a share is at most the reward")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::fixture::{consensus_key, genesis_with_powers};

    fn amounts(outputs: &[Option<TxOutput>]) -> Vec<u64> {
        outputs
            .iter()
            .map(|output| output.map_or(0, |output| output.amount.0))
            .collect()
    }

    #[test]
    fn a_reward_across_skipped_slots_counts_every_slot() {
        let genesis = genesis_with_powers(&[1, 1]);
        let set = ValidatorSet::from_genesis(&genesis);
        let at = |slot: u64, offset: u64| genesis.slot_start_ms(slot) + offset;
        let reward = |from: u64, to: u64| {
            let outputs =
                reward_outputs(&genesis, &set, &consensus_key(0), from, to, Amount(9)).unwrap();
            amounts(&outputs)
        };
        let half = REWARD_PER_SLOT.0 / 2;
        assert_eq!(reward(at(3, 0), at(3, 4_999)), [9, 0]);
        assert_eq!(reward(at(3, 4_999), at(4, 0)), [half + 9, half]);
        assert_eq!(reward(at(3, 0), at(10, 1)), [7 * half + 9, 7 * half]);
    }

    #[test]
    fn nothing_to_pay_makes_no_output() {
        let genesis = genesis_with_powers(&[1, 1]);
        let set = ValidatorSet::from_genesis(&genesis);
        let time = genesis.time_ms;
        let outputs = reward_outputs(
            &genesis,
            &set,
            &consensus_key(1),
            time,
            time + 1,
            Amount::ZERO,
        );
        assert_eq!(outputs, Some(vec![None, None]));
    }

    #[test]
    fn the_remainder_goes_to_the_proposer() {
        let genesis = genesis_with_powers(&[1, 1, 1]);
        let set = ValidatorSet::from_genesis(&genesis);
        let (from, to) = (genesis.time_ms, genesis.slot_start_ms(1));
        let outputs =
            reward_outputs(&genesis, &set, &consensus_key(2), from, to, Amount::ZERO).unwrap();
        let third = REWARD_PER_SLOT.0 / 3;
        assert_eq!(amounts(&outputs), [third, third, third + 1]);
    }

    #[test]
    fn overflow_and_a_stranger_as_proposer_pay_nobody() {
        let genesis = genesis_with_powers(&[1]);
        let set = ValidatorSet::from_genesis(&genesis);
        let pay = |key: u8, to: u64, fees: u64| {
            reward_outputs(&genesis, &set, &consensus_key(key), 0, to, Amount(fees))
        };
        assert_eq!(pay(0, u64::MAX, 0), None);
        assert_eq!(pay(0, genesis.slot_start_ms(1), u64::MAX), None);
        assert_eq!(pay(7, genesis.slot_start_ms(1), 0), None);
        assert!(pay(0, genesis.slot_start_ms(1), 0).is_some());
    }

    proptest! {
        #[test]
        fn exactly_the_reward_and_the_fees_are_paid(
            powers in proptest::collection::vec(1u64..1_000, 1..8),
            proposer in 0usize..8,
            slots in 0u64..1_000_000,
            fees in 0u64..1_000_000_000,
        ) {
            let genesis = genesis_with_powers(&powers);
            let set = ValidatorSet::from_genesis(&genesis);
            let proposer = consensus_key((proposer % powers.len()) as u8);
            let to = genesis.slot_start_ms(slots);
            let outputs =
                reward_outputs(&genesis, &set, &proposer, genesis.time_ms, to, Amount(fees))
                    .unwrap();
            let paid: u64 = amounts(&outputs).iter().sum();
            prop_assert_eq!(paid, slots * REWARD_PER_SLOT.0 + fees);
        }
    }
}
