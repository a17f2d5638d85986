//! The manifests that come of a configuration, and how they are written: comments, then what differs from the defaults.

use serde::Deserialize;
use serde_json::Value;

use super::error::ConvertError;
use super::table::Table;
use crate::api::{
    Backend, Disruption, GitHub, RunnerScaleSet, RunnerScaleSetSpec, ScaleDown, SecretRef, Timeouts,
};

/// What a runner gets where the configuration does not limit it.
const DEFAULT_MAX_RUNNERS: i32 = 10;
/// GitHub's limit for the name of a scale set, by which ARC's chart goes too.
const LONGEST_NAME: usize = 45;

/// A scale set, and what is to be said of it.
pub(super) struct Manifest {
    pub(super) notes: Vec<String>,
    pub(super) set: RunnerScaleSet,
}

impl Manifest {
    /// A scale set with one backend and otherwise the defaults.
    pub(super) fn new(name: &Name, github: GitHub, backend: Backend) -> Manifest {
        let spec = RunnerScaleSetSpec {
            github,
            scale_set_name: (name.object != name.scale_set).then(|| name.scale_set.clone()),
            labels: Vec::new(),
            min_runners: 0,
            max_runners: DEFAULT_MAX_RUNNERS,
            schedules: Vec::new(),
            suspend: false,
            timeouts: Timeouts::default(),
            scale_down: ScaleDown::default(),
            disruption: Disruption::default(),
            backends: vec![backend],
        };
        let mut set = RunnerScaleSet::new(&name.object, spec);
        set.metadata.namespace.clone_from(&name.namespace);
        Manifest { notes: Vec::new(), set }
    }

    /// Sets the labels, each once, without the name, which is one anyway.
    pub(super) fn set_labels(&mut self, labels: Vec<String>) {
        self.set.spec.labels = labels;
        let labels = self.set.scale_set_labels().into_iter().skip(1).map(str::to_owned).collect();
        self.set.spec.labels = labels;
    }

    /// Reads the least and the most runners of two fields.
    pub(super) fn read_bounds(
        &mut self,
        table: &mut Table,
        min: &str,
        max: &str,
    ) -> Result<(), ConvertError> {
        let spec = &mut self.set.spec;
        spec.min_runners = table.number(min)?.unwrap_or(0);
        let most = table.number(max)?;
        spec.max_runners = most.unwrap_or(DEFAULT_MAX_RUNNERS.max(spec.min_runners));
        if spec.min_runners > spec.max_runners {
            let problem = format!("{} is more than the {} of {max}", spec.min_runners, spec.max_runners);
            return Err(table.error(min, problem + ": lower one or raise the other"));
        }
        Ok(())
    }
}

/// What a scale set is called.
pub(super) struct Name {
    pub(super) namespace: Option<String>,
    /// In Kubernetes.
    pub(super) object: String,
    /// At GitHub.
    pub(super) scale_set: String,
}

/// How the Secret with the credentials is made; `literals` are the options that fill it.
pub(super) fn secret_note(namespace: Option<&str>, secret: &str, literals: &str) -> String {
    let namespace = namespace.map(|name| format!("--namespace {name} ")).unwrap_or_default();
    format!("make this Secret first:\n  kubectl create secret generic {secret} {namespace}{literals}")
}

/// All that comes of one file.
#[derive(Default)]
pub(super) struct Manifests {
    /// What is to be said of the whole file.
    pub(super) notes: Vec<String>,
    pub(super) manifests: Vec<Manifest>,
}

