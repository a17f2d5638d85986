//! Free space on a disk: `10%`, `50Gi`.

use super::schema::IntOrText;
use super::{InvalidQuantity, Quantity};
use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A quantity of bytes above zero, or a percentage of a disk: `50Gi`, `10%`. It prints as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "IntOrText")]
pub struct FreeSpace(pub String);

/// A percentage, or what a [`Quantity`] is.
const PATTERN: &str = "^((100|[1-9]?[0-9])%|[0-9]{1,12}([.][0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?)$";

/// How much is to be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FreeBytes {
    /// So many bytes.
    Bytes(u64),
    /// So many of a hundred.
    Percent(u8),
}

impl FreeSpace {
    /// Reads it.
    ///
    /// # Errors
    /// Where it is neither a percentage up to 100% nor a quantity above zero.
    pub fn read(&self) -> Result<FreeBytes, InvalidQuantity> {
        let percent = self.0.strip_suffix('%').and_then(|digits| digits.parse().ok());
        match percent.filter(|percent| *percent <= 100) {
            Some(percent) => Ok(FreeBytes::Percent(percent)),
            None => Quantity(self.0.clone()).bytes().map(|bytes| FreeBytes::Bytes(bytes.unsigned_abs())),
        }
    }
}

impl FreeBytes {
    /// How many bytes that is of a disk of `total` bytes; a percentage is rounded up.
    pub fn of(self, total: u64) -> u64 {
        match self {
            FreeBytes::Bytes(bytes) => bytes,
            FreeBytes::Percent(percent) => {
                let share = u128::from(total).saturating_mul(percent.into()).div_ceil(100);
                u64::try_from(share).unwrap_or(u64::MAX)
            }
        }
    }
}

impl From<IntOrText> for FreeSpace {
    fn from(value: IntOrText) -> Self {
        FreeSpace(Quantity::from(value).0)
    }
}

impl JsonSchema for FreeSpace {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "FreeSpace".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "nullable": false, // or else kube makes it true
            "pattern": PATTERN,
            "x-kubernetes-validations": [
                Rule::new("string(self).endsWith('%') || quantity(string(self)).isGreaterThan(quantity('0'))")
                    .message("must be a quantity above zero or a percentage, like 50Gi or 10%"),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_quantity_or_a_share_of_the_disk() {
        for (text, expected) in
            [("10%", Some(100)), ("0%", Some(0)), ("100%", Some(1000)), ("1k", Some(1000))]
        {
            let read = FreeSpace(text.into()).read().ok();
            assert_eq!(read.map(|space| space.of(1000)), expected, "{text}");
        }
        for text in ["101%", "%", "-1", "0", "ten"] {
            assert!(FreeSpace(text.into()).read().is_err(), "{text}");
        }
        assert_eq!(FreeBytes::Percent(10).of(1), 1, "rounded up: what is full is below any share");
        assert_eq!(FreeBytes::Percent(100).of(u64::MAX), u64::MAX);
    }

    #[test]
    fn it_goes_through_json_as_it_was_written() {
        for text in ["\"10%\"", "\"50Gi\""] {
            let read: FreeSpace = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
        assert_eq!(serde_json::from_str::<FreeSpace>("1000").unwrap(), FreeSpace("1000".into()));
    }
}
