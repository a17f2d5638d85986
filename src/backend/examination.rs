//! What a host is like, for people who ask: nothing is started there.

/// Less than this share of a disk, in percent, is too little ...
const LEAST_SHARE: u64 = 10;
/// ... where it is less than this many bytes as well: what an image and a job take.
const LEAST_BYTES: u64 = 5_000_000_000;

/// What a host was found to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// What answers there, in words: its kind and version.
    pub about: String,
    /// What it lacks, although it answers.
    pub lacks: Vec<Lack>,
}

/// What a host lacks, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// It is too old.
    Version(String),
    /// Its disk is nearly full.
    Disk(String),
}

impl Lack {
    /// What a disk lacks that has so many bytes and so many of them free; none where that is enough.
    pub(super) fn of_disk(path: &str, total: u64, free: u64) -> Option<Lack> {
        let percent = free.saturating_mul(100).checked_div(total)?;
        let gb = free / 1_000_000_000;
        let is_little = percent < LEAST_SHARE && free < LEAST_BYTES;
        is_little.then(|| Lack::Disk(format!("{path}: {percent} % of the disk is free ({gb} GB)")))
    }

    /// What is lacking, in words.
    pub fn message(&self) -> &str {
        match self {
            Lack::Version(message) | Lack::Disk(message) => message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_lacks_room_that_has_little_of_itself_and_little_at_all() {
        for (total, free) in [(100, 10), (0, 0), (100_000_000_000, 5_000_000_000)] {
            assert_eq!(Lack::of_disk("/", total, free), None);
        }
        let lack = Lack::of_disk("/tart", 100_000_000_000, 4_000_000_000).unwrap();
        assert_eq!(lack.message(), "/tart: 4 % of the disk is free (4 GB)");
    }
}
