//! What a fleet shows to GitHub: a token, or a GitHub App.

use std::collections::BTreeMap;
use std::fmt;

use jsonwebtoken::EncodingKey;

use super::Error;

const TOKEN: &str = "github_token";
const APP_ID: &str = "github_app_id";
const INSTALLATION_ID: &str = "github_app_installation_id";
const PRIVATE_KEY: &str = "github_app_private_key";

/// A credential. `Debug` never shows what is secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// A personal access token.
    Token(String),
    /// A GitHub App's installation.
    App {
        /// The App's id or client id.
        app_id: String,
        /// The installation's id.
        installation_id: i64,
        /// The App's RSA key: PEM, PKCS#1 or PKCS#8.
        private_key: String,
    },
}

impl Credentials {
    /// Reads the keys of a Secret: `github_token`, or all three of `github_app_id`, `github_app_installation_id` and
    /// `github_app_private_key`. Keys of another name are passed over.
    ///
    /// # Errors
    /// [`Error::Config`] when a key is missing, empty or malformed, or when both kinds are there.
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, Error> {
        let has = |key: &str| data.contains_key(key);
        match (has(TOKEN), [APP_ID, INSTALLATION_ID, PRIVATE_KEY].into_iter().any(has)) {
            (true, true) => Err(Error::Config(format!(
                "the Secret has both `{TOKEN}` and keys of a GitHub App: leave one kind"
            ))),
            (true, false) => Ok(Credentials::Token(text(data, TOKEN)?)),
            (false, true) => Ok(Credentials::App {
                app_id: text(data, APP_ID)?,
                installation_id: text(data, INSTALLATION_ID)?.parse().map_err(|_| {
                    Error::Config(format!("the Secret's `{INSTALLATION_ID}` is not a number"))
                })?,
                private_key: rsa_key(text(data, PRIVATE_KEY)?)?,
            }),
            (false, false) => Err(Error::Config(format!(
                "the Secret has neither `{TOKEN}` nor `{APP_ID}`, `{INSTALLATION_ID}` and `{PRIVATE_KEY}`"
            ))),
        }
    }
}

fn text(data: &BTreeMap<String, Vec<u8>>, key: &str) -> Result<String, Error> {
    let bytes = data.get(key).ok_or_else(|| Error::Config(format!("the Secret lacks `{key}`")))?;
    match std::str::from_utf8(bytes).map(str::trim) {
        Ok("") => Err(Error::Config(format!("the Secret's `{key}` is empty"))),
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Error::Config(format!("the Secret's `{key}` is not text"))),
    }
}

fn rsa_key(pem: String) -> Result<String, Error> {
    match EncodingKey::from_rsa_pem(pem.as_bytes()) {
        Ok(_) => Ok(pem),
        Err(_) => Err(Error::Config(format!("the Secret's `{PRIVATE_KEY}` is not an RSA key in PEM"))),
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Token(_) => f.write_str("Token(…)"),
            Credentials::App { app_id, installation_id, .. } => f
                .debug_struct("App")
                .field("app_id", app_id)
                .field("installation_id", installation_id)
                .finish_non_exhaustive(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn secret(keys: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        keys.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_secret_holds_one_kind() {
        let token = Credentials::from_secret(&secret(&[(TOKEN, " ghp_planted\n"), ("other", "x")])).unwrap();
        assert_eq!(token, Credentials::Token("ghp_planted".into()));
        let key = testkit::github::app_private_key();
        let app = [(APP_ID, "Iv1.abc"), (INSTALLATION_ID, "42"), (PRIVATE_KEY, key)];
        let app = Credentials::from_secret(&secret(&app)).unwrap();
        assert!(matches!(&app, Credentials::App { installation_id: 42, .. }));
        let shown = format!("{token:?}{app:?}");
        assert!(!shown.contains("planted") && !shown.contains("PRIVATE KEY"));
    }

    #[test]
    fn an_error_names_the_key_and_not_its_value() {
        for (keys, named) in [
            (&[][..], TOKEN),
            (&[(TOKEN, " ")], TOKEN),
            (&[(TOKEN, "planted"), (APP_ID, "1")], TOKEN),
            (&[(APP_ID, "1"), (PRIVATE_KEY, "planted")], INSTALLATION_ID),
            (&[(APP_ID, "1"), (INSTALLATION_ID, "planted"), (PRIVATE_KEY, "x")], INSTALLATION_ID),
            (&[(INSTALLATION_ID, "1"), (PRIVATE_KEY, "planted")], APP_ID),
            (&[(APP_ID, "1"), (INSTALLATION_ID, "1"), (PRIVATE_KEY, "planted")], PRIVATE_KEY),
        ] {
            let error = Credentials::from_secret(&secret(keys)).unwrap_err();
            assert!(
                matches!(&error, Error::Config(text) if text.contains(named) && !text.contains("planted"))
            );
        }
    }
}
