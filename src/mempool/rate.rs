//! Fee rates, compared exactly.

use std::cmp::{Ordering, Reverse};

use crate::types::TxId;

/// Fees and bytes of one or several transactions; ordered by fee for each byte.
///
/// Sums stay far below the type's limits: a pool holds at most some ten thousand amounts of 64 bits
/// and some hundred million bytes, so even the cross products fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct FeeRate {
    /// The fees, in units.
    pub(super) fee: u128,
    /// The encoded bytes; never 0.
    pub(super) bytes: u128,
}

impl FeeRate {
    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            fee: self.fee + other.fee,
            bytes: self.bytes + other.bytes,
        }
    }

    /// What is left without the other, which must be part of it.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            fee: self.fee - other.fee,
            bytes: self.bytes - other.bytes,
        }
    }

    /// Units for 1,000 bytes, rounded down, for display.
    pub(super) fn per_kb(self) -> u64 {
        u64::try_from(self.fee * 1_000 / self.bytes).unwrap_or(u64::MAX)
    }
}

impl Ord for FeeRate {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.fee * other.bytes).cmp(&(other.fee * self.bytes))
    }
}

impl PartialOrd for FeeRate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for FeeRate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for FeeRate {}

/// A place in the order of the pool: lower rates first, and of equal rates the later arrival first.
/// Arrival numbers are unique, so the order is total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The rate that counts.
    pub(super) rate: FeeRate,
    /// When it arrived, as a running number.
    pub(super) arrival: Reverse<u64>,
    /// The transaction.
    pub(super) txid: TxId,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(fee: u128, bytes: u128) -> FeeRate {
        FeeRate { fee, bytes }
    }

    #[test]
    fn rates_compare_by_the_exact_quotient() {
        assert_eq!(rate(1, 3), rate(2, 6));
        assert!(rate(1, 3) > rate(333_333, 1_000_000));
        assert!(rate(0, 5) < rate(1, 1_000_000));
        assert_eq!(rate(2_500, 1_250).per_kb(), 2_000);
    }

    #[test]
    fn of_equal_rates_the_later_arrival_ranks_lower() {
        let rank = |fee, arrival| Rank {
            rate: rate(fee, 10),
            arrival: Reverse(arrival),
            txid: TxId([0; 32]),
        };
        assert!(rank(5, 2) < rank(5, 1));
        assert!(rank(4, 1) < rank(5, 2));
    }

    proptest! {
        #[test]
        fn the_largest_sums_do_not_overflow(fee in any::<u64>(), other in any::<u64>()) {
            let all = rate(u128::from(fee) * 10_000, 100_000_000);
            let one = rate(u128::from(other) * 10_000, 100_000_000);
            prop_assert_eq!(all.cmp(&one), fee.cmp(&other));
            prop_assert_eq!(all.plus(one).minus(one), all);
        }
    }
}
