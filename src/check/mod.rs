//! `paddock check`: judges manifests as the API server and the controller would, before anything is applied; and on request
//! tries what they name, as the controller would, without changing anything at GitHub.

mod connect;
mod files;
mod line;
mod references;
mod sources;

use std::path::PathBuf;

use serde_json::Value;

pub use line::Check;

use crate::api::{Explanation, OperatorPolicy, RunnerScaleSet, is_scale_set, validate};
use crate::backend::{self, Providers, Requeuer};
use crate::controller::{Cluster, InputError, enforced, judge, read_backend, read_client};
use crate::plan::Policy;
use crate::scale_set::Claim;
use connect::Trial;
use files::Document;
use line::Report;
use references::Reference;
use sources::{Found, Sources};

/// How manifests are judged.
pub struct Options<'a> {
    /// What tenants may do.
    pub policy: OperatorPolicy,
    /// The namespace of those objects that name none.
    pub namespace: String,
    /// Where else Secrets are, and all that the manifests name is tried; none: nothing is, and only the files are read.
    pub cluster: Option<&'a Cluster>,
    /// The id of that cluster, where it is not to be asked for it.
    pub cluster_id: Option<String>,
}

/// Judges the manifests of files; a folder stands for the files in it, and a dash for standard input. `progress` is told what
/// is waited for.
pub async fn check(paths: &[PathBuf], options: &Options<'_>, progress: &(dyn Fn(&str) + Sync)) -> Vec<Check> {
    let (documents, mut checks) = files::read(paths);
    let sources = Sources::new(&documents, &options.namespace, options.cluster);
    let id = match (&options.cluster_id, options.cluster) {
        (None, Some(cluster)) => cluster.id().await.unwrap_or_else(|error| {
            let mut report = Report { file: "", object: String::new(), checks: &mut checks };
            report.tell(false, "", format!("{error}; where that may not be read, --cluster-id gives it"));
            String::new()
        }),
        (id, _) => id.clone().unwrap_or_default(),
    };
    let judge = Judge {
        options,
        sources,
        providers: backend::providers(&id, &Requeuer::new(|_| {})),
        cluster_id: id,
        progress,
    };
    let mut claims = Vec::new();
    for Document { file, manifest } in &documents {
        let object = files::name_of(manifest);
        let mut report = Report { file, object, checks: &mut checks };
        judge.document(manifest, &mut claims, &mut report).await;
    }
    checks
}

/// What all manifests are judged with.
struct Judge<'a> {
    options: &'a Options<'a>,
    sources: Sources<'a>,
    providers: Providers,
    cluster_id: String,
    progress: &'a (dyn Fn(&str) + Sync),
}

impl Judge<'_> {
    async fn document(&self, manifest: &Value, claims: &mut Vec<(Claim, String)>, report: &mut Report<'_>) {
        if !is_scale_set(manifest) {
            let used = sources::is_source(manifest);
            let said = if used { "used where a scale set refers to it" } else { "passed over" };
            return report.tell(true, "", said);
        }
        let mut object = match validate(manifest) {
            Ok(object) => object,
            Err(invalid) => {
                return invalid.into_iter().for_each(|field| report.tell(false, field.field, field.message));
            }
        };
        report.tell(true, "", "the schema and its rules admit it");
        object.metadata.namespace.get_or_insert_with(|| self.options.namespace.clone());
        self.claim(&object, claims, report);
        if let Err(why) = judge(&object, &self.options.policy, &self.providers) {
            // What is not permitted is not connected to either.
            return why.message.split("; ").for_each(|why| report.refuse(why));
        }
        report.tell(true, "", "the operator's policy permits it");
        let object = enforced(&object, &self.options.policy);
        self.references(&object, manifest, report).await;
        self.inputs(&object, report).await;
        if let Some(cluster) = self.options.cluster {
            let Judge { sources, providers, cluster_id, progress, .. } = self;
            Trial { sources, providers, cluster, cluster_id, progress }.connect(&object, report).await;
        }
    }

    /// Two manifests may not name one scale set at GitHub.
    fn claim(&self, object: &RunnerScaleSet, claims: &mut Vec<(Claim, String)>, report: &mut Report<'_>) {
        let claim = Claim::of(object);
        let known = claims.iter().find(|(other, _)| *other == claim).map(|(_, name)| name.clone());
        match known {
            Some(name) => report.tell(
                false,
                "spec.scaleSetName",
                format!(
                    "{name} names the same scale set at GitHub: the younger of the two would wait for ever"
                ),
            ),
            None => claims.push((claim, report.object.clone())),
        }
    }

    /// A line for each Secret and ConfigMap that is named.
    async fn references(&self, object: &RunnerScaleSet, manifest: &Value, report: &mut Report<'_>) {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        for Reference { field, kind, name } in references::of(&manifest["spec"], "spec") {
            let what = format!("{kind} `{name}`");
            match self.sources.find(kind, namespace, &name).await {
                Ok(Found::InFile(_)) => report.tell(true, field, format!("{what} is among the files")),
                Ok(Found::InCluster(_)) => report.tell(true, field, format!("{what} is in the cluster")),
                Ok(Found::NotLookedAt) => {
                    let said = "is not among the files and was not looked at: --connect does";
                    report.tell(true, field, format!("{what} {said}"));
                }
                Ok(Found::Nowhere) => report.tell(false, field, format!("{what} does not exist")),
                Err(error) => report.tell(false, field, error.to_string()),
            }
        }
    }

    /// Reads all that the controller would read of a spec.
    async fn inputs(&self, object: &RunnerScaleSet, report: &mut Report<'_>) {
        let before = report.checks.len();
        if let Err(why) = Policy::from_spec(&object.spec) {
            report.refuse(&why.message);
        }
        if let Err(InputError::Unusable(Explanation { message, .. })) =
            read_client(&self.sources, object, &|_| {}).await
        {
            report.refuse(&message);
        }
        for backend in &object.spec.backends {
            match read_backend(&self.sources, &self.providers, object, backend).await {
                Ok(resolved) => resolved.unusable_logins().iter().for_each(|why| report.refuse(why)),
                Err(InputError::Unusable(Explanation { message, .. })) => report.refuse(&message),
                // What is missing has a line of its own.
                Err(_) => {}
            }
        }
        if report.checks.len() == before {
            report.tell(true, "", "the controller can work with it");
        }
    }
}
