//! Tokens: personal, App, registration, admin. Each is really checked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::OnceLock;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::builder::Config;
use super::route::Scope;
use super::wire::Refusal;

/// Life of installation and registration tokens, as GitHub documents it.
const HOUR: Duration = Duration::from_hours(1);
/// The longest that GitHub lets an App JWT live, with a minute for clocks that disagree.
const APP_JWT_MAX_SECONDS: i64 = 660;

/// A private RSA key in PEM form (PKCS#8), made once per process, for tests of GitHub App credentials.
///
/// # Panics
///
/// When the system has no randomness.
pub fn app_private_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| {
        // Both fail only when the system's random source does.
        #[allow(clippy::expect_used)]
        let der: Pkcs8V1Der<'_> =
            KeyPair::generate(KeySize::Rsa2048).and_then(|key| key.as_der()).expect("an RSA key");
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> =
            (0..text.len()).step_by(64).map(|i| &text[i..text.len().min(i + 64)]).collect();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
    })
}

/// The key of a GitHub App is not one.
#[derive(Debug, thiserror::Error)]
#[error("not an RSA key in PEM form")]
pub struct KeyError(#[from] jsonwebtoken::errors::Error);

/// A GitHub App and its one installation.
#[derive(Clone)]
pub(super) struct App {
    issuer: String,
    installation_id: i64,
    key: DecodingKey,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl App {
    pub fn new(issuer: String, installation_id: i64, key_pem: &str) -> Result<Self, KeyError> {
        let key = if key_pem.contains("PRIVATE KEY") {
            let private = EncodingKey::from_rsa_pem(key_pem.as_bytes())?;
            DecodingKey::from_jwk(&Jwk::from_encoding_key(&private, Algorithm::RS256)?)?
        } else {
            DecodingKey::from_rsa_pem(key_pem.as_bytes())?
        };
        Ok(Self { issuer, installation_id, key })
    }

    /// The rules that GitHub documents: RS256, the right issuer, issued in the past, at most ten minutes of life.
    fn accepts(&self, jwt: &str) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Claims {
            iss: Value,
            iat: i64,
            exp: i64,
        }
        let mut rules = Validation::new(Algorithm::RS256);
        rules.leeway = 0;
        let claims =
            jsonwebtoken::decode::<Claims>(jwt, &self.key, &rules).map_err(|e| e.to_string())?.claims;
        let issuer = claims.iss.as_str().map_or_else(|| claims.iss.to_string(), str::to_owned);
        let now = Timestamp::now().as_second();
        if issuer != self.issuer {
            return Err("'Issuer' claim ('iss') must be the App's id".to_owned());
        }
        if claims.iat > now {
            return Err("'Issued at' claim ('iat') must be in the past".to_owned());
        }
        if claims.exp - claims.iat > APP_JWT_MAX_SECONDS {
            return Err("'Expiration time' claim ('exp') is too far in the future".to_owned());
        }
        Ok(())
    }
}

/// What an admin token says.
#[derive(Serialize, Deserialize)]
struct AdminClaims {
    iat: i64,
    exp: i64,
    jti: String,
    scope: Scope,
    generation: u64,
}

/// What REST may be asked for, by GitHub's names of an App's permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    OrganizationRunners,
    Administration,
    Actions,
}

impl Permission {
    /// What runners of a scope need. Of an enterprise's GitHub documents none.
    pub fn of_runners(scope: &Scope) -> Option<Permission> {
        match scope.as_str().split_once('/') {
            Some(("enterprises", _)) => None,
            Some(_) => Some(Permission::Administration),
            None => Some(Permission::OrganizationRunners),
        }
    }

    fn named(name: &str) -> Option<Permission> {
        match name {
            "organization_self_hosted_runners" => Some(Permission::OrganizationRunners),
            "administration" => Some(Permission::Administration),
            "actions" => Some(Permission::Actions),
            _ => None,
        }
    }
}

/// What a token of an installation is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Access {
    permissions: Option<BTreeMap<String, String>>,
    #[serde(rename = "repositories")]
    _repositories: Option<Vec<String>>,
}

/// A token of an installation that is out.
struct Installed {
    ends: Instant,
    /// What it may write; none: all that the App may.
    may_write: Option<Vec<Permission>>,
}

/// A registration token that is out.
struct Registration {
    scope: Scope,
    ends: Instant,
    /// How often it is refused yet for being too fresh.
    refusals: u32,
}

/// Every token that is out, and the means to check it.
pub(super) struct Tokens {
    personal: BTreeSet<String>,
    apps: Vec<App>,
    installation: HashMap<String, Installed>,
    registration: HashMap<String, Registration>,
    fresh_refusals: u32,
    /// No credential has the permission `actions`.
    without_actions: bool,
    admin_secret: String,
    admin_ttl: Duration,
    generation: u64,
}

