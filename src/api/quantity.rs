//! Kubernetes quantities: `500m`, `4Gi`.

use super::schema::IntOrText;
use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// A Kubernetes quantity above zero, as in a pod's resources: `2`, `500m`, `1.5`, `4Gi`. A bare whole number works too.
///
/// Exponents (`1e3`) and the units below a thousandth are refused: nobody means them here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "IntOrText")]
pub struct Quantity(pub String);

/// At most twelve digits before the point and nine behind it.
const PATTERN: &str = "^[0-9]{1,12}([.][0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";

/// The text is not a [`Quantity`], zero, or larger than an `i64` holds.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity above zero: write a number with an optional unit, like 2, 500m or 4Gi")]
pub struct InvalidQuantity(String);

impl Quantity {
    /// In thousandths, rounded up: CPU in milli-CPUs. Docker's `NanoCpus` is this times 1,000,000.
    pub fn millis(&self) -> Result<i64, InvalidQuantity> {
        self.scaled(1000)
    }

    /// In whole units, rounded up: memory and disk in bytes.
    pub fn bytes(&self) -> Result<i64, InvalidQuantity> {
        self.scaled(1)
    }

    fn scaled(&self, scale: i128) -> Result<i64, InvalidQuantity> {
        self.parse(scale).ok_or_else(|| InvalidQuantity(self.0.clone()))
    }

    fn parse(&self, scale: i128) -> Option<i64> {
        let end = self.0.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (number, unit) = self.0.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || whole.len() > 12 || fraction.len() > 9 || number.ends_with('.') {
            return None;
        }
        // Of the 19 digits of the largest fraction to the 30 of the largest scaled value everything fits an i128.
        let thousandths = scale.checked_mul(unit_thousandths(unit)?)?;
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let divisor = 1000 * 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        let value = digits.checked_mul(thousandths)?;
        i64::try_from((value + divisor - 1) / divisor).ok().filter(|value| *value > 0)
    }
}

/// What a unit stands for, in thousandths.
fn unit_thousandths(unit: &str) -> Option<i128> {
    Some(match unit {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000_i128.pow(2),
        "G" => 1000 * 1000_i128.pow(3),
        "T" => 1000 * 1000_i128.pow(4),
        "P" => 1000 * 1000_i128.pow(5),
        "E" => 1000 * 1000_i128.pow(6),
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000_i128 << 30,
        "Ti" => 1000_i128 << 40,
        "Pi" => 1000_i128 << 50,
        "Ei" => 1000_i128 << 60,
        _ => return None,
    })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<IntOrText> for Quantity {
    fn from(value: IntOrText) -> Self {
        match value {
            IntOrText::Int(number) => Self(number.to_string()),
            IntOrText::Text(text) => Self(text),
        }
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "nullable": false, // or else kube makes it true
            "pattern": PATTERN,
            "x-kubernetes-validations": [
                Rule::new("quantity(string(self)).isGreaterThan(quantity('0'))")
                    .message("must be a quantity above zero, like 2, 500m or 4Gi"),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_bytes() {
        for (text, bytes) in [
            ("512", 512),
            ("1k", 1000),
            ("4Gi", 4 << 30),
            ("1.5Gi", 3 << 29),
            ("80Gi", 80 << 30),
            ("2M", 2_000_000),
            ("1m", 1),
            ("1.000000001", 2),
            ("7Ei", 7 << 60),
        ] {
            assert_eq!(Quantity::from(text).bytes(), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn counts_thousandths() {
        for (text, millis) in [("2", 2000), ("500m", 500), ("0.5", 500), ("0.0001", 1), ("1k", 1_000_000)] {
            assert_eq!(Quantity::from(text).millis(), Ok(millis), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "0",
            "0.000m",
            "Gi",
            "-1",
            "4GB",
            "1e3",
            ".5",
            "1.",
            "1.2.3",
            "1 Gi",
            "8Ei",
            "999999999999Ei",
            "5n",
        ] {
            assert_eq!(Quantity::from(text).bytes(), Err(InvalidQuantity(text.to_owned())));
        }
    }

    #[test]
    fn reads_a_bare_number() {
        assert_eq!(serde_json::from_str::<Quantity>("2").unwrap(), Quantity::from("2"));
        assert_eq!(serde_json::from_str::<Quantity>("\"4Gi\"").unwrap(), Quantity::from("4Gi"));
    }

    #[test]
    fn fuzz_a_quantity_is_above_zero_or_refused() {
        testkit::fuzz::each(&["4Gi", "500m", "0.0001", "7Ei", "1.000000001"], |input| {
            let quantity = Quantity::from(String::from_utf8_lossy(input).as_ref());
            assert!(quantity.bytes().is_ok_and(|bytes| bytes > 0) || quantity.bytes().is_err());
            assert!(quantity.millis().is_ok_and(|millis| millis > 0) || quantity.millis().is_err());
        });
    }
}