impl Manifests {
    /// Names a scale set and its object: like it, as far as Kubernetes admits that and no other object is called so.
    pub(super) fn name(
        &self,
        table: &Table,
        key: &str,
        scale_set: String,
        namespace: Option<String>,
    ) -> Result<Name, ConvertError> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let good =
            scale_set.starts_with(|c: char| c.is_ascii_alphanumeric()) && scale_set.chars().all(is_name);
        if !good || scale_set.len() > LONGEST_NAME {
            return Err(table.error(
                key,
                format!("{scale_set:?} cannot name a scale set: write at most {LONGEST_NAME} letters, digits, dots, \
                         underscores and hyphens, a letter or digit first"),
            ));
        }
        let wanted = scale_set.to_ascii_lowercase().replace(['_', '.'], "-");
        let wanted = wanted.trim_end_matches('-');
        let is_taken = |name: &String| {
            let others = self.manifests.iter().map(|manifest| &manifest.set.metadata);
            others.into_iter().any(|other| other.name.as_ref() == Some(name) && other.namespace == namespace)
        };
        let mut object = wanted.to_owned();
        let mut number = 2;
        while is_taken(&object) {
            object = format!("{wanted}-{number}");
            number += 1;
        }
        Ok(Name { namespace, object, scale_set })
    }

    /// Writes all of it as YAML.
    pub(super) fn render(self) -> Result<String, ConvertError> {
        let mut yaml = String::new();
        self.notes.iter().for_each(|note| comment(&mut yaml, note));
        for (i, manifest) in self.manifests.iter().enumerate() {
            if i > 0 || !yaml.is_empty() {
                yaml.push_str("---\n");
            }
            manifest.notes.iter().for_each(|note| comment(&mut yaml, note));
            let mut value = serde_json::to_value(&manifest.set)?;
            leave_out_defaults(&mut value, "/spec", &manifest.set);
            yaml.push_str(&serde_saphyr::to_string(&value)?);
        }
        Ok(yaml)
    }
}

/// The URL of an organisation, repository or enterprise in a field.
pub(super) fn read_url(table: &mut Table, key: &str) -> Result<String, ConvertError> {
    let remedy = "write the URL of the organisation, repository or enterprise, like https://github.com/acme";
    let url = table.required_text(key, remedy)?;
    let path = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let is_path = |path: &str| !path.contains(['@', '?', '#']) && path.trim_matches('/').contains('/');
    if path.is_some_and(is_path) {
        Ok(url)
    } else {
        Err(table.error(key, format!("not such a URL: {remedy}")))
    }
}

/// Where at GitHub the runners belong.
pub(super) fn github(url: String, secret: &str) -> GitHub {
    GitHub {
        allow_insecure: url.starts_with("http://"),
        url,
        credentials_secret_ref: SecretRef { name: secret.into() },
        runner_group: "default".into(),
        ca_bundle_ref: None,
        proxy: None,
    }
}

/// A backend of no kind yet.
pub(super) fn backend(name: &str) -> Backend {
    Backend { name: name.into(), max_runners: None, docker: None, tart: None, ecs: None }
}

/// Appends a comment of one or more lines. A name from the file may not end it.
fn comment(yaml: &mut String, text: &str) {
    let printable = |c: char| if c.is_control() || "\u{2028}\u{2029}".contains(c) { ' ' } else { c };
    for line in text.split('\n') {
        yaml.push_str("# ");
        yaml.extend(line.chars().map(printable));
        yaml.push('\n');
    }
}

/// Removes each field below `path` that comes back as it was when the rest is read.
fn leave_out_defaults(manifest: &mut Value, path: &str, set: &RunnerScaleSet) {
    let keys: Vec<String> = match manifest.pointer(path) {
        Some(Value::Object(fields)) => fields.keys().cloned().collect(),
        Some(Value::Array(items)) => (0..items.len()).map(|i| i.to_string()).collect(),
        _ => return,
    };
    for key in keys {
        let fields = manifest.pointer_mut(path).and_then(Value::as_object_mut);
        if let Some(field) = fields.and_then(|fields| fields.remove(&key)) {
            if RunnerScaleSet::deserialize(&*manifest).is_ok_and(|read| read == *set) {
                continue;
            }
            if let Some(Value::Object(fields)) = manifest.pointer_mut(path) {
                fields.insert(key.clone(), field);
            }
        }
        leave_out_defaults(manifest, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), set);
    }
}
