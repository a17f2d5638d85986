//! The way to the admin token: App key or token, registration token, admin connection. Done once for all who share a client.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use jiff::Timestamp;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::classify::Hop;
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
/// ... and a rate limit until it is over, but not for longer than this without another look.
const REMEMBER_LIMIT: Duration = Duration::from_secs(15 * 60);
/// An App's JWT is dated back by a minute, against clocks that disagree, and lives nine of the ten minutes allowed.
const JWT_LEEWAY: i64 = 60;
const JWT_LIFE: i64 = 9 * 60;
/// A fresh registration token may be refused for a moment: the tries that it gets.
const REGISTRATION: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(Duration::from_millis(500)).with_max_times(2).with_jitter();

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
    /// How long one request may take.
    attempt: Duration,
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
        Ok(Auth { pool, config, credentials, key, attempt, state: Mutex::default() })
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

    /// What REST is asked with: the token itself, or a fresh one of the App's installation.
    async fn credential(&self) -> Result<String, Error> {
        match (&self.credentials, &self.key) {
            (Credentials::App { app_id, installation_id, .. }, Some(key)) => {
                let url = self.config.rest(&[
                    "app",
                    "installations",
                    &installation_id.to_string(),
                    "access_tokens",
                ]);
                self.token(url, &app_jwt(app_id, key)?, "the App's token").await
            }
            (Credentials::Token(token), _) => Ok(token.clone()),
            (Credentials::App { .. }, None) => Err(Error::Config("the App has no private key".into())),
        }
    }

    /// All runners that the credential may see, busy and idle, of whatever scale set: page by page, and each page
    /// counts against the rate limit.
    pub async fn list_runners(&self) -> Result<Vec<WireListedRunner>, Error> {
        let credential = self.credential().await?;
        let mut all = Vec::new();
        for page in 1..=MOST_PAGES {
            let mut url = self.config.runners(&[]);
            url.query_pairs_mut()
                .append_pair("per_page", &PAGE.to_string())
                .append_pair("page", &page.to_string());
            let reply = self.ask(Method::GET, url, ("Bearer", &credential), None).await?;
            let found: WireRunnerPage = wire::decode(&reply.body, "the list of all runners")?;
            let last = found.runners.len() < PAGE;
            all.extend(found.runners);
            if last {
                break;
            }
        }
        Ok(all)
    }

    async fn connect(&self) -> Result<Arc<AdminToken>, Error> {
        let credential = self.credential().await?;
        let registration =
            self.token(self.config.registration_token(), &credential, "the registration token").await?;
        (|| self.register(&registration))
            .retry(REGISTRATION)
            .when(|e| matches!(e, Error::AuthRejected(_) | Error::Forbidden(_)))
            .await
    }

    /// One of the first steps: a POST without a body, answered by a token.
    async fn token(&self, url: Url, bearer: &str, what: &str) -> Result<String, Error> {
        let reply = self.post(url, ("Bearer", bearer), None).await?;
        wire::required(wire::decode::<Token>(&reply.body, what)?.token, what)
    }

    /// The last step: the service's URL and the admin token.
    async fn register(&self, registration_token: &str) -> Result<Arc<AdminToken>, Error> {
        let url = self.config.rest(&["actions", "runner-registration"]);
        let body = json!({"url": self.config.as_str(), "runner_event": "register"});
        let reply = self.post(url, ("RemoteAuth", registration_token), Some(body)).await?;
        let wire: Token = wire::decode(&reply.body, "the admin connection")?;
        let token = wire::required(wire.token, "the admin token")?;
        let service = self.config.trusts(&wire::required(wire.url, "the service's URL")?)?;
        let left = expiry(&token)?.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default().saturating_sub(RENEW_BEFORE);
        Ok(Arc::new(AdminToken { service, token, renew_at: Instant::now().plus(left.max(RENEW_AFTER)) }))
    }

    async fn post(&self, url: Url, authorization: (&str, &str), body: Option<Value>) -> Result<Reply, Error> {
        self.ask(Method::POST, url, authorization, body).await
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
        transport::send(&self.pool, request, asked, self.attempt).await?.success(Hop::Auth)
    }
}

impl State {
    fn refused(&self) -> Option<Error> {
        let (until, error) = self.refusal.as_ref()?;
        let left = until.checked_duration_since(Instant::now())?;
        Some(match error {
            Error::RateLimited { .. } => Error::RateLimited { retry_after: left },
            other => other.clone(),
        })
    }

    fn remember(&mut self, error: &Error) {
        let keep = match error {
            Error::RateLimited { retry_after } => (*retry_after).min(REMEMBER_LIMIT),
            Error::AuthRejected(_) | Error::Forbidden(_) | Error::Config(_) => REMEMBER_REFUSAL,
            _ => return,
        };
        self.refusal = Instant::now().checked_add(keep).map(|until| (until, error.clone()));
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(default)]
    iat: i64,
    exp: i64,
    #[serde(default)]
    iss: String,
}

fn app_jwt(app_id: &str, key: &EncodingKey) -> Result<String, Error> {
    let iat = Timestamp::now().as_second() - JWT_LEEWAY;
    let claims = Claims { iat, exp: iat + JWT_LIFE, iss: app_id.to_owned() };
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, key)
        .map_err(|_| Error::Config("the App's private key cannot sign".into()))
}

/// When the admin token expires. It is GitHub's to check it; we only read.
fn expiry(token: &str) -> Result<Timestamp, Error> {
    insecure_decode_claims::<Claims>(token)
        .ok()
        .and_then(|claims| Timestamp::from_second(claims.exp).ok())
        .ok_or_else(|| Error::BadReply("the admin token does not tell when it expires".into()))
}
