//! The way to the admin token: App key or token, registration token, admin connection. Done once for all who share a client.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use jiff::Timestamp;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::classify::CallKind;
use super::fields::{NAME, Read, cut, object};
use super::limit::RateLimit;
use super::transport::{self, Reply};
use super::url::ConfigUrl;
use super::wire::{self, Token, WireListedRunner, WireRunnerPage};
use super::{Credentials, Error};
use crate::time::Plus;

/// The admin token is renewed this long before it expires (GitHub's own client does so).
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// ... but not sooner than this after it was got: with a clock that is ahead of GitHub's every call would renew it.
const RENEW_AFTER: Duration = Duration::from_secs(30);
/// A refusal is answered from memory for this long, so that the sets which share a credential do not all repeat it.
const REMEMBER_REFUSAL: Duration = Duration::from_secs(1);
/// An App's JWT is dated back by a minute, against clocks that disagree, and lives nine of the ten minutes allowed.
const JWT_LEEWAY: i64 = 60;
const JWT_LIFE: i64 = 9 * 60;
/// A fresh registration token may be refused for a while (ARC 3377, 3724): it gets as many further tries, each after
/// twice the pause before, as GitHub's own client gives it.
const REGISTRATION_RETRIES: usize = 4;

/// Runners on a page of REST's listing: its maximum.
const PAGE: usize = 100;
/// Pages that are read at most: more runners than GitHub lets one group have.
const MOST_PAGES: usize = 100;

/// What opens the scale-set service, and where that is.
pub(super) struct AdminToken {
    pub service: Url,
    pub token: String,
    renew_at: Instant,
}

/// Gets, keeps and renews the admin token.
pub(super) struct Auth {
    pool: reqwest::Client,
    config: ConfigUrl,
    credentials: Credentials,
    /// The App's key, read once.
    key: Option<EncodingKey>,
    /// How long one request may take: a third of a call.
    attempt: Duration,
    /// What GitHub said of the rate, to whoever uses this credential.
    limit: RateLimit,
    /// Held over a renewal, so that there is one at a time.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<AdminToken>>,
    refusal: Option<(Instant, Error)>,
}

impl Auth {
    /// # Errors
    /// [`Error::Config`] for a private key that is none.
    pub fn new(
        pool: reqwest::Client,
        config: ConfigUrl,
        credentials: Credentials,
        attempt: Duration,
    ) -> Result<Self, Error> {
        let key = match &credentials {
            Credentials::App { private_key, .. } => Some(
                EncodingKey::from_rsa_pem(private_key.as_bytes())
                    .map_err(|_| Error::Config("the App's private key is not an RSA key in PEM".into()))?,
            ),
            Credentials::Token(_) => None,
        };
        Ok(Auth {
            pool,
            config,
            credentials,
            key,
            attempt,
            limit: RateLimit::default(),
            state: Mutex::default(),
        })
    }

    /// The rate limit of this credential.
    pub fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// The admin token; a new one if there is none or it is about to expire.
    pub async fn admin(&self) -> Result<Arc<AdminToken>, Error> {
        let mut state = self.state.lock().await;
        if let Some(token) = state.token.as_ref().filter(|t| Instant::now() < t.renew_at) {
            return Ok(Arc::clone(token));
        }
        if let Some(error) = state.refused() {
            return Err(error);
        }
        let connected = self.connect().await;
        match &connected {
            Ok(token) => *state = State { token: Some(Arc::clone(token)), refusal: None },
            Err(error) => state.remember(error),
        }
        connected
    }

    /// Another token than `refused`, which the service did not accept.
    pub async fn renew(&self, refused: &Arc<AdminToken>) -> Result<Arc<AdminToken>, Error> {
        self.state.lock().await.token.take_if(|token| Arc::ptr_eq(token, refused));
        self.admin().await
    }

    /// What REST is asked for runners with.
    async fn runners_credential(&self) -> Result<String, Error> {
        let permission = self.config.runner_permission();
        self.credential(permission.map(|name| json!({"permissions": {name: "write"}}))).await
    }

