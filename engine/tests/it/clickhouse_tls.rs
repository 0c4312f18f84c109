//! ClickHouse over TLS: a store behind a proxy that speaks it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    broker::{self, Sender, create_topic, unique},
    city::event,
    program::Program,
    store::TestStore,
};

/// Vouches for certificates.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, unique("authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn identity(&self, name: &str) -> Identity {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }
}

/// Whom the proxy asks for a certificate.
enum Clients<'a> {
    Anyone,
    KnownTo(&'a Authority),
}

/// Speaks TLS and hands on to `target` what it hears; yields its address.
async fn proxy(target: &str, identity: &Identity, clients: Clients<'_>) -> String {
    let target = target.trim_start_matches("http://").to_owned();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Clients::Anyone => builder.with_no_client_auth(),
        Clients::KnownTo(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.certificate()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
    let config = builder.with_single_cert(vec![identity.certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                // A client that is refused, or leaves, is the test's to judge.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut store = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut store).await;
            });
        }
    });
    address
}

/// Files of certificates and keys.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn authority(&self, name: &str, authority: &Authority) -> String {
        self.write(name, &authority.certificate.pem())
    }
}

/// Runs a program to its end without holding up the proxy, which lives in the same runtime.
async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// `citycell run` that fails on this ClickHouse with these words; yields what it said.
async fn fails(url: &str, words: &[&str]) -> String {
    let program = Program::new("nothing", url);
    let mut command = program.command(&broker::settings().brokers);
    let secret = unique("password");
    command.env("CITYCELL_CLICKHOUSE_PASSWORD", &secret).env("RUST_LOG", "trace");
    command.args(["--listen", "127.0.0.1:0", "--until-end"]).args(words);
    let output = output(command).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("TRACE") && !said.contains(&secret), "{said}");
    said
}

#[track_caller]
fn assert_said(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_right_over_tls_and_the_books_balance() {
    let (store, files) = (TestStore::start(), Files::new());
    let (authority, of_clients) = (Authority::new(), Authority::new());
    let identity = authority.identity("127.0.0.1");
    let ours = of_clients.identity("citycell");
    let address = proxy(&store.settings().url, &identity, Clients::KnownTo(&of_clients)).await;
    let url = format!("https://{address}");
    let tls = [
        ["--clickhouse-ca".to_owned(), files.authority("ca.pem", &authority)],
        ["--clickhouse-certificate".to_owned(), files.write("own.pem", &ours.certificate.pem())],
        ["--clickhouse-key".to_owned(), files.write("own.key", &ours.key.serialize_pem())],
    ];
    let topic = unique("tls");
    create_topic(&topic, 1).await;
    let sender = Sender::new();
    sender.send(&topic, 0, Some(event("1", 0, 0, "a", 42).as_bytes()));
    sender.flush();

    let program = Program::new(&topic, &url);
    let mut command = program.command(&broker::settings().brokers);
    command.args(["--listen", "127.0.0.1:0", "--until-end"]).args(tls.as_flattened());
    let ran = output(command).await;
    assert!(ran.status.success(), "{ran:?}");
    let people = store.lines("SELECT people FROM crowd_flow WHERE level = 'city'").await;
    assert_eq!(people, ["42"]);

    let mut command = Command::new(env!("CARGO_BIN_EXE_citycell"));
    command.args(["audit", "--clickhouse", &url]).args(tls.as_flattened());
    let audited = output(command).await;
    assert!(audited.status.success(), "{audited:?}");

    // Without a certificate of ours nobody answers.
    let said = fails(&url, &tls[0].each_ref().map(String::as_str)).await;
    assert_said(&said, &[&format!("ClickHouse at {url} failed to create the database"), "alert"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_vouches_for_is_told_nothing() {
    let (store, files) = (TestStore::start(), Files::new());
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = files.authority("ca.pem", &authority);
    let refused = async |identity: Identity, words: &[&str], reason: &str| {
        let address = proxy(&store.settings().url, &identity, Clients::Anyone).await;
        let said = fails(&format!("https://{address}"), words).await;
        let tried = format!("ClickHouse at https://{address} failed to create the database");
        assert_said(&said, &[&tried, reason]);
    };
    let here = "127.0.0.1";
    let unknown = "invalid peer certificate: UnknownIssuer";
    refused(other.identity(here), &["--clickhouse-ca", &ca], unknown).await;
    refused(authority.identity(here), &[], unknown).await;
    let elsewhere = authority.identity("clickhouse.example");
    refused(elsewhere, &["--clickhouse-ca", &ca], "certificate not valid for name \"127.0.0.1\"")
        .await;
    let databases = "SELECT count() FROM system.databases WHERE name = 'city'";
    assert_eq!(count(&store, databases).await, "0");
}

/// The answer of a store that has no database of ours yet.
async fn count(store: &TestStore, sql: &str) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::Client::new().post(store.settings().url).body(sql.to_owned()).send();
    answer.await.unwrap().text().await.unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_one_side_speaks_tls_the_other_scheme_is_named() {
    let (store, files) = (TestStore::start(), Files::new());
    let authority = Authority::new();
    let ca = files.authority("ca.pem", &authority);
    let plain = store.settings().url;
    let address = proxy(&plain, &authority.identity("127.0.0.1"), Clients::Anyone).await;
    let said = fails(&format!("http://{address}"), &[]).await;
    assert_said(&said, &[&format!("ClickHouse at http://{address}"), "begins with https://"]);
    let encrypted = plain.replace("http:", "https:");
    let said = fails(&encrypted, &["--clickhouse-ca", &ca]).await;
    assert_said(&said, &[&format!("ClickHouse at {encrypted}"), "begins with http://"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_serve_is_named_and_not_shown() {
    let files = Files::new();
    let authority = Authority::new();
    let (ours, others) = (authority.identity("citycell"), authority.identity("citycell"));
    let ca = files.authority("ca.pem", &authority);
    let certificate = files.write("own.pem", &ours.certificate.pem());
    let key = files.write("others.key", &others.key.serialize_pem());
    let [empty, broken] = [("empty", ""), ("broken", "-----BEGIN CERTIFICATE-----\nx\n")]
        .map(|(name, text)| files.write(name, text));
    let url = "https://127.0.0.1:9";
    let with_ca = async |path: &str| fails(url, &["--clickhouse-ca", path]).await;
    assert_said(&with_ca("nowhere.pem").await, &["cannot use nowhere.pem as certificates"]);
    assert_said(&with_ca(&empty).await, &[&empty, "holds no certificate"]);
    assert_said(&with_ca(&broken).await, &[&format!("cannot use {broken} as certificates")]);
    let said = fails("http://127.0.0.1:9", &["--clickhouse-ca", &ca]).await;
    assert_said(&said, &["--clickhouse http://127.0.0.1:9 speaks no TLS"]);

    let identity = |key: &str| {
        let names = ["--clickhouse-certificate", &certificate, "--clickhouse-key", key];
        names.map(str::to_owned)
    };
    let shows_no_key = |said: &str, path: &str| {
        for line in std::fs::read_to_string(Path::new(path)).unwrap().lines() {
            assert!(line.starts_with("-----") || !said.contains(line), "{said}");
        }
    };
    let said = fails(url, &identity(&key).each_ref().map(String::as_str)).await;
    assert_said(&said, &["cannot use the certificates for ClickHouse"]);
    shows_no_key(&said, &key);
    let said = fails(url, &identity(&certificate).each_ref().map(String::as_str)).await;
    assert_said(&said, &[&format!("cannot use {certificate} as a private key")]);
}
