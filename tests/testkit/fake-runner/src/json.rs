//! As much of base64 and JSON as a JIT configuration and an order need.

/// Decodes base64 with padding.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for c in text.trim().trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// Decodes base64 of a text.
pub fn base64_text(text: &str) -> Option<String> {
    String::from_utf8(base64(text)?).ok()
}

/// The value after the first `"key":`, up to its end. Enough for flat objects whose strings hold no quotes.
fn value<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{key}\":"))?;
    Some(rest.trim_start())
}

/// The string of this key.
pub fn string<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    value(json, key)?.strip_prefix('"')?.split('"').next()
}

/// The number of this key.
pub fn number(json: &str, key: &str) -> Option<i64> {
    let value = value(json, key)?;
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(value.len());
    value[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length() {
        for (text, plain) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")]
        {
            assert_eq!(base64_text(text).as_deref(), Some(plain));
        }
        assert_eq!(base64("+/8=").as_deref(), Some([0xfb, 0xff].as_slice()));
        assert_eq!(base64("not base64"), None);
    }

    #[test]
    fn values_of_a_flat_object() {
        let json = r#"{"durationMs":-1,"exitCode": 7,"jobName":"build","result":"succeeded"}"#;
        assert_eq!(number(json, "durationMs"), Some(-1));
        assert_eq!(number(json, "exitCode"), Some(7));
        assert_eq!(string(json, "jobName"), Some("build"));
        assert_eq!(string(json, "exitCode"), None);
        assert_eq!(string(json, "absent"), None);
    }
}
