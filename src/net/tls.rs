//! TLS settings from files, loaded when first needed and re-read when a file changes.
//!
//! A changed file that can't be used leaves the settings that were loaded before in place, with a warning: a
//! certificate caught in the middle of its rotation must not cost a sign-off. Each connection verifies the peer's
//! certificate as it is then: no session is resumed, which would take one that has expired meanwhile. ring is the
//! provider, chosen here and not process-wide.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
};

/// Which files TLS uses. Without a CA file, the Mozilla roots that are compiled in; without certificate and key, no
/// client certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM certificates that sign the peers' ones.
    pub ca: Option<PathBuf>,
    /// PEM certificate chain of our own, leaf first.
    pub cert: Option<PathBuf>,
    /// PEM private key of that leaf.
    pub key: Option<PathBuf>,
}

/// Why TLS can't be set up from its files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("TLS: {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file was read, but isn't what it should be.
    #[error("TLS: {path}: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// Only one of certificate and key is given.
    #[error("TLS: {0} is given alone: a client certificate needs both a certificate file and a key file")]
    Half(PathBuf),
    /// rustls doesn't take the settings.
    #[error("TLS: {0}")]
    Settings(rustls::Error),
}

/// What tells a file from its next version: inode, size and modification time (a Secret's update swaps a symlink).
type Stamp = Option<(u64, u64, u64, i64, i64)>;

struct Loaded {
    http2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

#[derive(Default)]
struct Cache {
    stamps: Option<[Stamp; 3]>,
    loaded: Option<Loaded>,
}

/// Whose certificates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Roots,
    Anyone,
    Nobody,
}

/// TLS settings over their files. Cheap to ask at each new connection: three `stat` calls while nothing changes.
pub struct Tls {
    files: TlsFiles,
    trust: Trust,
    cache: Mutex<Cache>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Tls {
    /// Settings that verify the peer. Nothing is read before it is needed.
    pub fn new(files: TlsFiles) -> Self {
        Self { files, trust: Trust::Roots, cache: Mutex::default() }
    }

    /// Settings that take any certificate: only to ask whether something lives at an address, never to send a secret.
    pub fn unverified(files: TlsFiles) -> Self {
        Self { files, trust: Trust::Anyone, cache: Mutex::default() }
    }

    /// Settings that believe nobody and read no file: for a client that speaks without TLS only, but wants settings.
    pub fn nobody() -> Self {
        Self { files: TlsFiles::default(), trust: Trust::Nobody, cache: Mutex::default() }
    }

    /// The files in use.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// The settings with ALPN `h2`, of the files as they are now (or as they last were usable).
    pub fn http2(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.current(|l| l.http2.clone())
    }

    /// The settings without ALPN, for HTTP/1.1. The same `Arc` for as long as no file changes.
    pub fn http1(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.current(|l| l.http1.clone())
    }

    fn current<T>(&self, pick: impl Fn(&Loaded) -> T) -> Result<T, TlsError> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        // Stamped before reading: a file replaced meanwhile is read once more, never missed.
        let stamps = [&self.files.ca, &self.files.cert, &self.files.key].map(|f| stamp(f.as_deref()));
        if let Some(loaded) = cache.loaded.as_ref().filter(|_| cache.stamps == Some(stamps)) {
            return Ok(pick(loaded));
        }
        match self.load() {
            Ok(fresh) => {
                let picked = pick(&fresh);
                *cache = Cache { stamps: Some(stamps), loaded: Some(fresh) };
                Ok(picked)
            }
            Err(error) => match &cache.loaded {
                Some(kept) => {
                    tracing::warn!(error = %error, "A changed TLS file can't be used; the settings loaded before stay.");
                    let picked = pick(kept);
                    cache.stamps = Some(stamps);
                    Ok(picked)
                }
                None => Err(error),
            },
        }
    }

    fn load(&self) -> Result<Loaded, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Settings)?;
        let builder = match self.trust {
            Trust::Roots => builder.with_root_certificates(self.roots()?),
            Trust::Nobody => builder.with_root_certificates(RootCertStore::empty()),
            Trust::Anyone => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyPeer(provider)))
            }
        };
        let mut http1 = match (&self.files.cert, &self.files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(only), None) | (None, Some(only)) => return Err(TlsError::Half(only.clone())),
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let private = PrivateKeyDer::from_pem_slice(&read(key)?)
                    .map_err(|e| content(key, format!("no private key in PEM: {}", pem_words(&e))))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|e| content(key, format!("not usable with {}: {e}", cert.display())))?
            }
        };
        http1.resumption = Resumption::disabled();
        let mut http2 = http1.clone();
        http1.alpn_protocols.clear();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Loaded { http2: Arc::new(http2), http1: Arc::new(http1) })
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let Some(path) = &self.files.ca else {
            return Ok(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()));
        };
        let mut roots = RootCertStore::empty();
        for cert in certificates(path)? {
            roots.add(cert).map_err(|e| content(path, format!("a certificate can't be a CA: {e}")))?;
        }
        Ok(roots)
    }
}

fn stamp(path: Option<&Path>) -> Stamp {
    let meta = std::fs::metadata(path?).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn content(path: &Path, why: String) -> TlsError {
    TlsError::Content { path: path.to_owned(), why }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| content(path, format!("not PEM: {}", pem_words(&e))))?;
    if found.is_empty() {
        return Err(content(path, "no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    Ok(found)
}

/// What a PEM reader complains of, without quoting the text: it may be a key's.
fn pem_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "nothing of that kind is in it",
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section's first line is malformed",
        pem::Error::Base64Decode(_) => "a section is no base64",
        _ => "it can't be read as PEM",
    }
}

/// Takes any certificate. Signatures are checked all the same, so that a broken peer is told from a living one.
#[derive(Debug)]
struct AnyPeer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyPeer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
