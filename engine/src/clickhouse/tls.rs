//! TLS to ClickHouse: whom we trust, and who we are.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clickhouse::Client;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use rustls_platform_verifier::BuilderVerifierExt;

/// Files in PEM that say whom we trust and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that vouch for the server; without, those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// Our certificate, and its key; without, we show none.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A file of TLS that is of no use: its operators' to correct.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read, or is not what it should be.
    #[error("cannot use {} as {what} for ClickHouse", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: pem::Error,
    },
    /// It holds no certificate.
    #[error("{} holds no certificate in PEM", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The certificates do not serve, or the key is of another certificate.
    #[error("cannot use the certificates for ClickHouse")]
    Unusable(#[from] rustls::Error),
}

/// How we speak TLS.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read, holds nothing, or does not fit the others.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match &files.ca {
            Some(path) => builder.with_root_certificates(authorities(path)?),
            None => builder.with_platform_verifier()?,
        };
        let config = match &files.identity {
            Some((certificate, key)) => {
                builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// A client that speaks to nobody without TLS.
    pub(super) fn client(&self) -> Client {
        // As the crate's own client without TLS: ClickHouse closes what is idle for 3 s.
        const KEEPALIVE: Duration = Duration::from_secs(60);
        const IDLE_MAX: Duration = Duration::from_secs(2);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_keepalive(Some(KEEPALIVE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&self.0))
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        let mut builder = HyperClient::builder(TokioExecutor::new());
        Client::with_http_client(builder.pool_idle_timeout(IDLE_MAX).build(connector))
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { what: "certificates", path: path.to_owned(), source };
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if all.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |source| TlsError::File { what: "a private key", path: path.to_owned(), source };
    PrivateKeyDer::from_pem_file(path).map_err(failed)
}
