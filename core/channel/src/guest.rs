//! The guest's end.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use caveau_group::KeyDigest;
use caveau_protocol::owner::APPLICATION;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs::{default_provider, sign::any_ecdsa_type},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{ChannelError, Exporter, any_key, any_key::AnyKey, export, shake_hands};

/// A key for as long as the guest runs. It is nobody's: what makes a session the guest's is a report.
#[derive(Clone, Debug)]
pub struct GuestIdentity {
    config: Arc<ServerConfig>,
}

impl GuestIdentity {
    /// With a key that is made now.
    ///
    /// # Errors
    /// [`ChannelError::Random`] where there are no random numbers.
    pub fn new() -> Result<Self, ChannelError> {
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let key =
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.map_err(|_| ChannelError::Random)?.as_ref().to_vec()));
        let key = any_ecdsa_type(&key).map_err(ChannelError::Tls)?;
        let public = key.public_key().ok_or(ChannelError::Key)?.to_vec();
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], key));
        let provider = default_provider();
        let verifier = Arc::new(AnyKey(provider.signature_verification_algorithms));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(ChannelError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
        config.alpn_protocols = vec![APPLICATION.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config) })
    }
}

/// An established channel.
#[derive(Debug)]
pub struct GuestEnd<S: Read + Write> {
    stream: StreamOwned<ServerConnection, S>,
}

impl<S: Read + Write> GuestEnd<S> {
    /// Shakes hands with whoever is at the other end of the stream.
    ///
    /// # Errors
    /// [`ChannelError`] where that fails; the stream is of no use then.
    pub fn accept(identity: &GuestIdentity, mut stream: S) -> Result<Self, ChannelError> {
        let mut connection = ServerConnection::new(Arc::clone(&identity.config)).map_err(ChannelError::Tls)?;
        shake_hands(&mut connection, &mut stream)?;
        Ok(Self { stream: StreamOwned::new(connection, stream) })
    }

    /// The key that the other side proved to have, where it showed one.
    #[must_use]
    pub fn peer(&self) -> Option<KeyDigest> {
        any_key::shown(self.stream.conn.peer_certificates())
    }

    /// What binds this session, for a nonce.
    ///
    /// # Errors
    /// [`ChannelError::Tls`], which an established session does not give.
    pub fn exporter(&self, nonce: &[u8]) -> Result<Exporter, ChannelError> {
        export(&self.stream.conn, nonce)
    }

    /// Says that nothing more will come.
    pub fn close(&mut self) {
        self.stream.conn.send_close_notify();
        // Whoever has gone need not be told.
        let _ = self.stream.flush();
    }
}

impl<S: Read + Write> Read for GuestEnd<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl<S: Read + Write> Write for GuestEnd<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
