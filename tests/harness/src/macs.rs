//! Simulated Macs for a lab: the stand-in for Tart behind a real sshd each, with the fake runner in their image.

use serde_json::{Value, json};
use testkit::tart::{IMAGE, Mac, Scenario};

use crate::{Lab, Manifest, merged, stand_ins};

impl Lab {
    /// So many Macs, and the Secret of each, `mac-1-ssh` and so on.
    pub async fn macs(&self, count: usize, change: impl Fn(&mut Scenario)) -> Vec<Mac> {
        let tart = stand_ins::tart().await;
        let mut macs = Vec::new();
        for number in 1..=count {
            let builder = Mac::builder().tart(&tart).scenario(|s| s.exec_patience /= 5).scenario(&change);
            let mac = builder.start().await.unwrap();
            self.mac_secret(number, &mac).await;
            macs.push(mac);
        }
        macs
    }

    /// Writes the Secret with which a Mac is logged in to.
    pub async fn mac_secret(&self, number: usize, mac: &Mac) {
        let (key, known) = (mac.private_key().unwrap(), mac.known_hosts().unwrap());
        let data = [("ssh-privatekey", key.as_str()), ("known_hosts", known.as_str())];
        self.secret(&format!("mac-{number}-ssh"), data).await;
    }
}

impl Manifest {
    /// `deploy/samples/tart.yaml`, pointed at a GitHub of the tests and at these Macs, without a warm pool.
    pub fn tart(github_url: &str, macs: &[Mac]) -> Manifest {
        let sample = include_str!("../../../deploy/samples/tart.yaml");
        let host = |(number, mac): (usize, &Mac)| {
            let name = format!("mac-{}", number + 1);
            json!({
                "name": name, "endpoint": mac.endpoint(), "maxVms": 2,
                "sshSecretRef": {"name": format!("{name}-ssh")},
            })
        };
        let hosts: Vec<Value> = macs.iter().enumerate().map(host).collect();
        Manifest(serde_saphyr::from_str(sample).unwrap())
            .spec(json!({"github": {"url": github_url, "allowInsecure": true}, "maxRunners": 20}))
            .of_tart(json!({
                "image": IMAGE, "hosts": hosts, "warmPool": {"size": 0}, "cpu": null, "memory": null,
            }))
    }

    /// Merged into the spec of the Tart backend.
    pub fn of_tart(mut self, changes: Value) -> Manifest {
        let tart = &mut self.0["spec"]["backends"][0]["tart"];
        *tart = merged(tart.take(), changes);
        self
    }
}
