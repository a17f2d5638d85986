//! A repository with scale sets, applied by kubectl as a job does that runs at each commit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use harness::{Lab, Manifest, PATIENCE, api_server, github, lab};
use serde_json::json;
use testkit::github::SimGithub;
use tokio::process::Command;

/// A clone with a folder of scale sets in it.
struct Repository(PathBuf);

impl Repository {
    /// One with these scale sets, committed.
    async fn new(lab: &Lab, sets: &[Manifest]) -> Repository {
        let repository = Repository(lab.folder().join("repository"));
        std::fs::create_dir_all(&repository.0).unwrap();
        repository.git(&["init", "--quiet"]).await;
        for set in sets {
            repository.write(set);
        }
        let names = sets.iter().map(Manifest::name);
        repository.list(lab, names);
        repository.commit("Declare the runners").await;
        repository
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn write(&self, set: &Manifest) {
        let text = serde_json::to_string_pretty(&set.0).unwrap();
        std::fs::write(self.0.join(format!("{}.json", set.name())), text).unwrap();
    }

    /// Has the folder consist of these scale sets.
    fn list<'a>(&self, lab: &Lab, names: impl Iterator<Item = &'a str>) {
        let resources: Vec<String> = names.map(|name| format!("{name}.json")).collect();
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "namespace": lab.namespace, "resources": resources,
            "labels": [{"pairs": {"app.kubernetes.io/part-of": "runners"}}],
        });
        std::fs::write(self.0.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    }

    /// Commits everything; what it changes.
    async fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]).await;
        let author = ["-c", "user.name=Test", "-c", "user.email=test@example.com"];
        self.git(&[&author as &[&str], &["commit", "--quiet", "--message", message]].concat()).await;
        self.git(&["show", "--format=", "--name-status", "--no-renames"]).await
    }

    async fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git").arg("-C").arg(&self.0).args(arguments).output().await.unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// How the folder is applied, and what kubectl then says of an object that it found.
struct Way {
    arguments: &'static [&'static str],
    says: &'static str,
}

const CLIENT_SIDE: Way = Way {
    arguments: &[
        "--prune",
        "--selector=app.kubernetes.io/part-of=runners",
        "--prune-allowlist=paddock.dev/v1alpha1/RunnerScaleSet",
    ],
    says: "unchanged",
};

const SERVER_SIDE: Way =
    Way { arguments: &["--server-side", "--prune", "--applyset=runners"], says: "serverside-applied" };

/// What kubectl prints, and how it ends.
async fn kubectl(lab: &Lab, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/bin/kubectl"))
        .arg("--kubeconfig")
        .arg(api_server::kubeconfig())
        .args(["--namespace", &lab.namespace])
        .args(arguments)
        .env("KUBECTL_APPLYSET", "true")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("rror"), "kubectl {arguments:?}: {said}");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

impl Way {
    /// Applies the folder; what kubectl says of each scale set.
    async fn apply(&self, lab: &Lab, repository: &Repository) -> BTreeMap<String, String> {
        let apply = ["apply", "--kustomize", repository.path()];
        let (_, said) = kubectl(lab, &[&apply as &[&str], self.arguments].concat()).await;
        let line = |line: &str| {
            let (object, what) = line.split_once(' ').unwrap();
            (object.split_once('/').unwrap().1.to_owned(), what.to_owned())
        };
        said.lines().map(line).collect()
    }
}

/// The scale sets that `kubectl diff` says an apply would change.
async fn differing(lab: &Lab, repository: &Repository) -> Vec<String> {
    let (code, said) = kubectl(lab, &["diff", "--kustomize", repository.path()]).await;
    let files = said.lines().filter(|line| line.starts_with("diff "));
    let names: Vec<String> = files.map(|line| line.rsplit_once('.').unwrap().1.to_owned()).collect();
    assert_eq!(code, Some(i32::from(!names.is_empty())), "{said}");
    names
}

/// The versions that the API server has of each scale set.
async fn versions(lab: &Lab) -> BTreeMap<String, (Option<i64>, Option<String>)> {
    let sets = lab.sets().list(&kube::api::ListParams::default()).await.unwrap();
    let version = |set: paddock::api::RunnerScaleSet| {
        (set.metadata.name.unwrap(), (set.metadata.generation, set.metadata.resource_version))
    };
    sets.into_iter().map(version).collect()
}

fn said(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned())).collect()
}

fn scale_sets(github: &SimGithub) -> Vec<String> {
    let mut names: Vec<String> = github.look(|s| s.scale_sets().map(|set| set.name.clone()).collect());
    names.sort();
    names
}

/// Three scale sets, a change of one by a commit, a removal by another; each is applied, and the last once more.
async fn commits_do_what_they_say(lab: &Lab, way: &Way, created: &str) {
    let github = github(lab).await;
    let sets =
        ["large", "linux", "small"].map(|name| Manifest::sample(&github.config_url("acme")).named(name));
    let repository = Repository::new(lab, &sets).await;
    let controller = lab.start();
    let all = said(&[("large", created), ("linux", created), ("small", created)]);
    assert_eq!(way.apply(lab, &repository).await, all);
    for set in &sets {
        lab.until_is(set.name(), "Ready", "True", None).await;
    }
    assert_eq!(scale_sets(&github), ["large", "linux", "small"]);

    repository.write(&sets[1].clone().spec(json!({"maxRunners": 3})));
    assert_eq!(repository.commit("Have fewer").await, "M\tlinux.json\n");
    assert_eq!(differing(lab, &repository).await, ["linux"]);
    let before = versions(lab).await;
    way.apply(lab, &repository).await;
    lab.until("linux", "the change is applied", |set| {
        set.spec.max_runners == 3
            && set.status.as_ref().unwrap().observed_generation == set.metadata.generation
    })
    .await;
    let after = versions(lab).await;
    for name in ["large", "small"] {
        assert_eq!(before[name].0, after[name].0, "the generation of {name}");
    }

    repository.git(&["rm", "--quiet", "small.json"]).await;
    repository.list(lab, ["large", "linux"].into_iter());
    assert_eq!(repository.commit("Have no small ones").await, "M\tkustomization.yaml\nD\tsmall.json\n");
    let pruned = said(&[("large", way.says), ("linux", way.says), ("small", "pruned")]);
    assert_eq!(way.apply(lab, &repository).await, pruned);
    lab.until_gone("small", PATIENCE).await;
    assert_eq!(scale_sets(&github), ["large", "linux"]);

    // Nothing but kubectl writes from here on.
    controller.terminate().await;
    let before = versions(lab).await;
    let again = said(&[("large", way.says), ("linux", way.says)]);
    assert_eq!(way.apply(lab, &repository).await, again);
    assert_eq!(versions(lab).await, before, "nothing is written where nothing changed");
    assert_eq!(differing(lab, &repository).await, Vec::<String>::new());
}

#[tokio::test]
async fn commits_that_are_applied_by_the_client_do_what_they_say() {
    lab("gitops-client", async |lab| commits_do_what_they_say(lab, &CLIENT_SIDE, "created").await).await;
}

#[tokio::test]
async fn commits_that_are_applied_by_the_server_do_what_they_say() {
    lab("gitops-server", async |lab| commits_do_what_they_say(lab, &SERVER_SIDE, SERVER_SIDE.says).await)
        .await;
}
