//! What housekeeping did on a host, in words for who uses it. Pure.

/// Where space was freed, cheapest first: by how little is lost with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Store {
    /// Dangling images.
    Images,
    /// What buildx left behind.
    Builders,
    /// The engine's build cache.
    BuildCache,
    /// Files of shared volumes.
    SharedFiles,
}

impl Store {
    /// All of them, cheapest first.
    pub(super) const ALL: [Store; 4] =
        [Store::Images, Store::Builders, Store::BuildCache, Store::SharedFiles];

    /// Its word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Store::Images => "images",
            Store::Builders => "builders",
            Store::BuildCache => "build_cache",
            Store::SharedFiles => "shared_files",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Store::Images => "dangling images",
            Store::Builders => "idle builders",
            Store::BuildCache => "build cache",
            Store::SharedFiles => "expired files of the shared volume",
        }
    }
}

/// What was freed of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) store: Store,
    pub(super) bytes: u64,
    /// The volume it was in: others than its scale set are not told of it.
    pub(super) volume: Option<String>,
}

/// What a round did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) freed: Vec<Freed>,
    /// The disk is still too full, in words.
    pub(super) low: Option<String>,
}

impl Report {
    /// What a scale set with that volume is told; none where there is nothing.
    pub(super) fn tell(&self, volume: Option<&str>) -> Option<String> {
        let is_told = |freed: &&Freed| freed.volume.is_none() || freed.volume.as_deref() == volume;
        let mut parts = Vec::new();
        let mut sum = 0u64;
        for store in Store::ALL {
            let of_store = self.freed.iter().filter(is_told).filter(|freed| freed.store == store);
            let mut bytes = of_store.map(|freed| freed.bytes).peekable();
            if bytes.peek().is_some() {
                let bytes = bytes.fold(0, u64::saturating_add);
                sum = sum.saturating_add(bytes);
                parts.push(format!("{} ({})", store.describe(), size(bytes)));
            }
        }
        (!parts.is_empty()).then(|| format!("housekeeping freed {}: {}", size(sum), parts.join(", ")))
    }
}

/// Bytes in words.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_what_concerns_it_cheapest_first() {
        let freed =
            |store, bytes, volume: Option<&str>| Freed { store, bytes, volume: volume.map(str::to_owned) };
        let report = Report {
            freed: vec![
                freed(Store::SharedFiles, 5_000_000, Some("a")),
                freed(Store::Builders, 1_200_000_000, None),
                freed(Store::Images, 900, None),
                freed(Store::Builders, 100_000_000, None),
            ],
            low: None,
        };
        assert_eq!(
            report.tell(Some("b")).unwrap(),
            "housekeeping freed 1.3 GB: dangling images (1 kB), idle builders (1.3 GB)"
        );
        let of_a = report.tell(Some("a")).unwrap();
        assert!(of_a.ends_with("expired files of the shared volume (5 MB)"), "{of_a}");
        assert_eq!(Report::default().tell(Some("a")), None);
    }
}
