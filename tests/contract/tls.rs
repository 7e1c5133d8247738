//! TLS for both APIs, and a client's certificate for gRPC.

use std::{path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use signoff::{
    mock::{Channel, Config, MockManager, TlsFiles},
    proto::manager_v2::manager_client::ManagerClient,
};

use crate::support::{key, registration};

struct Files {
    dir: tempfile::TempDir,
    ca: String,
    client: (String, String),
}

fn files() -> Files {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        (cert.pem(), key.serialize_pem())
    };
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = leaf("127.0.0.1");
    for (name, text) in [("cert.pem", cert), ("key.pem", key), ("ca.pem", ca.pem())] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    Files { dir, ca: ca.pem(), client: leaf("client") }
}

fn tls(dir: &Path, client_ca: bool) -> TlsFiles {
    TlsFiles {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
        client_ca: client_ca.then(|| dir.join("ca.pem")),
    }
}

async fn register(mock: &MockManager, files: &Files, with_certificate: bool) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(files.ca.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = if with_certificate {
        let cert = CertificateDer::from_pem_slice(files.client.0.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(files.client.1.as_bytes()).unwrap();
        config.with_client_auth_cert(vec![cert], key).unwrap()
    } else {
        config.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let addr = mock.grpc_addr();
    let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(ServerName::from(addr.ip()), tcp)
        .await
        .map_err(|e| e.to_string())?;
    let channel =
        Channel::over(tls, format!("https://{addr}").parse().unwrap()).await.map_err(|e| e.to_string())?;
    let origin = channel.origin();
    let mut client = ManagerClient::with_origin(channel, origin);
    client.update_scheduler(registration(&key("tls"))).await.map_err(|e| e.to_string())?;
    Ok(())
}

#[tokio::test]
async fn both_apis_can_be_behind_tls() {
    let files = files();
    let config = Config { tls: Some(tls(files.dir.path(), false)), ..Config::default() };
    let mock = MockManager::start(config).await.unwrap();
    register(&mock, &files, false).await.unwrap();
    assert_eq!(healthy(&mock, &files).await, 200);
}

async fn healthy(mock: &MockManager, files: &Files) -> u16 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(files.ca.as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
    let answer = client.get(format!("https://{}/healthy", mock.rest_addr())).send().await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn grpc_can_ask_for_a_clients_certificate_and_rest_never_does() {
    let files = files();
    let config = Config { tls: Some(tls(files.dir.path(), true)), ..Config::default() };
    let mock = MockManager::start(config).await.unwrap();
    register(&mock, &files, false).await.unwrap_err();
    assert_eq!(mock.table().rows().unwrap(), []);
    register(&mock, &files, true).await.unwrap();
    assert_eq!(healthy(&mock, &files).await, 200);
}

#[tokio::test]
async fn a_missing_or_wrong_file_is_named() {
    let files = files();
    let wrong = TlsFiles { key: files.dir.path().join("ca.pem"), ..tls(files.dir.path(), false) };
    let missing = TlsFiles { cert: files.dir.path().join("none.pem"), ..tls(files.dir.path(), false) };
    for (tls, named) in [(wrong, "ca.pem"), (missing, "none.pem")] {
        let said = MockManager::start(Config { tls: Some(tls), ..Config::default() }).await.unwrap_err();
        assert!(said.to_string().contains(named), "{said}");
    }
}