impl Tokens {
    pub fn new(config: &Config) -> Self {
        Self {
            personal: config.tokens.iter().cloned().collect(),
            apps: config.apps.clone(),
            installation: HashMap::new(),
            registration: HashMap::new(),
            fresh_refusals: config.fresh_refusals,
            without_actions: false,
            admin_secret: random("secret_"),
            admin_ttl: config.admin_ttl,
            generation: 0,
        }
    }

    /// From now on these personal access tokens are accepted, and no other.
    pub fn replace_personal(&mut self, tokens: Vec<String>) {
        self.personal = tokens.into_iter().collect();
    }

    /// Voids every installation token; the next App exchange gives a fresh one.
    pub fn expire_installation(&mut self) {
        self.installation.clear();
    }

    /// From now on all credentials have the permission `actions`, or none has.
    pub fn permit_actions(&mut self, permitted: bool) {
        self.without_actions = !permitted;
    }

    pub fn expire_admin(&mut self) {
        self.generation += 1;
    }

    /// Opens a token with the access that was asked for: what the App was not granted is refused.
    pub fn open_installation(
        &mut self,
        installation_id: i64,
        jwt: Option<&str>,
        access: Access,
    ) -> Result<String, Refusal> {
        let jwt = jwt.ok_or_else(|| bad_credentials("A JSON web token could not be decoded"))?;
        let app = self
            .apps
            .iter()
            .find(|app| app.installation_id == installation_id)
            .ok_or_else(|| Refusal::rest(StatusCode::NOT_FOUND, "Not Found"))?;
        app.accepts(jwt).map_err(bad_credentials)?;
        let granted = |(name, level): (String, String)| {
            let permission = Permission::named(&name).filter(|_| level == "write");
            permission.filter(|permission| self.grants(*permission)).ok_or_else(|| {
                let message = "The permissions requested are not granted to this installation.";
                Refusal::rest(StatusCode::UNPROCESSABLE_ENTITY, message)
            })
        };
        let may_write = access.permissions.map(|all| all.into_iter().map(granted).collect()).transpose()?;
        let token = random("ghs_");
        self.installation.insert(token.clone(), Installed { ends: Instant::now() + HOUR, may_write });
        Ok(token)
    }

    fn grants(&self, permission: Permission) -> bool {
        !(self.without_actions && permission == Permission::Actions)
    }

    /// Checks the bearer of a REST call, a personal access token or an installation token, and that it may write that.
    pub fn check_rest(&self, bearer: Option<&str>, needed: Option<Permission>) -> Result<(), Refusal> {
        let token = bearer.ok_or_else(|| bad_credentials("Requires authentication"))?;
        let installed = self.installation.get(token).filter(|installed| installed.ends > Instant::now());
        if installed.is_none() && !self.personal.contains(token) {
            return Err(bad_credentials("Bad credentials"));
        }
        let may_write = installed.and_then(|installed| installed.may_write.as_ref());
        let may = |needed| self.grants(needed) && may_write.is_none_or(|all| all.contains(&needed));
        match needed.is_none_or(may) {
            true => Ok(()),
            false => Err(Refusal::rest(StatusCode::FORBIDDEN, "Resource not accessible by integration")),
        }
    }

    pub fn open_registration(&mut self, bearer: Option<&str>, scope: &Scope) -> Result<String, Refusal> {
        self.check_rest(bearer, Permission::of_runners(scope))?;
        let token = random("A");
        let registration =
            Registration { scope: scope.clone(), ends: Instant::now() + HOUR, refusals: self.fresh_refusals };
        self.registration.insert(token.clone(), registration);
        Ok(token)
    }

    pub fn open_admin(&mut self, registration: Option<&str>, scope: &Scope) -> Result<String, Refusal> {
        let known = registration.and_then(|token| self.registration.get_mut(token));
        let known = known.filter(|known| known.ends > Instant::now());
        let known = known.ok_or_else(|| bad_credentials("Bad credentials"))?;
        if known.scope != *scope {
            return Err(Refusal::rest(StatusCode::NOT_FOUND, "Not Found"));
        }
        if known.refusals > 0 {
            known.refusals -= 1;
            let status = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN][known.refusals as usize % 2];
            return Err(Refusal::rest(status, "The registration token is not valid yet"));
        }
        self.admin_token(scope)
    }

    fn admin_token(&self, scope: &Scope) -> Result<String, Refusal> {
        let now = Timestamp::now().as_second();
        let claims = AdminClaims {
            iat: now,
            exp: now + i64::try_from(self.admin_ttl.as_secs()).unwrap_or(i64::MAX / 2),
            jti: Uuid::new_v4().to_string(),
            scope: scope.clone(),
            generation: self.generation,
        };
        let key = EncodingKey::from_secret(self.admin_secret.as_bytes());
        jsonwebtoken::encode(&Header::default(), &claims, &key)
            .map_err(|e| Refusal::rest(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
    }

    /// Checks the bearer of a service call; gives the scope that it may touch.
    pub fn check_admin(&self, bearer: Option<&str>) -> Result<Scope, Refusal> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.leeway = 0;
        let key = DecodingKey::from_secret(self.admin_secret.as_bytes());
        bearer
            .and_then(|token| jsonwebtoken::decode::<AdminClaims>(token, &key, &rules).ok())
            .map(|data| data.claims)
            .filter(|claims| claims.generation == self.generation)
            .map(|claims| claims.scope)
            .ok_or_else(Refusal::unauthorized)
    }
}

