//! Who calls: the header `Authorization` of signature version 4 has to name a key that is known, valid and allowed. The
//! signature itself is not verified.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::operation::Operation;
use super::refusal::reported;
use super::wire::Refusal;

/// What `Authorization` begins with.
const SCHEME: &str = "AWS4-HMAC-SHA256 ";

/// A credential that the account accepts.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The access key.
    pub access_key: String,
    /// The secret key; nothing checks a signature made with it.
    pub secret_key: String,
    /// The session token that has to come with the key, if any.
    pub session_token: Option<String>,
}

impl Credential {
    /// A long-lived key.
    pub fn new(access_key: impl Into<String>) -> Self {
        Self {
            access_key: access_key.into(),
            secret_key: super::DEFAULT_SECRET_KEY.to_owned(),
            session_token: None,
        }
    }

    /// A temporary key: the session token has to come with it.
    #[must_use]
    pub fn with_session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(token.into());
        self
    }
}

/// What a request says of its sender.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Signature {
    pub access_key: String,
    pub region: String,
    pub service: String,
    pub session_token: Option<String>,
}

impl Signature {
    /// Reads the two headers of a signed request; none when the first is absent or no signature of version 4.
    pub fn read(authorization: Option<&str>, session_token: Option<&str>) -> Option<Self> {
        let fields = authorization?.strip_prefix(SCHEME)?;
        let field = |name: &str| {
            fields.split(',').map(str::trim).find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        field("Signature")?;
        field("SignedHeaders")?;
        let scope: Vec<&str> = field("Credential")?.split('/').collect();
        let [access_key, _date, region, service, "aws4_request"] = scope.as_slice() else {
            return None;
        };
        Some(Self {
            access_key: (*access_key).to_owned(),
            region: (*region).to_owned(),
            service: (*service).to_owned(),
            session_token: session_token.map(str::to_owned),
        })
    }
}

#[derive(Debug)]
struct Key {
    credential: Credential,
    principal: String,
    expires_at: Option<Instant>,
}

/// The keys of the account, and what they may not do.
#[derive(Debug, Default)]
pub(super) struct Access {
    keys: BTreeMap<String, Key>,
    denied: BTreeSet<Operation>,
    roles: Vec<String>,
}

impl Access {
    pub fn new(account: &str, credentials: &[Credential], roles: &[String]) -> Self {
        let mut access = Self { roles: roles.to_vec(), ..Self::default() };
        for credential in credentials {
            access.add(account, credential.clone());
        }
        access
    }

    /// Accepts one more key.
    pub fn add(&mut self, account: &str, credential: Credential) {
        let principal = format!("arn:aws:iam::{account}:user/simulated");
        let key = Key { principal, expires_at: None, credential };
        self.keys.insert(key.credential.access_key.clone(), key);
    }

    /// Accepts a key no longer; says whether there was one.
    pub fn revoke(&mut self, access_key: &str) -> bool {
        self.keys.remove(access_key).is_some()
    }

    /// Lets every temporary key expire.
    pub fn expire_sessions(&mut self, now: Instant) {
        let temporary = self.keys.values_mut().filter(|key| key.credential.session_token.is_some());
        temporary.for_each(|key| key.expires_at = Some(now));
    }

    pub fn deny(&mut self, operation: Operation) {
        self.denied.insert(operation);
    }

    pub fn allow(&mut self, operation: Operation) {
        self.denied.remove(&operation);
    }

