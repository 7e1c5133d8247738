//! TLS settings from files, loaded when first needed and re-read when a file changes.
//!
//! A changed file that can't be used, or doesn't answer, leaves the settings that were loaded before in place, with a
//! warning: a certificate caught in the middle of its rotation must not cost a sign-off. Files are looked at away from the
//! runtime's thread. Each connection verifies the peer's certificate as it is then: no session is resumed, which would take
//! one that has expired meanwhile. ring is the provider, chosen here and not process-wide.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
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

use crate::files::{self, Reader, Troubles, Unanswered};

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
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("TLS: {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// One of the files doesn't answer.
    #[error("TLS: {files}: {why}")]
    Unanswered {
        /// All that are read.
        files: String,
        /// Why not.
        why: Unanswered,
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

#[derive(Clone)]
struct Loaded {
    http2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

/// What is in use.
#[derive(Default)]
struct Cache {
    stamps: Option<[Stamp; 3]>,
    loaded: Option<Loaded>,
    /// What is wrong with the files as they are now: said once.
    trouble: Option<Trouble>,
}

/// What is wrong with files, though what was loaded before is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// They were changed, and can't be used.
    Unusable,
    /// They don't answer: they may be the same ones.
    Silent,
}

/// What a look at the files found.
#[derive(Clone)]
enum Look {
    /// They are those that are in use.
    Same,
    /// They are others.
    Other(Box<Found>),
}

/// Files as a look found them.
#[derive(Clone)]
struct Found {
    stamps: [Stamp; 3],
    loaded: Result<Loaded, TlsError>,
}

/// Whose certificates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Roots,
    Anyone,
    /// Whoever is no service mesh's proxy.
    NoMesh,
    Nobody,
}

/// TLS settings over their files. Cheap to ask at each new connection: three `stat` calls while nothing changes.
pub struct Tls {
    files: TlsFiles,
    trust: Trust,
    cache: Mutex<Cache>,
    reader: Reader<Look>,
    /// Where troubles are told, and under which name.
    troubles: (&'static str, Troubles),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Tls {
    fn trusting(files: TlsFiles, trust: Trust) -> Self {
        let (cache, reader) = Default::default();
        Self { files, trust, cache, reader, troubles: ("", Troubles::default()) }
    }

    /// Settings that verify the peer. Nothing is read before it is needed.
    pub fn new(files: TlsFiles) -> Self {
        Self::trusting(files, Trust::Roots)
    }

    /// Settings that take any certificate: only to ask whether something lives at an address, never to send a secret.
    pub fn unverified(files: TlsFiles) -> Self {
        Self::trusting(files, Trust::Anyone)
    }

    /// Settings that take any certificate but that of a service mesh's proxy, which [`is_a_meshs`] tells.
    pub fn of_no_mesh() -> Self {
        Self::trusting(TlsFiles::default(), Trust::NoMesh)
    }

    /// Settings that believe nobody and read no file: for a client that speaks without TLS only, but wants settings.
    pub fn nobody() -> Self {
        Self::trusting(TlsFiles::default(), Trust::Nobody)
    }

    /// Tells there, under that name, which files can't be used.
    #[must_use]
    pub fn telling_as(self, name: &'static str, troubles: Troubles) -> Self {
        Self { troubles: (name, troubles), ..self }
    }

    fn tell(&self, why: Option<&TlsError>) {
        let (name, troubles) = &self.troubles;
        troubles.tell(name, why.map(|why| why as &dyn std::fmt::Display));
    }

    /// The files in use.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// The settings with ALPN `h2`, of the files as they are now (or as they last were usable).
    pub async fn http2(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.current().await.map(|loaded| loaded.http2)
    }

    /// The settings without ALPN, for HTTP/1.1. The same `Arc` for as long as no file changes.
    pub async fn http1(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.current().await.map(|loaded| loaded.http1)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn current(&self) -> Result<Loaded, TlsError> {
        let known = {
            let cache = self.cache();
            match (&cache.loaded, cache.stamps) {
                (Some(loaded), _) if self.files == TlsFiles::default() => return Ok(loaded.clone()),
                (Some(_), stamps) => stamps,
                (None, _) => None,
            }
        };
        let look = if self.files == TlsFiles::default() {
            look(&self.files, self.trust, known)
        } else {
            let (named, trust) = (self.files.clone(), self.trust);
            let looked = self.reader.read(files::LIMIT, move || look(&named, trust, known)).await;
            looked.unwrap_or_else(|why| {
                let files = self.files.shown();
                let loaded = Err(TlsError::Unanswered { files, why });
                Look::Other(Box::new(Found { stamps: [None; 3], loaded }))
            })
        };
        self.taken(look)
    }

    fn taken(&self, look: Look) -> Result<Loaded, TlsError> {
        let mut cache = self.cache();
        let Found { stamps, loaded } = match look {
            Look::Same => {
                if cache.trouble.take_if(|trouble| *trouble == Trouble::Silent).is_some() {
                    self.tell(None);
                }
                // Nothing can be the same as nothing.
                let nothing = || TlsError::Unanswered { files: self.files.shown(), why: Unanswered::Lost };
                return cache.loaded.clone().ok_or_else(nothing);
            }
            Look::Other(found) => *found,
        };
        match loaded {
            Ok(loaded) => {
                *cache = Cache { stamps: Some(stamps), loaded: Some(loaded.clone()), trouble: None };
                self.tell(None);
                Ok(loaded)
            }
            Err(error) => {
                self.tell(Some(&error));
                let Some(kept) = cache.loaded.clone() else { return Err(error) };
                if matches!(error, TlsError::Unanswered { .. }) {
                    if cache.trouble.is_none() {
                        tracing::warn!(error = %error, "The TLS files don't answer; the settings loaded before stay.");
                        cache.trouble = Some(Trouble::Silent);
                    }
                } else {
                    tracing::warn!(error = %error, "A changed TLS file can't be used; the settings loaded before stay.");
                    cache.stamps = Some(stamps);
                    cache.trouble = Some(Trouble::Unusable);
                }
                Ok(kept)
            }
        }
    }
}

impl TlsFiles {
    fn shown(&self) -> String {
        let files = [&self.ca, &self.cert, &self.key].into_iter().flatten();
        files.map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// Looks at the files, and loads them where they aren't the known ones. Blocks.
fn look(files: &TlsFiles, trust: Trust, known: Option<[Stamp; 3]>) -> Look {
    // Stamped before reading: a file replaced meanwhile is read once more, never missed.
    let stamps = [&files.ca, &files.cert, &files.key].map(|file| stamp(file.as_deref()));
    if known == Some(stamps) {
        return Look::Same;
    }
    Look::Other(Box::new(Found { stamps, loaded: load(files, trust) }))
}

fn load(files: &TlsFiles, trust: Trust) -> Result<Loaded, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?;
    let builder = match trust {
        Trust::Roots => builder.with_root_certificates(roots(files)?),
        Trust::Nobody => builder.with_root_certificates(RootCertStore::empty()),
        Trust::Anyone | Trust::NoMesh => {
            let peer = AnyPeer { provider, but_a_mesh: trust == Trust::NoMesh };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(peer))
        }
    };
    let mut http1 = match (&files.cert, &files.key) {
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

fn roots(files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let Some(path) = &files.ca else {
        return Ok(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()));
    };
    let mut roots = RootCertStore::empty();
    for cert in certificates(path)? {
        roots.add(cert).map_err(|e| content(path, format!("a certificate can't be a CA: {e}")))?;
    }
    Ok(roots)
}

fn stamp(path: Option<&Path>) -> Stamp {
    let meta = std::fs::metadata(path?).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source: Arc::new(source) })
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

/// By what a certificate is known that a mesh gave to a workload's proxy: a SPIFFE id (Istio, Consul, Kuma), or an identity of
/// Linkerd's. Both stand in it letter by letter.
const OF_A_MESH: [&[u8]; 2] = [b"spiffe://", b".serviceaccount.identity."];

/// What [`AnyPeer`] says of a mesh's proxy; it says nothing else.
const MESH: CertificateError = CertificateError::ApplicationVerificationFailure;

/// Whether a handshake was ended because a service mesh's proxy made it: see [`Tls::of_no_mesh`].
pub(super) fn is_a_meshs(error: &io::Error) -> bool {
    let said = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(said, Some(rustls::Error::InvalidCertificate(why)) if *why == MESH)
}

/// Takes any certificate, or any but a mesh's. Signatures are checked all the same, so that a broken peer is told from a living one.
#[derive(Debug)]
struct AnyPeer {
    provider: Arc<CryptoProvider>,
    but_a_mesh: bool,
}

impl ServerCertVerifier for AnyPeer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let names = |id: &[u8]| end_entity.windows(id.len()).any(|some| some == id);
        if self.but_a_mesh && OF_A_MESH.iter().any(|id| names(id)) {
            return Err(rustls::Error::InvalidCertificate(MESH));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
