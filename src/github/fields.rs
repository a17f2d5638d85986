//! Reads JSON from outside straight into bounded values: names without regard to case and null as absent, as GitHub's own
//! client (in Go) reads them; text has a length, lists have a size, and what nobody asked for is passed over unread.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The longest name, in bytes: GitHub's own bound for labels is 255 characters, runners' names are shorter.
pub(super) const NAME: usize = 256;
/// The longest message or path for people, in bytes.
const WORDS: usize = 1024;
/// The longest token, URL or configuration, in bytes. A JIT configuration has about 4.5 KiB.
const OPAQUE: usize = 64 << 10;
/// The most items of one list: a page has 100 runners, a message 50 jobs.
pub(super) const ITEMS: usize = 2_000;
/// A key that is longer is none that is asked for.
const KEY: usize = 64;

/// The beginning of `text`: at most `most` bytes of whole characters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// A value that is read from JSON, within its bounds.
pub(super) trait Field: Sized {
    /// Reads it; null is the default.
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error>;
}

/// A [`Field`], for serde.
pub(super) struct Read<T>(pub T);

impl<'de, T: Field> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        T::read(json).map(Read)
    }
}

/// A JSON object: what it does not know is passed over. [`object`] implements it.
pub(super) trait Object: Default {
    /// Reads the value of `key`, which is in lower case; false if the key is none of its own.
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Implements [`Object`] by naming the field for each key, in lower case.
macro_rules! object {
    ($name:ident { $($key:literal => $field:ident),* $(,)? }) => {
        impl $crate::github::fields::Object for $name {
            fn take<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
            ) -> Result<bool, A::Error> {
                match key {
                    $($key => self.$field = $crate::github::fields::value(map)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}
pub(super) use object;

/// The value of the key that was read last.
pub(super) fn value<'de, T: Field, A: MapAccess<'de>>(map: &mut A) -> Result<T, A::Error> {
    map.next_value::<Read<T>>().map(|read| read.0)
}

impl<T: Object> Field for T {
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Object> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut object = T::default();
        while let Some(Read(Key(key))) = map.next_key()? {
            if !object.take(&key, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

/// A key, in lower case.
struct Key(String);

impl Field for Key {
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        match json.deserialize_str(Bounded(KEY))? {
            Scalar::Text(text) => Ok(Key(text.to_lowercase())),
            _ => Err(D::Error::custom("no key")),
        }
    }
}

/// What has no parts.
enum Scalar {
    Null,
    Flag(bool),
    Number(i64),
    Text(String),
}

/// Reads a scalar; its text is cut at so many bytes.
struct Bounded(usize);

impl Visitor<'_> for Bounded {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Scalar, E> {
        i64::try_from(number).map(Scalar::Number).map_err(|_| E::custom("too large a number"))
    }

    /// Whole seconds are enough of a time, and nothing else has a fraction.
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Scalar, E> {
        // Beyond this a float tells no whole number exactly.
        const EXACT: f64 = 9e15;
        if number.abs() < EXACT {
            Ok(Scalar::Number(number as i64))
        } else {
            Err(E::custom("too large a number"))
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(cut(text, self.0).to_owned()))
    }
}

fn text<'de, D: Deserializer<'de>>(json: D, most: usize) -> Result<String, D::Error> {
    match json.deserialize_any(Bounded(most))? {
        Scalar::Null => Ok(String::new()),
        Scalar::Number(number) => Ok(number.to_string()),
        Scalar::Text(text) => Ok(text),
        Scalar::Flag(_) => Err(D::Error::custom("no text")),
    }
}

/// A name; a number reads as its digits.
impl Field for String {
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        text(json, NAME)
    }
}

/// A message or a path, for people.
#[derive(Debug, Default, Clone)]
pub(super) struct Words(pub String);

impl Field for Words {
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        text(json, WORDS).map(Words)
    }
}

/// A token, a URL, a configuration: of no use when cut, so too long a one is refused.
#[derive(Default)]
pub(super) struct Opaque(pub String);

impl Field for Opaque {
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        let text = text(json, OPAQUE + 1)?;
        if text.len() > OPAQUE { Err(D::Error::custom("too long")) } else { Ok(Opaque(text)) }
    }
}

impl Field for i64 {
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        match json.deserialize_any(Bounded(NAME))? {
            Scalar::Null => Ok(0),
            Scalar::Number(number) => Ok(number),
            Scalar::Text(text) if text.is_empty() => Ok(0),
            Scalar::Text(text) => text.trim().parse().map_err(|_| D::Error::custom("no number")),
            Scalar::Flag(_) => Err(D::Error::custom("no number")),
        }
    }
}

impl Field for bool {
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        match json.deserialize_any(Bounded(KEY))? {
            Scalar::Null => Ok(false),
            Scalar::Flag(flag) => Ok(flag),
            _ => Err(D::Error::custom("neither true nor false")),
        }
    }
}

impl<T: Field> Field for Option<T> {
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        Ok(Option::<Read<T>>::deserialize(json)?.map(|read| read.0))
    }
}

/// A list without its nulls. One with too many items is refused.
impl<T: Field> Field for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Field> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Read<Option<T>>>()? {
            if items.len() == ITEMS {
                return Err(A::Error::custom("too long a list"));
            }
            items.extend(item.0);
        }
        Ok(items)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read<T: Field>(json: &str) -> Option<T> {
        serde_json::from_str::<Read<T>>(json).ok().map(|read| read.0)
    }

    #[test]
    fn every_text_has_a_length_and_is_cut_between_characters() {
        let long = format!("\"{}\"", "ä".repeat(1000));
        assert_eq!(read::<String>(&long).unwrap().len(), NAME);
        assert_eq!(read::<Words>(&format!("\"a{}\"", "ä".repeat(1000))).unwrap().0.len(), WORDS - 1);
        assert!(read::<Opaque>(&format!("\"{}\"", "x".repeat(OPAQUE))).is_some());
        assert!(
            read::<Opaque>(&format!("\"{}\"", "x".repeat(OPAQUE + 1))).is_none(),
            "a cut token opens nothing"
        );
    }

    #[test]
    fn numbers_come_in_several_dresses() {
        for (json, expected) in [
            ("7", Some(7)),
            ("\"7\"", Some(7)),
            ("7.0", Some(7)),
            ("1893456000.5", Some(1_893_456_000)),
            ("null", Some(0)),
            ("\"\"", Some(0)),
            ("18446744073709551615", None),
            ("1e300", None),
            ("true", None),
            ("\"seven\"", None),
            ("[7]", None),
        ] {
            assert_eq!(read::<i64>(json), expected, "{json}");
        }
        assert_eq!(read::<String>("7").unwrap(), "7");
        assert_eq!((read::<bool>("null"), read::<bool>("\"yes\"")), (Some(false), None));
        assert_eq!(
            (read::<Option<bool>>("null"), read::<Option<bool>>("true")),
            (Some(None), Some(Some(true)))
        );
    }

    #[test]
    fn a_list_has_a_size_and_no_nulls() {
        assert_eq!(read::<Vec<i64>>("[1, null, 2]").unwrap(), [1, 2]);
        assert_eq!(read::<Vec<i64>>("null").unwrap(), [0; 0]);
        assert!(read::<Vec<i64>>(&format!("[{}1]", "1,".repeat(ITEMS - 1))).is_some());
        assert!(read::<Vec<i64>>(&format!("[{}1]", "1,".repeat(ITEMS))).is_none());
        assert!(read::<Vec<i64>>("{}").is_none());
    }
}
