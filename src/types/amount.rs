//! Amounts of TIME, in integer units of 10^-8.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many units make one TIME.
pub const UNITS_PER_TIME: u64 = 100_000_000;

/// An amount in units of 10^-8 TIME. Arithmetic is checked; there is no silent overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub u64);

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an amount of TIME: write it like 12 or 12.5, with at most 8 decimals")]
pub struct AmountError {
    text: String,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);

    /// A whole number of TIME; `None` on overflow.
    pub const fn from_time(time: u64) -> Option<Amount> {
        match time.checked_mul(UNITS_PER_TIME) {
            Some(units) => Some(Amount(units)),
            None => None,
        }
    }

    /// The sum; `None` on overflow.
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// The difference; `None` when it would be negative.
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// The sum of all; `None` on overflow.
    pub fn checked_sum(amounts: impl IntoIterator<Item = Amount>) -> Option<Amount> {
        amounts
            .into_iter()
            .try_fold(Amount::ZERO, Amount::checked_add)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:08}",
            self.0 / UNITS_PER_TIME,
            self.0 % UNITS_PER_TIME
        )
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let error = || AmountError {
            text: text.chars().take(40).collect(),
        };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if whole.is_empty() || fraction.is_empty() || fraction.len() > 8 {
            return Err(error());
        }
        if !digits(whole) || !digits(fraction) {
            return Err(error());
        }
        let whole: u64 = whole.parse().map_err(|_| error())?;
        let fraction: u64 = format!("{fraction:0<8}").parse().map_err(|_| error())?;
        Amount::from_time(whole)
            .and_then(|amount| amount.checked_add(Amount(fraction)))
            .ok_or_else(error)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Amount)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_to_the_unit() {
        for (text, units) in [("0", 0), ("1", UNITS_PER_TIME), ("12.5", 1_250_000_000)] {
            assert_eq!(text.parse::<Amount>().unwrap(), Amount(units));
        }
        assert_eq!(Amount(1).to_string(), "0.00000001");
        assert_eq!("0.00000001".parse::<Amount>().unwrap(), Amount(1));
    }

    #[test]
    fn nonsense_and_overflow_are_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1.123456789",
            "184467440738",
        ] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
        assert_eq!(Amount(u64::MAX).checked_add(Amount(1)), None);
        assert_eq!(Amount::checked_sum([Amount(u64::MAX), Amount(1)]), None);
    }
}
