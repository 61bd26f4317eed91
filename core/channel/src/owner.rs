//! The end of whoever asks.

use core::net::{IpAddr, Ipv4Addr};
use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use caveau_group::KeyDigest;
use caveau_protocol::owner::APPLICATION;
use rustls::{
    ClientConfig, ClientConnection, SignatureScheme, StreamOwned,
    client::{ResolvesClientCert, Resumption},
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{ChannelError, Exporter, any_key::AnyKey, export, shake_hands};

/// The private key of an owner.
#[derive(Clone, Debug)]
pub struct OwnerKey {
    key: Arc<CertifiedKey>,
    digest: KeyDigest,
}

impl OwnerKey {
    /// A private key in DER: PKCS#8, SEC 1 or PKCS#1.
    ///
    /// # Errors
    /// [`ChannelError::Key`] where it is none.
    pub fn from_der(der: &[u8]) -> Result<Self, ChannelError> {
        let der = PrivateKeyDer::try_from(der).map_err(|_| ChannelError::Key)?;
        let key = any_supported_type(&der).map_err(|_| ChannelError::Key)?;
        let public = key.public_key().ok_or(ChannelError::Key)?.to_vec();
        let digest = KeyDigest::of(&public);
        Ok(Self { key: Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], key)), digest })
    }

    /// By which policies know the owner.
    #[must_use]
    pub fn digest(&self) -> KeyDigest {
        self.digest
    }
}

/// What is shown in the handshake: a raw key, or nothing.
#[derive(Debug)]
struct Shown(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// An established channel, whose other end may be anybody until a report over its [`OwnerEnd::exporter`] was verified.
#[derive(Debug)]
pub struct OwnerEnd<S: Read + Write> {
    stream: StreamOwned<ClientConnection, S>,
}

impl<S: Read + Write> OwnerEnd<S> {
    /// Shakes hands with whoever is at the other end of the stream, showing a key where there is one.
    ///
    /// # Errors
    /// [`ChannelError`] where that fails; the stream is of no use then.
    pub fn connect(key: Option<&OwnerKey>, mut stream: S) -> Result<Self, ChannelError> {
        let provider = default_provider();
        let verifier = Arc::new(AnyKey(provider.signature_verification_algorithms));
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(ChannelError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(Shown(key.map(|key| Arc::clone(&key.key)))));
        config.alpn_protocols = vec![APPLICATION.to_vec()];
        config.resumption = Resumption::disabled();
        // A guest has no name; of an address nothing is sent (RFC 6066, section 3).
        config.enable_sni = false;
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
        let mut connection = ClientConnection::new(Arc::new(config), nobody).map_err(ChannelError::Tls)?;
        shake_hands(&mut connection, &mut stream)?;
        Ok(Self { stream: StreamOwned::new(connection, stream) })
    }

    /// What binds this session, for a nonce.
    ///
    /// # Errors
    /// [`ChannelError::Tls`], which an established session does not give.
    pub fn exporter(&self, nonce: &[u8]) -> Result<Exporter, ChannelError> {
        export(&self.stream.conn, nonce)
    }
}

impl<S: Read + Write> Read for OwnerEnd<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl<S: Read + Write> Write for OwnerEnd<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