/// A secret that says what it is by its beginning, as GitHub's tokens do.
pub(super) fn random(prefix: &str) -> String {
    format!("{prefix}{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn bad_credentials(message: impl Into<String>) -> Refusal {
    Refusal::rest(StatusCode::UNAUTHORIZED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> App {
        App::new("42".to_owned(), 7, app_private_key()).expect("a key")
    }

    fn jwt(issuer: &Value, issued_at: i64, life: i64) -> String {
        let now = Timestamp::now().as_second();
        let claims =
            serde_json::json!({ "iss": issuer, "iat": now + issued_at, "exp": now + issued_at + life });
        let key = EncodingKey::from_rsa_pem(app_private_key().as_bytes()).expect("a key");
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).expect("a token")
    }

    #[test]
    fn an_app_signs_with_its_own_key_for_a_short_time() {
        let (app, id) = (app(), Value::from("42"));
        assert_eq!(app.accepts(&jwt(&id, -60, 540)), Ok(()));
        assert_eq!(app.accepts(&jwt(&Value::from(42), -60, 540)), Ok(()), "an app id may be a number");
        assert!(app.accepts(&jwt(&Value::from("43"), -60, 540)).is_err(), "another issuer");
        assert!(app.accepts(&jwt(&id, -60, 3600)).is_err(), "too long a life");
        assert!(app.accepts(&jwt(&id, 60, 540)).is_err(), "issued in the future");
        assert!(app.accepts(&jwt(&id, -600, 540)).is_err(), "expired");
        let mut forged = jwt(&id, -60, 540);
        forged.replace_range(forged.len() - 8..forged.len() - 4, "AAAA");
        assert!(app.accepts(&forged).is_err(), "a bad signature");
    }

    #[test]
    fn each_token_opens_only_its_own_door() {
        let builder = crate::github::SimGithub::builder().token("ghp_a").app("42", 7, app_private_key());
        let mut tokens = Tokens::new(builder.expect("a key").config());
        let (acme, other) = (scope("acme"), scope("other"));
        assert!(tokens.open_registration(Some("ghp_b"), &acme).is_err());
        let signed = jwt(&Value::from("42"), -60, 540);
        assert!(tokens.open_installation(8, Some(&signed), Access::default()).is_err());
        let installed = tokens.open_installation(7, Some(&signed), Access::default()).expect("installed");
        let registration = tokens.open_registration(Some(&installed), &acme).expect("registered");
        assert!(tokens.open_admin(Some(&installed), &acme).is_err());
        assert!(tokens.open_admin(Some(&registration), &other).is_err());
        let admin = tokens.open_admin(Some(&registration), &acme).expect("an admin token");
        assert_eq!(tokens.check_admin(Some(&admin)).expect("accepted"), acme);
        assert!(tokens.check_admin(Some(&registration)).is_err());
        tokens.expire_admin();
        assert!(tokens.check_admin(Some(&admin)).is_err());
        tokens.expire_installation();
        assert!(tokens.check_rest(Some(&installed), None).is_err());
        assert!(tokens.check_rest(Some("ghp_a"), None).is_ok());
    }

    #[test]
    fn a_token_of_an_app_may_do_what_it_was_asked_for_and_no_more() {
        let builder = crate::github::SimGithub::builder().app("42", 7, app_private_key());
        let mut tokens = Tokens::new(builder.expect("a key").config());
        let mut open = |body: Value| {
            let access = serde_json::from_value(body).expect("a body");
            tokens.open_installation(7, Some(&jwt(&Value::from("42"), -60, 540)), access)
        };
        assert!(open(serde_json::json!({"permissions": {"sleep": "write"}})).is_err());
        let narrow = open(serde_json::json!({"permissions": {"administration": "write"}})).expect("opened");
        let wide = open(serde_json::json!({})).expect("opened");
        assert!(tokens.open_registration(Some(&narrow), &scope("acme")).is_err());
        assert!(tokens.open_registration(Some(&narrow), &scope("acme/app")).is_ok());
        assert!(tokens.check_rest(Some(&narrow), Some(Permission::Actions)).is_err());
        assert!(tokens.check_rest(Some(&wide), Some(Permission::Actions)).is_ok());
    }

    fn scope(path: &str) -> Scope {
        Scope::from_path(path).expect("a scope")
    }
}
