//! JIT configurations: base64 of a JSON object of three base64 files, like the true ones, with this GitHub's address
//! and the runner's secret in them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use serde_json::{Value, json};

use super::route::Scope;
use super::state::Runner;

pub(super) struct Contents<'a> {
    pub runner: &'a Runner,
    pub secret: &'a str,
    pub scope: &'a Scope,
    pub work_folder: &'a str,
    pub public_url: &'a str,
    pub runner_url: &'a str,
    pub small: bool,
}

pub(super) fn encode(contents: &Contents<'_>) -> String {
    let runner = contents.runner;
    let settings = json!({
        "AgentId": runner.id.to_string(),
        "AgentName": runner.name,
        "PoolId": "1",
        "PoolName": "Default",
        "DisableUpdate": "True",
        "Ephemeral": "True",
        "ServerUrl": contents.runner_url,
        "ServerUrlV2": format!("{}/actions-runner/broker/", contents.runner_url),
        "UseV2Flow": "True",
        "GitHubUrl": format!("{}/{}", contents.public_url, contents.scope.as_str()),
        "WorkFolder": contents.work_folder,
    });
    let credentials = json!({
        "Scheme": "OAuth",
        "Data": {
            "ClientId": uuid::Uuid::new_v4().to_string(),
            "AuthorizationUrl": format!("{}/_apis/oauth2/token", contents.runner_url),
            "AuthorizationUrlV2": format!("{}/login/oauth/runner/access_token", contents.runner_url),
            "RequireFipsCryptography": "True",
            "Token": contents.secret,
        },
    });
    let mut files = json!({
        ".runner": STANDARD.encode(settings.to_string()),
        ".credentials": STANDARD.encode(credentials.to_string()),
    });
    if !contents.small {
        files[".credentials_rsaparams"] = json!(STANDARD.encode(rsa_parameters().to_string()));
    }
    STANDARD.encode(files.to_string())
}

/// The parts of a 2048-bit key, in size only: nothing here checks a signature of the runner.
fn rsa_parameters() -> Value {
    let part = |size: usize| {
        let mut bytes = vec![0; size];
        rand::rng().fill_bytes(&mut bytes);
        STANDARD.encode(bytes)
    };
    json!({
        "d": part(256), "dp": part(128), "dq": part(128), "exponent": "AQAB",
        "inverseQ": part(128), "modulus": part(256), "p": part(128), "q": part(128),
    })
}

/// Why a text is no JIT configuration of this GitHub.
#[derive(Debug, thiserror::Error)]
#[error("not a JIT configuration: {0}")]
pub struct JitError(&'static str);

/// The runner's secret in a JIT configuration.
pub(super) fn secret(encoded: &str) -> Result<String, JitError> {
    let decode = |text: &str| {
        let bytes = STANDARD.decode(text).map_err(|_| JitError("not base64"))?;
        serde_json::from_slice::<Value>(&bytes).map_err(|_| JitError("not JSON"))
    };
    let files = decode(encoded)?;
    let credentials = decode(files[".credentials"].as_str().ok_or(JitError("no .credentials"))?)?;
    let token = credentials["Data"]["Token"].as_str().ok_or(JitError("no token"))?;
    Ok(token.to_owned())
}