    /// What REST is asked with: the token itself, or a fresh one of the App's installation, which may do what `access` says and
    /// nothing else.
    async fn credential(&self, access: Option<Value>) -> Result<String, Error> {
        match (&self.credentials, &self.key) {
            (Credentials::App { app_id, installation_id, .. }, Some(key)) => {
                let url = self.config.rest(&[
                    "app",
                    "installations",
                    &installation_id.to_string(),
                    "access_tokens",
                ]);
                self.token(url, &app_jwt(app_id, key)?, access, "the App's token").await
            }
            (Credentials::Token(token), _) => Ok(token.clone()),
            (Credentials::App { .. }, None) => Err(Error::Config("the App has no private key".into())),
        }
    }

    /// All runners that the credential may see, busy and idle, of whatever scale set: page by page, and each page
    /// counts against the rate limit.
    pub async fn list_runners(&self) -> Result<Vec<WireListedRunner>, Error> {
        let credential = self.runners_credential().await?;
        let mut all = Vec::new();
        for page in 1..=MOST_PAGES {
            let mut url = self.config.runners(&[]);
            url.query_pairs_mut()
                .append_pair("per_page", &PAGE.to_string())
                .append_pair("page", &page.to_string());
            let reply =
                self.ask(Method::GET, url, ("Bearer", &credential), None).await?.success(CallKind::Auth);
            let reply = self.limit.noted(reply)?;
            let found: WireRunnerPage = wire::decode(&reply.body, "the list of all runners")?;
            let last = found.runners.len() < PAGE;
            all.extend(found.runners);
            if last {
                break;
            }
        }
        Ok(all)
    }

    /// Has the jobs of a workflow run that did not succeed run again. A repository that the credential may not see is
    /// answered as one that it may not change.
    pub async fn rerun_failed_jobs(&self, repository: &str, run_id: i64) -> Result<(), Error> {
        let unnamed = || Error::Config(format!("{:?} is no repository", cut(repository, NAME)));
        let (owner, name) = repository
            .split_once('/')
            .filter(|(owner, name)| is_name(owner) && is_name(name))
            .ok_or_else(unnamed)?;
        let run_id = run_id.to_string();
        let url = self.config.rest(&["repos", owner, name, "actions", "runs", &run_id, "rerun-failed-jobs"]);
        let access = json!({"permissions": {"actions": "write"}, "repositories": [name]});
        let credential = self.credential(Some(access)).await.map_err(|error| match error {
            Error::AuthRejected(text) => Error::Forbidden(text),
            error => error,
        })?;
        let reply = self.ask(Method::POST, url, ("Bearer", &credential), None).await?;
        self.limit.noted(reply.success(CallKind::Rerun)).map(drop)
    }

    async fn connect(&self) -> Result<Arc<AdminToken>, Error> {
        let credential = self.runners_credential().await?;
        let url = self.config.registration_token();
        let registration = self.token(url, &credential, None, "the registration token").await?;
        (|| self.register(&registration))
            .retry(registration_pauses(self.attempt))
            .when(|e| matches!(e, Error::AuthRejected(_) | Error::Forbidden(_)))
            .await
    }

    /// One of the first steps: a POST that is answered by a token.
    async fn token(&self, url: Url, bearer: &str, body: Option<Value>, what: &str) -> Result<String, Error> {
        let reply = self.post(url, ("Bearer", bearer), body).await?;
        wire::required(wire::decode::<Token>(&reply.body, what)?.token.0, what)
    }

    /// The last step: the service's URL and the admin token.
    async fn register(&self, registration_token: &str) -> Result<Arc<AdminToken>, Error> {
        let url = self.config.rest(&["actions", "runner-registration"]);
        let body = json!({"url": self.config.as_str(), "runner_event": "register"});
        let reply = self.post(url, ("RemoteAuth", registration_token), Some(body)).await?;
        let wire: Token = wire::decode(&reply.body, "the admin connection")?;
        let token = wire::required(wire.token.0, "the admin token")?;
        let service = self.config.trusts(&wire::required(wire.url.0, "the service's URL")?)?;
        let left = expiry(&token)?.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default().saturating_sub(RENEW_BEFORE);
        Ok(Arc::new(AdminToken { service, token, renew_at: Instant::now().plus(left.max(RENEW_AFTER)) }))
    }