    /// Gives the principal of a request, or why the request is refused.
    pub fn check(
        &self,
        signature: Option<&Signature>,
        operation: Operation,
        region: &str,
        now: Instant,
    ) -> Result<String, Refusal> {
        let signature = signature.ok_or_else(reported::unsigned)?;
        let key = self.keys.get(&signature.access_key).ok_or_else(reported::unknown_key)?;
        if key.credential.session_token != signature.session_token {
            return Err(reported::unknown_key());
        }
        if key.expires_at.is_some_and(|at| at <= now) {
            return Err(reported::expired_token());
        }
        let wrong_region = !operation.is_sts() && signature.region != region;
        if wrong_region || signature.service != operation.service() {
            let (what, wanted) = if wrong_region {
                ("a valid region", region)
            } else {
                ("correct service", operation.service())
            };
            let message = format!("Credential should be scoped to {what}: '{wanted}'.");
            return Err(Refusal::front_door("InvalidSignatureException", message));
        }
        if self.denied.contains(&operation) && operation != Operation::GetCallerIdentity {
            let action = format!("{}:{operation}", operation.service());
            return Err(reported::access_denied(&key.principal, &action));
        }
        Ok(key.principal.clone())
    }

    /// Makes the temporary credential of a role; none when the role may not be assumed.
    pub fn assume(
        &mut self,
        role_arn: &str,
        session: &str,
        life: Duration,
        now: Instant,
    ) -> Option<(Credential, String)> {
        let (account, role) = role_arn.strip_prefix("arn:aws:iam::")?.split_once(":role/")?;
        if !self.roles.is_empty() && !self.roles.iter().any(|allowed| allowed == role_arn) {
            return None;
        }
        let id = Uuid::new_v4().simple().to_string().to_uppercase();
        let credential =
            Credential::new(format!("ASIA{}", &id[..16])).with_session_token(format!("session-{id}"));
        let principal = format!("arn:aws:sts::{account}:assumed-role/{role}/{session}");
        let key = Key {
            credential: credential.clone(),
            principal: principal.clone(),
            expires_at: Some(now + life),
        };
        self.keys.insert(credential.access_key.clone(), key);
        Some((credential, principal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "AWS4-HMAC-SHA256 Credential=AKIA1/20261124/eu-west-1/ecs/aws4_request, \
                          SignedHeaders=host;x-amz-date, Signature=abc";

    fn signature(session_token: Option<&str>) -> Signature {
        Signature::read(Some(HEADER), session_token).expect("a signature")
    }

    fn code(result: Result<String, Refusal>) -> String {
        result.expect_err("refused").code
    }

    #[test]
    fn a_signature_names_key_region_and_service() {
        let read = signature(None);
        assert_eq!(
            (read.access_key.as_str(), read.region.as_str(), read.service.as_str()),
            ("AKIA1", "eu-west-1", "ecs")
        );
        assert_eq!(Signature::read(Some("Bearer x"), None), None);
        assert_eq!(Signature::read(Some("AWS4-HMAC-SHA256 Credential=AKIA1/eu/ecs"), None), None);
    }

    #[test]
    fn a_key_is_refused_when_unknown_expired_denied_or_for_another_region() {
        let (now, run) = (Instant::now(), Operation::RunTask);
        let mut access = Access::new("1", &[Credential::new("AKIA1")], &[]);
        let check = |access: &Access, signature: Option<&Signature>, region| {
            access.check(signature, run, region, now)
        };
        assert!(check(&access, Some(&signature(None)), "eu-west-1").is_ok());
        assert_eq!(code(check(&access, None, "eu-west-1")), "MissingAuthenticationTokenException");
        assert_eq!(code(check(&access, Some(&signature(None)), "us-east-1")), "InvalidSignatureException");
        assert_eq!(
            code(check(&access, Some(&signature(Some("t"))), "eu-west-1")),
            "UnrecognizedClientException"
        );
        access.deny(run);
        assert_eq!(code(check(&access, Some(&signature(None)), "eu-west-1")), "AccessDeniedException");
        access.allow(run);
        access.add("1", Credential::new("AKIA1").with_session_token("t"));
        access.expire_sessions(now);
        assert_eq!(code(check(&access, Some(&signature(Some("t"))), "eu-west-1")), "ExpiredTokenException");
        access.revoke("AKIA1");
        assert_eq!(
            code(check(&access, Some(&signature(Some("t"))), "eu-west-1")),
            "UnrecognizedClientException"
        );
    }
}
