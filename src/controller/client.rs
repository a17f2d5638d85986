//! The client of the API server. What it answers is trimmed before anything is decoded: who may write an object may write
//! times into it that the API server takes and jiff cannot hold (it ends at 9999-12-30T22:00:00Z), and a list or a watch
//! with one such object would show none at all.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::Response;
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use kube::client::{ClientBuilder, DynBody};
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tower::util::MapResponseLayer;

use super::record;

/// Makes the client that everything of Kubernetes goes through. It needs a Tokio runtime.
pub fn client(config: Config) -> Result<Client, kube::Error> {
    let trimming = MapResponseLayer::new(|answer: Response<Box<DynBody>>| answer.map(trimmed));
    Ok(ClientBuilder::try_from(config)?.with_layer(&trimming).build())
}

/// Trims each line of a body by itself: an answer is one line, and a watch has one for each event.
fn trimmed(body: Box<DynBody>) -> Body {
    let lines = lines(Body::new(body).into_data_stream());
    Body::from_stream(lines.map(|line| line.map(trim_line)))
}

/// Cuts a stream of bytes into its lines, each with its end.
fn lines<E>(bytes: impl Stream<Item = Result<Bytes, E>> + Unpin) -> impl Stream<Item = Result<Vec<u8>, E>> {
    stream::try_unfold((bytes, Vec::new(), 0), |(mut bytes, mut begun, mut searched)| async move {
        loop {
            if let Some(end) = begun[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = begun.split_off(searched + end + 1);
                return Ok(Some((begun, (bytes, rest, 0))));
            }
            searched = begun.len();
            match bytes.next().await {
                Some(more) => begun.extend_from_slice(&more?),
                None if begun.is_empty() => return Ok(None),
                None => return Ok(Some((begun, (bytes, Vec::new(), 0)))),
            }
        }
    })
}

/// Fields of an object, as they came.
type Fields = BTreeMap<String, Box<RawValue>>;

/// Trims the objects of one line, each by itself: a page of them is never taken apart at once. What is no JSON stays as
/// it is.
fn trim_line(line: Vec<u8>) -> Vec<u8> {
    let Ok(trimmed) = serde_json::from_slice(&line).and_then(trim_answer) else { return line };
    let mut line = trimmed.get().as_bytes().to_vec();
    line.push(b'\n');
    line
}

fn trim_answer(mut answer: Fields) -> serde_json::Result<Box<RawValue>> {
    change(&mut answer, "object", trim)?; // a watch's
    change(&mut answer, "items", |items: Vec<Fields>| {
        to_raw_value(&items.into_iter().map(trim).collect::<serde_json::Result<Vec<_>>>()?)
    })?;
    trim(answer)
}

/// Drops what nobody here reads: `managedFields`; labels and others' annotations, where objects of many people are watched;
/// and the times of a Lease where they are beyond reading.
fn trim(mut object: Fields) -> serde_json::Result<Box<RawValue>> {
    let kind: Option<String> = object.get("kind").map(|kind| read(kind)).transpose()?;
    let kind = kind.as_deref();
    let watched = matches!(kind, Some("RunnerScaleSet" | "PartialObjectMetadata"));
    change(&mut object, "metadata", |metadata| trim_metadata(metadata, watched))?;
    if kind == Some("Lease") {
        change(&mut object, "spec", trim_lease)?;
    }
    to_raw_value(&object)
}

fn trim_metadata(mut metadata: Fields, watched: bool) -> serde_json::Result<Box<RawValue>> {
    metadata.remove("managedFields");
    if watched {
        metadata.remove("labels");
        change(&mut metadata, "annotations", |mut annotations: Fields| {
            annotations.retain(|name, _| name == record::RECORD);
            to_raw_value(&annotations)
        })?;
    }
    to_raw_value(&metadata)
}

fn trim_lease(mut lease: Fields) -> serde_json::Result<Box<RawValue>> {
    let readable = |time: &RawValue| read::<String>(time).is_ok_and(|time| time.parse::<Timestamp>().is_ok());
    lease.retain(|field, value| !["acquireTime", "renewTime"].contains(&field.as_str()) || readable(value));
    to_raw_value(&lease)
}

/// Changes a field, if it is there.
fn change<T: DeserializeOwned>(
    fields: &mut Fields,
    name: &str,
    changed: impl FnOnce(T) -> serde_json::Result<Box<RawValue>>,
) -> serde_json::Result<()> {
    if let Some(value) = fields.get_mut(name) {
        *value = changed(read(value)?)?;
    }
    Ok(())
}

fn read<T: DeserializeOwned>(raw: &RawValue) -> serde_json::Result<T> {
    serde_json::from_str(raw.get())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use serde_json::Value;

    use super::*;

    async fn cut(chunks: &[&'static str]) -> Vec<String> {
        let bytes = stream::iter(chunks.to_vec()).map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk)));
        lines(bytes).map(|line| String::from_utf8(line.unwrap()).unwrap()).collect().await
    }

    #[tokio::test]
    async fn lines_are_whole_wherever_the_network_cuts() {
        assert_eq!(cut(&["one\ntw", "o\n", "", "thr", "ee"]).await, ["one\n", "two\n", "three"]);
        assert_eq!(cut(&["\n\n"]).await, ["\n", "\n"]);
        assert!(cut(&[]).await.is_empty());
    }

    #[test]
    fn managed_fields_go_from_objects_lists_and_watches() {
        let before = r#"{"metadata":{"managedFields":[{"time":"9999-12-31T23:59:59Z"}],"name":"a"}}"#;
        let after = r#"{"metadata":{"name":"a"}}"#;
        for (around, end) in [("", ""), (r#"{"type":"ADDED","object":"#, "}"), (r#"{"items":["#, "]}")] {
            let trimmed = trim_line(format!("{around}{before}{end}\n").into_bytes());
            let (trimmed, expected) =
                (serde_json::from_slice::<Value>(&trimmed), format!("{around}{after}{end}"));
            assert_eq!(trimmed.unwrap(), serde_json::from_str::<Value>(&expected).unwrap());
        }
        assert_eq!(trim_line(b"no JSON\n".to_vec()), b"no JSON\n");
    }

    #[test]
    fn the_times_of_a_lease_go_only_where_they_cannot_be_read() {
        let lease = r#"{"kind":"Lease","spec":{"acquireTime":"2026-01-01T00:00:00.000000Z","renewTime":"9999-12-31T23:59:59.000000Z"}}"#;
        let trimmed: Value = serde_json::from_slice(&trim_line(lease.into())).unwrap();
        assert_eq!(trimmed["spec"], serde_json::json!({"acquireTime": "2026-01-01T00:00:00.000000Z"}));
    }
}
