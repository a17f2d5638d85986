//! How an ECS cluster is called where hosts are: `ecs://<region>/<cluster>`.

use crate::api::BackendType;
use crate::backend::{HostKey, NamedHost};

const SCHEME: &str = "ecs://";

/// Returns the short name of a cluster that is given by name or ARN.
pub(super) fn short_name(cluster: &str) -> &str {
    cluster.rsplit_once('/').map_or(cluster, |(_, name)| name)
}

/// Returns the key of a cluster. By which credentials and endpoint it is reached is no part of it: it is the same cluster.
pub(super) fn key(region: &str, cluster: &str) -> HostKey {
    HostKey { kind: BackendType::Ecs, endpoint: format!("{SCHEME}{region}/{}", short_name(cluster)) }
}

/// Returns the only host of a backend, named as its cluster.
pub(super) fn named(region: &str, cluster: &str) -> NamedHost {
    let key = key(region, cluster);
    let name = short_name(cluster).to_owned();
    NamedHost { name, endpoint: key.endpoint.clone(), key: Some(key) }
}

/// Reads region and cluster out of a key's endpoint; none if no spec could name it.
pub(super) fn parse(endpoint: &str) -> Option<(&str, &str)> {
    let (region, cluster) = endpoint.strip_prefix(SCHEME)?.split_once('/')?;
    let of = |text: &str, also: &str| {
        !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || also.as_bytes().contains(&c))
    };
    (of(region, "-") && of(cluster, "-_")).then_some((region, cluster))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_one_key_by_name_and_by_arn() {
        let arn = "arn:aws:ecs:eu-west-1:123456789012:cluster/runners";
        assert_eq!(key("eu-west-1", arn), key("eu-west-1", "runners"));
        assert_eq!(named("eu-west-1", arn).name, "runners");
        assert_eq!(parse(&key("eu-west-1", arn).endpoint), Some(("eu-west-1", "runners")));
    }

    #[test]
    fn no_endpoint_leads_where_a_spec_could_not() {
        for bad in [
            "ecs://",
            "ecs://eu/",
            "ecs:///c",
            "ecs://eu/c/d",
            "ecs://eu.x/c",
            "https://eu/c",
            "ecs://eu/c?x",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
