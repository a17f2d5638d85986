//! TLS to an engine: each end shows a certificate. The key is read from a Secret and stays in memory.

use std::error::Error as StdError;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The certificates that a Secret may have in a key.
const MOST_CERTIFICATES: usize = 32;

/// The certificate and key that are shown to an engine, and the authority by which its own is judged.
#[derive(Clone)]
pub struct TlsLogin {
    config: Arc<ClientConfig>,
    certificates: Vec<(&'static str, CertificateDer<'static>)>,
    /// What all was read from, to tell logins apart.
    source: [String; 3],
}

/// Why a login cannot be used. Says nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTlsLogin {
    /// There is no certificate where one must be.
    #[error("{0} holds no certificate in PEM that can be used")]
    Certificate(&'static str),
    /// There is no key.
    #[error("tls.key holds no private key in PEM without a passphrase")]
    Key,
    /// The two are not of each other.
    #[error("tls.key is not the key of the certificate in tls.crt")]
    Mismatch,
}

impl TlsLogin {
    /// Reads the authority's certificates, the own certificate with those between it and its authority, and its key, all in
    /// PEM.
    ///
    /// # Errors
    /// [`InvalidTlsLogin`] where one cannot be used.
    pub fn read(authority: &str, certificate: &str, key: &str) -> Result<TlsLogin, InvalidTlsLogin> {
        let authorities = certificates("ca.crt", authority)?;
        let own = certificates("tls.crt", certificate)?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone()).map_err(|_| InvalidTlsLogin::Certificate("ca.crt"))?;
        }
        let private_key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| InvalidTlsLogin::Key)?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| InvalidTlsLogin::Key)?
            .with_root_certificates(roots)
            .with_client_auth_cert(own.clone(), private_key)
            .map_err(|error| match error {
                Error::InconsistentKeys(_) => InvalidTlsLogin::Mismatch,
                Error::InvalidCertificate(_) => InvalidTlsLogin::Certificate("tls.crt"),
                _ => InvalidTlsLogin::Key,
            })?;
        let named = |name, certificates: Vec<_>| certificates.into_iter().map(move |c| (name, c));
        Ok(TlsLogin {
            config: Arc::new(config),
            certificates: named("ca.crt", authorities).chain(named("tls.crt", own)).collect(),
            source: [authority.to_owned(), certificate.to_owned(), key.to_owned()],
        })
    }

    /// Shows the certificate to whoever is at the other end of a connection, and judges theirs.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(self.config.clone()).connect(name, stream).await
    }

    /// Says which of the certificates is out of its time, if one is. The engine's own, TLS itself judges; but an authority's
    /// is trusted there for ever, and of ours an engine says no more than that it is bad.
    pub(super) fn out_of_time(&self) -> Option<String> {
        let judge = |certificate: &CertificateDer<'_>| {
            let parsed = ParsedCertificate::try_from(certificate)?;
            let algorithms = self.config.crypto_provider().signature_verification_algorithms.all;
            // Time is judged before all else, and all else is of no interest here.
            let nobody = RootCertStore::empty();
            verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], UnixTime::now(), algorithms)
        };
        self.certificates.iter().find_map(|(name, certificate)| match judge(certificate) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                Some(format!("the certificate in {name} expired on {}", date(not_after)))
            }
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                Some(format!("the certificate in {name} is not valid before {}", date(not_before)))
            }
            _ => None,
        })
    }
}

/// Explains an error of TLS, where it is one.
pub(super) fn explain(error: &(dyn StdError + 'static)) -> Option<String> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match inner?.downcast_ref::<Error>()? {
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            Some("the engine takes the certificate in tls.crt, or its authority's, for expired".to_owned())
        }
        Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError),
        ) => Some(format!(
            "the engine does not accept the certificate in tls.crt ({alert:?}): the authority in the engine's --tlscacert \
             must have signed it, for client authentication"
        )),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Some("the engine's certificate is not signed by the authority in ca.crt".to_owned())
        }
        Error::InvalidCertificate(why) => Some(format!("the engine's certificate is not accepted: {why}")),
        Error::InvalidMessage(_) => Some("what answers there does not speak TLS".to_owned()),
        error => Some(format!("TLS: {error}")),
    }
}

fn certificates(name: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, InvalidTlsLogin> {
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).take(MOST_CERTIFICATES).collect();
    read.ok().filter(|read| !read.is_empty()).ok_or(InvalidTlsLogin::Certificate(name))
}

fn date(time: UnixTime) -> String {
    let second = i64::try_from(time.as_secs()).ok().and_then(|second| Timestamp::from_second(second).ok());
    second
        .map_or_else(|| "a day beyond all calendars".to_owned(), |at| at.strftime("%F at %T UTC").to_string())
}

impl PartialEq for TlsLogin {
    fn eq(&self, other: &TlsLogin) -> bool {
        self.source == other.source
    }
}

impl Eq for TlsLogin {}

impl Hash for TlsLogin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}

/// Without the key.
impl fmt::Debug for TlsLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsLogin")
    }
}
