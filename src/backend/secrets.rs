//! What several kinds of capacity read from Secrets.

use super::provider::{References, ResolveError};
use super::remote::SshLogin;
use crate::api::Reason;

/// How a host is logged in to over SSH. `field` is where the spec names the Secret, for the error.
pub(super) async fn ssh_login(
    field: &str,
    secret: &str,
    references: &dyn References,
) -> Result<SshLogin, ResolveError> {
    let private_key = references.secret_text(field, secret, "ssh-privatekey").await?;
    let known_hosts = references.secret_text(field, secret, "known_hosts").await?;
    SshLogin::read(&private_key, &known_hosts)
        .map_err(|why| ResolveError::unusable(Reason::SecretInvalid, format!("{field}: {why}")))
}
