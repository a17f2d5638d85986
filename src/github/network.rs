//! How GitHub is reached: proxy, certificate authorities, and the two connection pools.

use std::fmt;
use std::time::Duration;

use reqwest::{Certificate, NoProxy, Url, redirect};
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use super::Error;
use crate::cause;

/// A connection that is not made in this time is given up.
const CONNECT: Duration = Duration::from_secs(10);
/// A silent connection is probed after this time, so that a poll does not wait for a peer that is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Network settings of one fleet. Nothing is taken from the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Network {
    /// The proxy to go through.
    pub proxy: Option<Proxy>,
    /// Certificate authorities (PEM, one or more) that are trusted besides the system's.
    pub ca_bundle: Option<Vec<u8>>,
}

/// An HTTP proxy. `Debug` never shows the login.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// `http://` or `https://`.
    pub url: String,
    /// Hosts, domains, addresses and CIDR blocks that are reached directly.
    pub no_proxy: Vec<String>,
    /// User name and password.
    pub login: Option<(String, String)>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL is left out: it may carry a password.
        f.debug_struct("Proxy").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

/// The pools of connections: long polls hold theirs for a minute, and must not make a control call wait.
#[derive(Debug, Clone)]
pub(super) struct Pools {
    pub control: reqwest::Client,
    pub polls: reqwest::Client,
}

impl Pools {
    /// Builds both.
    ///
    /// # Errors
    /// [`Error::Config`] for a proxy or CA bundle that cannot be used, or when there is no certificate authority at all.
    pub fn new(network: &Network) -> Result<Self, Error> {
        Ok(Pools { control: pool(network)?, polls: pool(network)? })
    }
}

fn pool(network: &Network) -> Result<reqwest::Client, Error> {
    if CryptoProvider::get_default().is_none() {
        // Err means that another thread was first, which is as good.
        let _ = CryptoProvider::install_default(aws_lc_rs::default_provider());
    }
    let mut builder = reqwest::Client::builder()
        .http1_only()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .tcp_keepalive(KEEPALIVE)
        .tls_version_min(reqwest::tls::Version::TLS_1_2);
    if let Some(settings) = &network.proxy {
        builder = builder.proxy(proxy(settings)?);
    }
    if let Some(pem) = &network.ca_bundle {
        builder = builder.tls_certs_merge(authorities(pem)?);
    }
    builder
        .build()
        .map_err(|e| Error::Config(format!("no TLS client can be built: {}", cause::innermost(&e))))
}

fn proxy(settings: &Proxy) -> Result<reqwest::Proxy, Error> {
    let refused = || Error::Config("the proxy's URL must be http:// or https:// and name a host".into());
    let url = Url::parse(&settings.url).map_err(|_| refused())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refused());
    }
    let mut proxy = reqwest::Proxy::all(url).map_err(|_| refused())?;
    if let Some((user, password)) = &settings.login {
        proxy = proxy.basic_auth(user, password);
    }
    Ok(proxy.no_proxy(NoProxy::from_string(&settings.no_proxy.join(","))))
}

fn authorities(pem: &[u8]) -> Result<Vec<Certificate>, Error> {
    match Certificate::from_pem_bundle(pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Error::Config("the CA bundle holds no certificate in PEM".into())),
    }
}
