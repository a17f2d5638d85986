//! The file with the policy: what is wrong with it at the start ends the program, and later changes nothing.

use std::fs;
use std::os::unix::fs::symlink;

use harness::{Manifest, PATIENCE, PERMISSIVE, eventually, github, lab};
use serde_json::json;

#[tokio::test]
async fn a_program_without_its_policy_does_not_start_and_says_why() {
    lab("no-policy", async |lab| {
        let missing = lab.folder().join("policy.yaml");
        for (policy, words) in [
            (Some("rules:\n- hostsocket: true\n"), &["hostsocket", "line 2"] as &[&str]),
            (Some("rules: 7\n"), &["line 1"]),
            (None, &["No such file"]),
        ] {
            match policy {
                Some(policy) => lab.policy(policy),
                None => fs::remove_file(&missing).unwrap(),
            }
            let mut controller = lab.start();
            assert_eq!(controller.ended().await.code(), Some(1));
            let log = controller.log();
            let said: Vec<&str> = log.lines().filter(|line| line.starts_with("paddock: ")).collect();
            assert!(said.len() == 1 && said[0].contains(missing.to_str().unwrap()), "{log}");
            assert!(words.iter().all(|word| said[0].contains(word)), "{said:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_becomes_unusable_leaves_the_last_good_one_in_force() {
    lab("broken-policy", async |lab| {
        let github = github(lab).await;
        // As a volume of a ConfigMap does it: the file is a link to a folder that is a link.
        let (folder, file) = (lab.folder().to_owned(), lab.folder().join("policy.yaml"));
        let put = |version: &str, policy: Option<&str>| {
            fs::create_dir(folder.join(version)).unwrap();
            policy.iter().for_each(|p| fs::write(folder.join(version).join("policy.yaml"), p).unwrap());
            let link = folder.join("..data.new");
            symlink(version, &link).unwrap();
            fs::rename(link, folder.join("..data")).unwrap();
        };
        put("..1", Some(PERMISSIVE));
        fs::remove_file(&file).unwrap();
        symlink("..data/policy.yaml", &file).unwrap();
        let controller = lab.start();
        lab.apply(&Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1}))).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        let valid = async |wanted: usize| {
            eventually(&format!("paddock_policy_valid is {wanted}"), PATIENCE, async || {
                (controller.count("paddock_policy_valid").await == wanted).then_some(())
            })
            .await;
        };
        valid(1).await;
        let told = || controller.log().matches("as it was before stays in force").count();
        for (number, (version, broken)) in
            [("..2", Some("rules: [{networks: 7}]")), ("..3", None), ("..4", Some("rules: ["))]
                .into_iter()
                .enumerate()
        {
            put(version, broken);
            eventually("the error is logged", PATIENCE, async || (told() == number + 1).then_some(())).await;
            valid(0).await;
        }
        assert_eq!(told(), 3, "once for each change");
        let name = Manifest::sample(&github.config_url("acme")).named("other").spec(json!({"minRunners": 1}));
        lab.apply(&name).await;
        lab.until_phases("other", (0, 1, 0)).await;
        put("..5", Some("rules: []"));
        valid(1).await;
        lab.until_is("other", "Stalled", "True", Some("NotPermitted")).await;
        lab.until_phases("linux", (0, 0, 0)).await;
    })
    .await;
}
