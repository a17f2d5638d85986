//! What may be removed on a host, and what all who share it agree to. Pure.

use std::time::Duration;

use crate::api::{DockerHousekeeping, FreeBytes, InvalidQuantity};

/// What housekeeping may remove on a host, by what a scale set wishes or by what all on the host agree to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rules {
    /// How old an idle builder is to be removed. None: no builder is.
    pub builders: Option<Duration>,
    /// Whether dangling images are removed.
    pub images: bool,
    /// How many bytes of build cache stay. None: all.
    pub build_cache: Option<u64>,
    /// When and until when the disk is made free. None: it is not watched.
    pub disk_guard: Option<DiskGuard>,
    /// How often.
    pub interval: Duration,
}

/// Below how much free space something is removed, and until how much there is. Of several wishes the smallest counts, which
/// only the size of the disk tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DiskGuard {
    /// What each wishes for the beginning.
    pub min_free: Vec<FreeBytes>,
    /// And for the end.
    pub target_free: Vec<FreeBytes>,
}

/// How full a disk is, in bytes, as `df` counts: what is kept for root is no part of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) used: u64,
    pub(super) available: u64,
}

impl Rules {
    /// Reads the block of a spec. The error has the field's name below `housekeeping`.
    pub fn read(spec: &DockerHousekeeping) -> Result<Rules, (&'static str, InvalidQuantity)> {
        let budget = spec.build_cache.budget.bytes().map_err(|e| ("buildCache.budget", e))?.unsigned_abs();
        let guard = DiskGuard {
            min_free: vec![spec.disk_guard.min_free.read().map_err(|e| ("diskGuard.minFree", e))?],
            target_free: vec![spec.disk_guard.target_free.read().map_err(|e| ("diskGuard.targetFree", e))?],
        };
        Ok(Rules {
            builders: spec.buildx.enabled.then(|| spec.buildx.max_age.get()),
            images: spec.images.enabled,
            build_cache: spec.build_cache.enabled.then_some(budget),
            disk_guard: spec.disk_guard.enabled.then_some(guard),
            interval: spec.interval.get(),
        })
    }

    /// Returns what two agree to: of everything the milder, and nothing where one wants nothing removed.
    pub(super) fn milder(self, other: &Rules) -> Rules {
        let guards = self.disk_guard.zip(other.disk_guard.clone()).map(|(mut guard, other)| {
            guard.min_free.extend(other.min_free);
            guard.target_free.extend(other.target_free);
            guard
        });
        Rules {
            builders: self.builders.zip(other.builders).map(|(a, b)| a.max(b)),
            images: self.images && other.images,
            build_cache: self.build_cache.zip(other.build_cache).map(|(a, b)| a.max(b)),
            disk_guard: guards,
            interval: self.interval.max(other.interval),
        }
    }
}

impl DiskGuard {
    /// Whether something is to be removed.
    pub(super) fn is_low(&self, space: Space) -> bool {
        space.available < smallest(&self.min_free, space)
    }

    /// Whether enough is free to stop. It is never less than what is too little.
    pub(super) fn is_met(&self, space: Space) -> bool {
        !self.is_low(space) && space.available >= smallest(&self.target_free, space)
    }
}

fn smallest(wishes: &[FreeBytes], space: Space) -> u64 {
    let total = space.used.saturating_add(space.available);
    wishes.iter().map(|wish| wish.of(total)).min().unwrap_or_default()
}

impl Space {
    /// A disk on which nothing can be written any more, of whatever size.
    pub(super) const FULL: Space = Space { used: 1, available: 0 };

    /// Reads the last line of `df -Pk`.
    pub(super) fn read(printed: &str) -> Option<Space> {
        let mut words = printed.lines().last()?.split_whitespace().skip(2);
        let mut kilobytes = || words.next()?.parse::<u64>().ok()?.checked_mul(1024);
        Some(Space { used: kilobytes()?, available: kilobytes()? })
    }

    /// How much of the disk is free, in words.
    pub(super) fn describe(self) -> String {
        let total = u128::from(self.used).saturating_add(self.available.into());
        let percent = u128::from(self.available).saturating_mul(100).checked_div(total).unwrap_or_default();
        format!("{percent} % of the disk is free")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn rules(builders: u32, budget: u64, min: FreeBytes, interval: u32) -> Rules {
        Rules {
            builders: Some(HOUR * builders),
            images: true,
            build_cache: Some(budget),
            disk_guard: Some(DiskGuard { min_free: vec![min], target_free: vec![FreeBytes::Percent(20)] }),
            interval: HOUR * interval,
        }
    }

    #[test]
    fn where_scale_sets_disagree_the_mildest_counts() {
        let (a, b) = (rules(24, 50, FreeBytes::Percent(10), 6), rules(48, 20, FreeBytes::Bytes(30), 1));
        let both = a.clone().milder(&b);
        assert_eq!((both.builders, both.build_cache), (Some(HOUR * 48), Some(50)));
        assert_eq!((both.images, both.interval), (true, HOUR * 6));
        let guard = both.disk_guard.unwrap();
        let low = |used, available| guard.is_low(Space { used, available });
        assert!(low(181, 19) && !low(180, 20), "of a small disk 10 % is less");
        assert!(low(971, 29) && !low(970, 30), "of a large one 30 bytes are");
        let nothing = Rules { builders: None, images: false, build_cache: None, disk_guard: None, ..b };
        assert_eq!(a.milder(&nothing), Rules { interval: HOUR * 6, ..nothing });
    }

    #[test]
    fn the_guard_stops_at_its_target_which_is_never_below_its_beginning() {
        let guard = |min, target| DiskGuard {
            min_free: vec![FreeBytes::Percent(min)],
            target_free: vec![FreeBytes::Percent(target)],
        };
        let met =
            |min, target, available| guard(min, target).is_met(Space { used: 100 - available, available });
        assert!(!met(10, 20, 19) && met(10, 20, 20));
        assert!(!met(10, 5, 9) && met(10, 5, 10));
        assert!(guard(1, 1).is_low(Space::FULL));
        assert!(!guard(0, 0).is_low(Space::FULL));
    }

    #[test]
    fn free_space_is_read_as_df_prints_it() {
        let printed = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/loop0 277623 14 258153 1% /mnt\n";
        assert_eq!(Space::read(printed), Some(Space { used: 14 * 1024, available: 258_153 * 1024 }));
        for printed in
            ["", "df: /mnt: No such file", "/dev/loop0 1 - 2 1% /mnt", "a 1 2 99999999999999999 1% /"]
        {
            assert_eq!(Space::read(printed), None, "{printed}");
        }
    }
}
