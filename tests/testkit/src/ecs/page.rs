//! Paged lists: at most 100 entries at once, and an opaque token that leads to the next page.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::refusal::own;
use super::state::PAGE;
use super::wire::Refusal;

/// One page, as a request asks for it.
pub(super) struct Page {
    size: usize,
    /// The entry that ended the page before.
    after: Option<String>,
    filter: String,
}

impl Page {
    /// Reads `maxResults` and `nextToken`. A token serves only the request that it came from, as `filter` tells it.
    pub fn read(max_results: Option<i64>, next_token: Option<&str>, filter: &str) -> Result<Self, Refusal> {
        let size = max_results.unwrap_or(100);
        let size = usize::try_from(size).ok().filter(|size| (1..=PAGE).contains(size));
        let size = size.ok_or_else(|| own::out_of_range("maxResults", 1, 100))?;
        let after =
            next_token.map(|token| decode(token, filter).ok_or_else(own::bad_next_token)).transpose()?;
        Ok(Self { size, after, filter: filter.to_owned() })
    }

    /// Cuts the page out of a sorted list, with at most `most` entries.
    pub fn cut(&self, sorted: Vec<String>, most: usize, name: &str) -> Value {
        let size = self.size.min(most);
        let begin = match &self.after {
            Some(after) => match sorted.iter().position(|entry| entry == after) {
                Some(index) => index + 1,
                // The entry is gone meanwhile.
                None => sorted.iter().position(|entry| entry > after).unwrap_or(sorted.len()),
            },
            None => 0,
        };
        let rest = &sorted[begin..];
        let entries = &rest[..rest.len().min(size)];
        let mut page = json!({ name: entries });
        if rest.len() > size
            && let Some(last) = entries.last()
        {
            page["nextToken"] = json!(URL_SAFE_NO_PAD.encode(format!("{} {last}", self.filter)));
        }
        page
    }
}

fn decode(token: &str, filter: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (bound_to, after) = text.split_once(' ')?;
    (bound_to == filter).then(|| after.to_owned())
}

/// A short form of a request's filters.
pub(super) fn fingerprint(text: &str) -> String {
    // FNV-1a: a token only has to fail for another request.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_the_list_though_it_changes_meanwhile() {
        let mut all: Vec<String> = (0..7).map(|n| format!("t{n}")).collect();
        let first = Page::read(Some(3), None, "f").expect("a page").cut(all.clone(), PAGE, "arns");
        assert_eq!(first["arns"], json!(["t0", "t1", "t2"]));
        let token = first["nextToken"].as_str().expect("more").to_owned();
        all.remove(1);
        let second = Page::read(Some(100), Some(&token), "f").expect("a page").cut(all, PAGE, "arns");
        assert_eq!(second["arns"], json!(["t3", "t4", "t5", "t6"]));
        assert!(second.get("nextToken").is_none());
    }

    #[test]
    fn a_token_serves_its_own_request_only() {
        let page =
            Page::read(Some(1), None, "f").expect("a page").cut(vec!["a".into(), "b".into()], PAGE, "arns");
        let token = page["nextToken"].as_str().expect("more");
        assert!(Page::read(None, Some(token), "other").is_err());
        assert!(Page::read(None, Some("garbage"), "f").is_err());
        assert!(Page::read(Some(0), None, "f").is_err() && Page::read(Some(101), None, "f").is_err());
    }
}
