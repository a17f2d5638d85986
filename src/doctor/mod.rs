//! `paddock doctor`: what of a cluster's runners is orphaned, stuck or lacking, over the cluster, the hosts and GitHub; and the
//! removal of orphans on request.

mod finding;
mod fix;
mod github;
mod hosts;
mod instances;
mod objects;

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

pub use finding::{Finding, Kind};
pub use hosts::ExtraHost;

use crate::api::{OperatorPolicy, RunnerScaleSet};
use crate::backend::{self, HostKey, OwnedInstance, Providers, Requeuer};
use crate::controller::{Cluster, InputError, enforced, judge, read_client, recorded};
use finding::{Found, Orphan};
use github::{GitHubs, Own};
use hosts::Opened;
use objects::name_of;

/// What is looked at.
pub struct Options {
    /// The namespaces whose scale sets are looked at; none: all.
    pub namespaces: Vec<String>,
    /// Where the Leases of controllers are; none: everywhere.
    pub lease_namespace: Option<String>,
    /// What tenants may do: what a spec names and may not have is not connected to.
    pub policy: OperatorPolicy,
    /// The cluster's id; none: the UID of the `kube-system` namespace.
    pub cluster_id: Option<String>,
    /// Hosts that no scale set names any more.
    pub hosts: Vec<ExtraHost>,
}

/// What was found, and all that it was found with.
pub struct Doctor<'a> {
    cluster: &'a Cluster,
    namespaces: Vec<String>,
    providers: Providers,
    githubs: GitHubs,
    /// What is open is followed.
    opened: Vec<Opened>,
    found: Vec<Found>,
}

/// A scale set while it is looked at.
struct Patient {
    object: RunnerScaleSet,
    /// Whether all of its hosts answer.
    all_answer: bool,
    hosts: HashSet<HostKey>,
}

impl<'a> Doctor<'a> {
    /// Looks at everything. Nothing is changed. `progress` is told what is waited for.
    ///
    /// # Errors
    /// The scale sets or the cluster's id cannot be read: nothing is known then.
    pub async fn examine(
        cluster: &'a Cluster,
        options: &Options,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Doctor<'a>, InputError> {
        progress("reading the cluster");
        let id = match &options.cluster_id {
            Some(id) => id.clone(),
            None => cluster.id().await?,
        };
        let sets = cluster.scale_sets(&options.namespaces).await?;
        let leases = cluster.leases(options.lease_namespace.as_slice()).await;
        let mut doctor = Doctor {
            cluster,
            namespaces: options.namespaces.clone(),
            providers: backend::providers(&id, &Requeuer::new(|_| {})),
            githubs: GitHubs::default(),
            opened: Vec::new(),
            found: Vec::new(),
        };
        if let Err(error) = &leases {
            let remedy =
                "permit to list Leases, or give --lease-namespace: whether a controller leads is not known";
            let at = ("cluster", "leases");
            doctor.tell(vec![Finding::new(Kind::Unusable, at, error.to_string(), remedy)]);
        }
        doctor.tell(objects::findings(&sets, leases.as_deref().ok(), Timestamp::now()));
        let patients = doctor.hosts(sets.objects, &id, options, progress).await;
        let instances = doctor.providers.instances();
        let gone = doctor.instances(&instances, &patients).await?;
        let own = doctor.own(&patients, &instances).await;
        let at_github = doctor.githubs.examine(&own, progress).await;
        doctor.found.extend(at_github);
        let orphan_sets = doctor.githubs.orphan_scale_sets(&gone, &own).await;
        doctor.tell(orphan_sets);
        Ok(doctor)
    }

    /// What is wrong.
    pub fn findings(&self) -> Vec<Finding> {
        self.found.iter().map(|found| found.finding.clone()).collect()
    }

    fn tell(&mut self, findings: Vec<Finding>) {
        self.found.extend(findings.into_iter().map(Found::from));
    }

