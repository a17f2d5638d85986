//! Manifests: the sample of `deploy/`, made to fit the tests.

use serde_json::{Value, json};

/// The tests' runner image.
pub const IMAGE: &str = "paddock.test/runner:1";

/// A manifest of a RunnerScaleSet.
#[derive(Clone)]
pub struct Manifest(pub Value);

impl Manifest {
    /// `deploy/samples/docker.yaml`, pointed at a GitHub of the tests and at their runner image. The machine's own engine is left as
    /// it is: no housekeeping.
    pub fn sample(github_url: &str) -> Manifest {
        let sample = include_str!("../../../deploy/samples/docker.yaml");
        Manifest(serde_saphyr::from_str(sample).unwrap())
            .spec(json!({"github": {"url": github_url, "allowInsecure": true}}))
            .docker(json!({"image": IMAGE, "network": "host", "housekeeping": {
                "buildx": {"enabled": false}, "images": {"enabled": false},
                "buildCache": {"enabled": false}, "diskGuard": {"enabled": false},
            }}))
    }

    /// Another name.
    pub fn named(self, name: &str) -> Manifest {
        Manifest(merged(self.0, json!({"metadata": {"name": name}})))
    }

    /// Merged into the spec.
    pub fn spec(self, changes: Value) -> Manifest {
        Manifest(merged(self.0, json!({"spec": changes})))
    }

    /// Merged into the spec of the Docker backend.
    pub fn docker(mut self, changes: Value) -> Manifest {
        let docker = &mut self.0["spec"]["backends"][0]["docker"];
        *docker = merged(docker.take(), changes);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap()
    }
}

/// A JSON merge patch (RFC 7386).
pub fn merged(target: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else {
        return changes;
    };
    let mut object = target.as_object().cloned().unwrap_or_default();
    for (key, change) in changes {
        let value = object.remove(&key).unwrap_or_default();
        if !change.is_null() {
            object.insert(key, merged(value, change));
        }
    }
    object.into()
}
