//! Which capacity provider the next task goes to. Every task is a call of its own, and what ECS does with base and weights within
//! one call says nothing of many: the shares are kept here, over all tasks of a backend. No IO, no clock.

use crate::api::CapacityProvider;

/// Fargate's own name for Spot.
pub(super) const FARGATE_SPOT: &str = "FARGATE_SPOT";
/// Fargate's own name for what is no Spot.
pub(super) const FARGATE: &str = "FARGATE";

/// Chooses among the providers that `usable` admits: the one with a base that is not reached, else the one that is furthest
/// behind its share. `tasks` says how many tasks a provider has.
pub(super) fn choose(
    providers: &[CapacityProvider],
    tasks: impl Fn(&str) -> u32,
    usable: impl Fn(&str) -> bool,
) -> Option<&CapacityProvider> {
    let usable: Vec<&CapacityProvider> = providers.iter().filter(|provider| usable(&provider.name)).collect();
    let count = |provider: &CapacityProvider| f64::from(tasks(&provider.name));
    if let Some(base) = usable.iter().find(|provider| count(provider) < f64::from(provider.base)) {
        return Some(base);
    }
    let share = |provider: &CapacityProvider| {
        (count(provider) - f64::from(provider.base) + 1.0) / f64::from(provider.weight)
    };
    let weighted = usable.iter().filter(|provider| provider.weight > 0);
    let behind = weighted.min_by(|a, b| share(a).total_cmp(&share(b)));
    // One without a weight is for when there is no other.
    behind.or(usable.first()).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn provider(name: &str, weight: i32, base: i32) -> CapacityProvider {
        CapacityProvider { name: name.to_owned(), weight, base }
    }

    /// How many of so many tasks go where.
    fn spread(providers: &[CapacityProvider], tasks: u32) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for _ in 0..tasks {
            let chosen = choose(providers, |name| counts.get(name).copied().unwrap_or(0), |_| true).unwrap();
            *counts.entry(chosen.name.clone()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn base_comes_first_and_weights_share_the_rest() {
        let providers = [provider(FARGATE_SPOT, 3, 0), provider(FARGATE, 1, 2)];
        assert_eq!(spread(&providers, 2), [(FARGATE.to_owned(), 2)].into());
        assert_eq!(spread(&providers, 10), [(FARGATE.to_owned(), 4), (FARGATE_SPOT.to_owned(), 6)].into());
        assert_eq!(spread(&providers, 402)[FARGATE_SPOT], 300);
    }

    #[test]
    fn the_next_provider_serves_where_one_is_not_usable() {
        let providers = [provider(FARGATE_SPOT, 1, 0), provider(FARGATE, 0, 0)];
        let chosen = |usable: &[&str]| {
            choose(&providers, |_| 0, |name| usable.contains(&name)).map(|provider| provider.name.as_str())
        };
        assert_eq!(chosen(&[FARGATE_SPOT, FARGATE]), Some(FARGATE_SPOT));
        assert_eq!(chosen(&[FARGATE]), Some(FARGATE), "a weight of 0 is a last resort");
        assert_eq!(chosen(&[]), None);
    }
}
