//! Housekeeping of a Docker host as its users see it: events, status, metrics; and what becomes of the shared volume.

use std::process::Command;

use harness::{Engine, Lab, Manifest, PATIENCE, eventually, github, lab};
use serde_json::json;

/// What the command line of an engine prints.
fn docker(engine: &Engine, args: &[&str]) -> String {
    let output = Command::new("docker").arg("--host").arg(engine.endpoint()).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The shared volumes of the scale set `linux`.
fn volumes(lab: &Lab, engine: &Engine) -> String {
    let filter = format!("label=paddock.dev/scale-set={}/linux", lab.namespace);
    docker(engine, &["volume", "ls", "--quiet", "--filter", &filter])
}

#[tokio::test]
async fn what_was_freed_is_told_and_the_shared_volume_goes_with_its_object() {
    lab("clean", async |lab| {
        let github = github(lab).await;
        let engine = Engine::start("clean-host", github.address()).await;
        let archive = lab.folder().join("image.tar");
        let tar = ["-C", "/etc", "-cf", archive.to_str().unwrap(), "hostname"];
        assert!(Command::new("tar").args(tar).status().unwrap().success());
        let image = docker(&engine, &["import", archive.to_str().unwrap()]);
        let controller = lab.start();
        let manifest =
            Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1})).docker(json!({
                "hosts": [{"name": "rack", "endpoint": engine.endpoint()}],
                "sharedVolume": {"mountPath": "/shared"},
                "housekeeping": {"interval": "1s", "images": {"enabled": true}},
            }));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        let note = lab.event("linux", "SpaceFreed").await;
        assert!(note.contains("/rack: housekeeping freed") && note.contains("dangling images"), "{note}");
        let left = docker(&engine, &["image", "ls", "--all", "--quiet", "--no-trunc"]);
        assert!(!left.contains(&image), "{left}");
        lab.until("linux", "its status tells it", |set| {
            let backend = &set.status.as_ref().unwrap().backends[0];
            backend.hosts[0].message.contains("housekeeping freed") && backend.message.is_empty()
        })
        .await;
        let series = "paddock_housekeeping_freed_bytes_total";
        eventually("metrics count it", PATIENCE, async || {
            let (_, metrics) = controller.get("/metrics").await;
            metrics.lines().any(|line| line.starts_with(series) && line.contains("images")).then_some(())
        })
        .await;
        let volume = volumes(lab, &engine);
        assert!(volume.starts_with(&format!("paddock-{}.linux-", lab.namespace)), "{volume}");

        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(volumes(lab, &engine), "");
        lab.event("linux", "Deleted").await;
    })
    .await;
}