    async fn post(&self, url: Url, authorization: (&str, &str), body: Option<Value>) -> Result<Reply, Error> {
        let reply = self.ask(Method::POST, url, authorization, body).await?;
        self.limit.noted(reply.success(CallKind::Auth))
    }

    async fn ask(
        &self,
        method: Method,
        url: Url,
        authorization: (&str, &str),
        body: Option<Value>,
    ) -> Result<Reply, Error> {
        let asked = format!("{method} {}", url.path());
        let mut request = transport::request(method, url, authorization, ("controller", 0))?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
        if let Some(body) = body {
            transport::with_json(&mut request, &body);
        }
        self.limit.check()?;
        transport::send(&self.pool, request, asked, self.attempt).await
    }
}

/// Whether a text can be the name of a repository or of its owner: it goes into a URL.
fn is_name(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    !text.is_empty() && text.bytes().all(plain) && !text.bytes().all(|c| c == b'.')
}

impl State {
    fn refused(&self) -> Option<Error> {
        let (until, error) = self.refusal.as_ref()?;
        (Instant::now() < *until).then(|| error.clone())
    }

    fn remember(&mut self, error: &Error) {
        if matches!(error, Error::AuthRejected(_) | Error::Forbidden(_) | Error::Config(_)) {
            self.refusal = Some((Instant::now().plus(REMEMBER_REFUSAL), error.clone()));
        }
    }
}

/// The pauses between the tries of a registration: with the usual deadlines 1, 2, 4 and 8 s, half of a call's time.
fn registration_pauses(attempt: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(attempt / 10)
        .with_factor(2.0)
        .with_max_times(REGISTRATION_RETRIES)
}

/// What the App's JWT says.
#[derive(Serialize)]
struct Claims {
    iat: i64,
    exp: i64,
    iss: String,
}

/// What is read of the admin token.
#[derive(Default)]
struct Expiry {
    exp: i64,
}

object!(Expiry { "exp" => exp });

fn app_jwt(app_id: &str, key: &EncodingKey) -> Result<String, Error> {
    let iat = Timestamp::now().as_second() - JWT_LEEWAY;
    let claims = Claims { iat, exp: iat + JWT_LIFE, iss: app_id.to_owned() };
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, key)
        .map_err(|_| Error::Config("the App's private key cannot sign".into()))
}

/// When the admin token expires. It is GitHub's to check it; we only read.
fn expiry(token: &str) -> Result<Timestamp, Error> {
    insecure_decode_claims::<Read<Expiry>>(token)
        .ok()
        .filter(|Read(claims)| claims.exp > 0)
        .and_then(|Read(claims)| Timestamp::from_second(claims.exp).ok())
        .ok_or_else(|| Error::BadReply("the admin token does not tell when it expires".into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use backon::BackoffBuilder;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn token(claims: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg": "RS256", "typ": "JWT"}"#);
        format!("{header}.{}.{}", URL_SAFE_NO_PAD.encode(claims), URL_SAFE_NO_PAD.encode("signature"))
    }

    #[test]
    fn of_an_admin_token_only_its_end_is_read() {
        for claims in [
            r#"{"exp": 1893456000}"#,
            r#"{"exp": 1893456000.25, "iat": "yesterday", "iss": {"name": "GitHub"}, "nbf": null}"#,
            r#"{"iss": 7, "iat": [1], "exp": "1893456000", "aud": ["a", "b"]}"#,
        ] {
            assert_eq!(expiry(&token(claims)).unwrap().as_second(), 1_893_456_000, "{claims}");
        }
        for claims in ["{}", r#"{"exp": null}"#, r#"{"exp": "soon"}"#, r#"{"exp": -1}"#] {
            assert!(matches!(expiry(&token(claims)), Err(Error::BadReply(_))), "{claims}");
        }
    }

    #[test]
    fn a_fresh_registration_token_gets_five_tries_over_fifteen_seconds() {
        let attempt = super::super::Deadlines::default().control / 3;
        let pauses: Vec<u64> = registration_pauses(attempt).build().map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8]);
    }
}
