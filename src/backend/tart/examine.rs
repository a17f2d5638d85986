//! What a Mac is like, for people who ask.

use std::time::Duration;

use super::failure::told;
use super::mac::Mac;
use super::scripts;
use crate::backend::{Error, Examination, Lack};

const ANSWER: Duration = Duration::from_secs(30);

/// Asks a Mac that is connected.
pub(super) async fn examine(mac: &Mac) -> Result<Examination, Error> {
    let output = mac.run(&mac.script("an examination", scripts::EXAMINE, ANSWER)).await?;
    match output.code {
        Some(0) => Ok(read(&output.text())),
        _ => Err(Error::Refused(format!("it cannot be examined: {}", told(&output.errors())))),
    }
}

fn read(text: &str) -> Examination {
    let version = text.lines().next().unwrap_or_default().trim();
    let about = format!("Tart {version}");
    Examination { about, lacks: text.lines().last().and_then(lack_of_disk).into_iter().collect() }
}

/// Reads a line of `df -Pk`: file system, all blocks, those used, those free, how full, where.
fn lack_of_disk(line: &str) -> Option<Lack> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let bytes = |field: usize| Some(fields.get(field)?.parse::<u64>().ok()?.saturating_mul(1024));
    Lack::of_disk(fields.get(5)?, bytes(1)?, bytes(3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_tells_its_version_and_its_disk() {
        let heading = "Filesystem 1024-blocks Used Available Capacity Mounted on";
        let full =
            format!("2.35.0\n{heading}\n/dev/disk3s5 971350180 967000000 4200000 99% /System/Volumes/Data\n");
        let read = read(&full);
        assert_eq!(read.about, "Tart 2.35.0");
        assert_eq!(read.lacks.len(), 1);
        let roomy = "2.35.0\n/dev/disk3s5 971350180 400000000 542000000 43% /\n";
        assert_eq!(super::read(roomy).lacks, []);
    }
}
