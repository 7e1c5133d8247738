//! TLS for the mock's ports.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

/// PEM files of a TLS server.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CA whose certificates clients have to show; none asks for none.
    pub client_ca: Option<PathBuf>,
}

/// A TLS file can't be used. Names the file.
#[derive(Debug, thiserror::Error)]
#[error("TLS file {path}: {why}", path = path.display())]
pub struct TlsError {
    path: PathBuf,
    why: String,
}

impl TlsFiles {
    pub(super) fn load(&self, alpn: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
        let failed = |path: &PathBuf, why: &dyn std::fmt::Display| TlsError {
            path: path.clone(),
            why: why.to_string(),
        };
        let certs = |path: &PathBuf| -> Result<Vec<CertificateDer<'static>>, TlsError> {
            let certs: Vec<_> = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|e| failed(path, &e))?;
            if certs.is_empty() { Err(failed(path, &"there is no certificate in it")) } else { Ok(certs) }
        };
        let chain = certs(&self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| failed(&self.key, &e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&self.cert, &e))?;
        let config = match &self.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for cert in certs(path)? {
                    roots.add(cert).map_err(|e| failed(path, &e))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|e| failed(path, &e))?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let mut config = config.with_single_cert(chain, key).map_err(|e| failed(&self.cert, &e))?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Arc::new(config))
    }
}
