//! The end of what a container printed.

use bollard::Docker;
use bollard::query_parameters::LogsOptionsBuilder;
use futures::TryStreamExt;

use super::failure::{ANSWER, call};
use crate::backend::Error;

/// How much of a container's output a report of a failure shows.
const TAIL_LINES: &str = "20";
const TAIL_BYTES: usize = 2048;

/// Reads the end of what a container printed.
pub(super) async fn tail(docker: &Docker, id: &str) -> Result<String, Error> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(TAIL_LINES).build();
    let lines = docker
        .logs(id, Some(options))
        .map_ok(|line| String::from_utf8_lossy(&line.into_bytes()).into_owned());
    let text = call("reading a log", ANSWER, lines.try_collect::<String>()).await?;
    let cut = text.len().saturating_sub(TAIL_BYTES);
    Ok(text[text.ceil_char_boundary(cut)..].to_owned())
}
