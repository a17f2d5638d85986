//! Removes orphans: each after a second look at all that makes it one, and none that has a job.

use super::Doctor;
use super::finding::{Finding, Orphan};
use crate::api::RunnerScaleSet;
use crate::backend::OwnedInstance;
use crate::github::Error;

impl Doctor<'_> {
    /// Removes the orphans that `wanted` says yes to. Those that are gone are found no more; of the others the finding says why
    /// they stay.
    pub async fn fix(&mut self, mut wanted: impl FnMut(&Finding) -> bool) {
        let mut left = Vec::new();
        for mut found in std::mem::take(&mut self.found) {
            let removed = match &found.orphan {
                Some(orphan) if wanted(&found.finding) => self.remove(orphan).await,
                _ => {
                    left.push(found);
                    continue;
                }
            };
            if let Err(why) = removed {
                found.finding.message = format!("{}; it was not removed: {why}", found.finding.message);
                left.push(found);
            }
        }
        self.found = left;
    }

    async fn remove(&self, orphan: &Orphan) -> Result<(), String> {
        match orphan {
            Orphan::Instance(instance) => self.remove_instance(instance).await,
            Orphan::Registration { scale_set, github, id, name, scale_set_id } => {
                self.not_known(scale_set, name).await?;
                let service = self.githubs.service(*github).ok_or("its GitHub is not known")?;
                match service.find_runner(name).await.map_err(|error| error.to_string())? {
                    None => Ok(()),
                    Some(found) if found.id == *id && found.scale_set_id == *scale_set_id => {
                        service.remove_runner(*id).await.map_err(|error| error.to_string())
                    }
                    Some(_) => Err("the name is another runner's now".to_owned()),
                }
            }
        }
    }

    /// Fails where there is an instance of a runner by now, or the status of its scale set tells of it.
    async fn not_known(&self, scale_set: &str, runner: &str) -> Result<(), String> {
        let (namespace, name) = scale_set.split_once('/').ok_or("whose it is cannot be told")?;
        let object = self.cluster.scale_set(namespace, name).await.map_err(|error| error.to_string())?;
        let status = object.and_then(|object| object.status).unwrap_or_default();
        let mut instances = self.providers.instances().into_iter().map(|found| found.instance.runner);
        let mut told = status.runners.into_iter().map(|told| told.name);
        match instances.any(|known| known == runner) || told.any(|known| known == runner) {
            true => Err("there is a runner of that name now".to_owned()),
            false => Ok(()),
        }
    }

    async fn remove_instance(&self, orphan: &OwnedInstance) -> Result<(), String> {
        let (namespace, name) = orphan.scale_set.split_once('/').ok_or("whose it is cannot be told")?;
        let object = self.cluster.scale_set(namespace, name).await.map_err(|error| error.to_string())?;
        if object.as_ref().is_some_and(|object| is_owner(object, orphan)) {
            return Err("its scale set is there again".to_owned());
        }
        let there = self.providers.instances().into_iter().find(|found| {
            found.host == orphan.host
                && found.instance.id == orphan.instance.id
                && found.instance.scale_set_uid == orphan.instance.scale_set_uid
        });
        let Some(there) = there else { return Ok(()) };
        if !there.instance.state.ended() {
            self.deregister(&there.instance.runner).await?;
        }
        self.providers.remove_orphan(&there).await.map_err(|error| error.to_string())
    }

    /// Removes the registration of a runner wherever there is one: GitHub refuses that of one that has a job.
    async fn deregister(&self, runner: &str) -> Result<(), String> {
        for service in self.githubs.services().filter(|_| !runner.is_empty()) {
            let known = service.find_runner(runner).await.map_err(|error| error.to_string())?;
            let Some(known) = known else { continue };
            match service.remove_runner(known.id).await {
                Ok(()) | Err(Error::RunnerGone) => {}
                Err(Error::RunnerBusy) => return Err("a job runs on it".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

fn is_owner(object: &RunnerScaleSet, orphan: &OwnedInstance) -> bool {
    object.metadata.uid.as_deref() == Some(orphan.instance.scale_set_uid.as_str())
}
