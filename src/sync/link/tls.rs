//! Mutual TLS 1.3 for links: both ends have a certificate of the cluster's own authority.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

use crate::sync::link::handshake::Key;
use crate::sync::link::shake::Failed;
use crate::sync::link::socket::Timed;
use crate::sync::link::wire::Wire;

/// Said in TLS, so that a certificate's other uses do not meet.
const ALPN: &[u8] = b"annals-link";
const EXPORT: &[u8] = b"EXPORTER-annals-link";

/// What a node needs for TLS.
#[derive(Clone)]
pub struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: ServerName<'static>,
    secret: Vec<u8>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

/// What is wrong with keys or certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The key is in no form that is known.
    #[error("the private key: {0}")]
    Key(&'static str),
    /// The name that all nodes' certificates have is none.
    #[error("`{0}` is no name for a certificate")]
    Name(String),
    /// The authority's certificates cannot be used.
    #[error("the authority: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
    /// Certificate and key do not fit each other, or this build.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl Tls {
    /// From certificates in DER: those of the authority, the node's own chain, and its key
    /// (PKCS#8, PKCS#1 or SEC1). All nodes' certificates bear `name`; it names the cluster, not a
    /// machine.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(
        authority: &[Vec<u8>],
        chain: &[Vec<u8>],
        key: Vec<u8>,
        name: &str,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in authority {
            roots.add(CertificateDer::from(certificate.clone()))?;
        }
        let roots = Arc::new(roots);
        let key = PrivateKeyDer::try_from(key).map_err(TlsError::Key)?;
        let chain: Vec<_> = chain.iter().cloned().map(CertificateDer::from).collect();
        let versions = &[&rustls::version::TLS13];
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        server.alpn_protocols = vec![ALPN.to_vec()];
        // Links are few and long; a ticket would only be one more thing to keep.
        client.resumption = rustls::client::Resumption::disabled();
        server.send_tls13_tickets = 0;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
            name: ServerName::try_from(name.to_owned())
                .map_err(|_no_name| TlsError::Name(name.to_owned()))?,
            secret: Vec::new(),
        })
    }

    /// A shared secret besides: then a certificate alone is not enough.
    #[must_use]
    pub fn with_secret(mut self, secret: &[u8]) -> Self {
        self.secret = secret.to_vec();
        self
    }

    /// TLS's own handshake. What the proofs are made with is exported from it, so they are of this
    /// connection and no other.
    pub(super) fn greet(&self, dialer: bool, timed: &mut Timed<'_>) -> Result<(Wire, Key), Failed> {
        let tls = |error: rustls::Error| Failed::Tls(error.to_string());
        let mut connection = if dialer {
            let client = ClientConnection::new(Arc::clone(&self.client), self.name.clone());
            Connection::Client(client.map_err(tls)?)
        } else {
            Connection::Server(ServerConnection::new(Arc::clone(&self.server)).map_err(tls)?)
        };
        connection.set_buffer_limit(None);
        while connection.is_handshaking() {
            connection.complete_io(timed)?;
        }
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(Failed::Tls("the other end speaks something else".to_owned()));
        }
        let exported = connection
            .export_keying_material([0; 32], EXPORT, None)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let key = Key::from_channel(&exported, &self.secret);
        Ok((Wire::Tls(Box::new(connection)), key))
    }
}
