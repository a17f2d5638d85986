//! Instances that no scale set looks after. No IO.

use std::collections::HashMap;

use super::finding::{Finding, Found, Kind, Orphan};
use super::hosts::place_of;
use super::objects::name_of;
use crate::api::{BackendType, RunnerScaleSet};
use crate::backend::{HostKey, OwnedInstance};

/// Lists those of this cluster's instances whose scale set is gone, and those on hosts that their scale set does not name.
/// `sees` says of a namespace whether its scale sets are all known; `names` whether a scale set, by its UID, names a host.
pub(super) fn findings(
    instances: &[OwnedInstance],
    sets: &[RunnerScaleSet],
    sees: impl Fn(&str) -> bool,
    names: impl Fn(&str, &HostKey) -> bool,
) -> Vec<Found> {
    let known: HashMap<&str, &RunnerScaleSet> =
        sets.iter().filter_map(|set| Some((set.metadata.uid.as_deref()?, set))).collect();
    let judge = |instance: &OwnedInstance| match known.get(instance.instance.scale_set_uid.as_str()) {
        Some(_) if names(&instance.instance.scale_set_uid, &instance.host) => None,
        Some(set) => Some(unnamed(instance, set).into()),
        None => {
            let namespace = instance.scale_set.split_once('/').map_or("", |(namespace, _)| namespace);
            sees(namespace).then(|| orphan(instance))
        }
    };
    instances.iter().filter_map(judge).collect()
}

/// What an instance is called: by its runner, if it has one.
pub(super) fn subject(instance: &OwnedInstance) -> &str {
    let OwnedInstance { instance, .. } = instance;
    if instance.runner.is_empty() { &instance.id } else { &instance.runner }
}

fn orphan(instance: &OwnedInstance) -> Found {
    let OwnedInstance { host, scale_set, instance: found } = instance;
    let message = format!(
        "its scale set {scale_set} (UID {}) does not exist any more; it is there since {:.0}",
        found.scale_set_uid, found.created_at
    );
    let remedy = format!("paddock doctor --fix removes it; by hand: {}", removal(host, &found.id));
    let place = place_of(host);
    let finding = Finding::new(Kind::OrphanInstance, (&place, subject(instance)), message, remedy);
    Found {
        finding: Finding { fixable: true, ..finding },
        orphan: Some(Orphan::Instance(Box::new(instance.clone()))),
    }
}

fn unnamed(instance: &OwnedInstance, set: &RunnerScaleSet) -> Finding {
    let name = name_of(set);
    let message = format!("its scale set {name} does not name this host: no controller sees it there");
    let remedy = format!(
        "name the host in {name} again, with maxRunners 0: the controller drains it. Once it is idle, by hand: {}",
        removal(&instance.host, &instance.instance.id)
    );
    Finding::new(Kind::UnnamedHost, (&place_of(&instance.host), subject(instance)), message, remedy)
}

fn removal(host: &HostKey, id: &str) -> String {
    match host.kind {
        BackendType::Docker => format!("docker rm --force --volumes {id}"),
        BackendType::Tart => format!("tart stop {id}; tart delete {id}"),
        BackendType::Ecs => {
            let cluster = host.endpoint.rsplit_once('/').map_or("", |(_, cluster)| cluster);
            format!("aws ecs stop-task --cluster {cluster} --task {id}")
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::runner::{Instance, InstanceState};

    fn instance(uid: &str, scale_set: &str) -> OwnedInstance {
        let host = HostKey { kind: BackendType::Docker, endpoint: "unix:///a".to_owned() };
        let instance = Instance {
            id: "9f3c".to_owned(),
            runner: "linux-abcd1234".to_owned(),
            scale_set_uid: uid.to_owned(),
            backend: "rack".to_owned(),
            host: "unix:///a".to_owned(),
            template_hash: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            state: InstanceState::Running,
        };
        OwnedInstance { host, scale_set: scale_set.to_owned(), instance }
    }

    #[test]
    fn only_an_instance_whose_scale_set_is_known_to_be_gone_may_be_removed() {
        let mut set: RunnerScaleSet =
            serde_saphyr::from_str(include_str!("../../tests/support/full.yaml")).unwrap();
        set.metadata.uid = Some("u-1".to_owned());
        let all = [
            instance("u-1", "ci/linux"),
            instance("u-2", "ci/linux"),
            instance("u-3", "other/linux"),
            instance("u-4", ""),
        ];
        let found = |named: bool| {
            let found = findings(&all, std::slice::from_ref(&set), |ns| ns == "ci", |_, _| named);
            found.iter().map(|f| (f.finding.kind, f.finding.fixable)).collect::<Vec<_>>()
        };
        assert_eq!(found(true), [(Kind::OrphanInstance, true)]);
        assert_eq!(found(false), [(Kind::UnnamedHost, false), (Kind::OrphanInstance, true)]);
    }
}