    /// Opens and looks at all hosts.
    async fn hosts(
        &mut self,
        objects: Vec<RunnerScaleSet>,
        id: &str,
        options: &Options,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Vec<Patient> {
        let mut patients = Vec::new();
        let mut opened = Vec::new();
        for object in objects {
            if let Err(why) = judge(&object, &options.policy, &self.providers) {
                let remedy = "change the field, or give the policy of the controller by --policy";
                let at = ("cluster", &*name_of(&object));
                self.tell(vec![Finding::new(Kind::NotPermitted, at, why.message, remedy)]);
                continue;
            }
            let object = enforced(&object, &options.policy);
            let (own, found) = hosts::open(&object, id, &self.providers, self.cluster).await;
            let all_answer = found.is_empty();
            self.tell(found);
            let hosts = hosts::keys(&object, &self.providers);
            opened.extend(own.into_iter().map(|opened| (opened, Some(patients.len()))));
            patients.push(Patient { object, all_answer, hosts });
        }
        for extra in &options.hosts {
            let (own, found) = hosts::open_extra(extra, id, &self.providers, self.cluster).await;
            self.tell(found);
            opened.extend(own.into_iter().map(|opened| (opened, None)));
        }
        let looks = opened.iter().map(async |(opened, _)| opened.examine(progress).await);
        for ((found, all_answer), (_, patient)) in
            futures::future::join_all(looks).await.into_iter().zip(&opened)
        {
            if let Some(patient) = patient.and_then(|number: usize| patients.get_mut(number)) {
                patient.all_answer &= all_answer;
            }
            self.tell(found);
        }
        self.opened = opened.into_iter().map(|(opened, _)| opened).collect();
        patients
    }

    /// Judges the instances by the objects as they are now: one may have come since they were read. Answers those whose object
    /// is gone.
    async fn instances(
        &mut self,
        instances: &[OwnedInstance],
        patients: &[Patient],
    ) -> Result<Vec<OwnedInstance>, InputError> {
        let sets = self.cluster.scale_sets(&self.namespaces).await?;
        let named: HashMap<&str, &HashSet<HostKey>> =
            patients.iter().filter_map(|p| Some((p.object.metadata.uid.as_deref()?, &p.hosts))).collect();
        // Of one that was not looked at nobody knows what it names.
        let names = |uid: &str, host: &HostKey| named.get(uid).is_none_or(|hosts| hosts.contains(host));
        let unreadable: Vec<&str> = sets.unreadable.iter().map(|(name, _)| name.as_str()).collect();
        let known: Vec<OwnedInstance> = instances
            .iter()
            .filter(|found| !unreadable.contains(&found.scale_set.as_str()))
            .cloned()
            .collect();
        let sees = |namespace: &str| {
            !namespace.is_empty()
                && (self.namespaces.is_empty() || self.namespaces.iter().any(|known| known == namespace))
        };
        let found = instances::findings(&known, &sets.objects, sees, names);
        let gone = found.iter().filter_map(|found| match &found.orphan {
            Some(Orphan::Instance(instance)) => Some((**instance).clone()),
            _ => None,
        });
        let gone = gone.collect();
        self.found.extend(found);
        Ok(gone)
    }

    /// What each scale set has at its GitHub.
    async fn own(&mut self, patients: &[Patient], instances: &[OwnedInstance]) -> Vec<Own> {
        let mut own = Vec::new();
        for Patient { object, all_answer, .. } in patients {
            let scale_set = name_of(object);
            let config = match read_client(self.cluster, object, &|_| {}).await {
                Ok(config) => config,
                Err(error) => {
                    self.tell(vec![hosts::unusable(&scale_set, &error)]);
                    continue;
                }
            };
            let place = format!("github {}", config.url);
            let github = match self.githubs.add(config) {
                Ok(github) => github,
                Err(error) => {
                    self.tell(vec![github::refusal((&place, &scale_set), &error)]);
                    continue;
                }
            };
            own.push(Own {
                github,
                id: recorded(object),
                name: object.scale_set_name().to_owned(),
                runners: runners(object, instances).filter(|_| *all_answer),
                scale_set,
            });
        }
        own
    }
}

/// The names of a scale set's runners, by its status and by what is on the hosts; none where its status does not tell all.
fn runners(object: &RunnerScaleSet, instances: &[OwnedInstance]) -> Option<HashSet<String>> {
    let uid = object.metadata.uid.as_deref()?;
    let of_set = instances.iter().filter(|found| found.instance.scale_set_uid == uid);
    let mut names: HashSet<String> = of_set.map(|found| found.instance.runner.clone()).collect();
    if let Some(status) = &object.status {
        names.extend(status.runners.iter().map(|runner| runner.name.clone()));
        return (status.runners_omitted == 0).then_some(names);
    }
    Some(names)
}
