//! TLS towards a server: from the settings of a `tls:` section to a rustls configuration.
//!
//! Certificates and keys are read when the rustls configuration is made, so a missing file is reported before
//! anything is connected. The check of the server's certificate cannot be disabled: a connection that any server
//! can answer is worse than an unencrypted one, because it looks safe.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use schemars::JsonSchema;
use serde::Deserialize;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::address::no_controls;
use super::setting::{Misfit, Secret};

/// How the server's certificate is checked, and the client certificate.
///
/// Each of `ca`, `cert` and `key` is the path of a PEM file, or the PEM text itself (which begins with
/// `-----BEGIN`), so that it can come from a variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// The CA certificates that are trusted to sign the server's certificate. Default: those that the
    /// operating system trusts. If it is given, only these are trusted.
    #[schemars(extend("format" = "path"))]
    pub ca: Option<String>,
    /// The client certificate, followed by its chain up to the CA, for servers that request one. Needs `key`.
    #[schemars(extend("format" = "path"))]
    pub cert: Option<String>,
    /// The private key of `cert`, unencrypted, in PKCS #8, PKCS #1 or SEC 1 form.
    #[schemars(extend("format" = "path"))]
    pub key: Option<Secret>,
    /// The name that the server's certificate must be valid for. Default: the host of the connection. Set it
    /// if the server is reached by an address or through a tunnel.
    pub server_name: Option<String>,
}

impl TlsSettings {
    /// The faults of these settings: files that cannot be read or have another content, and keys that need each
    /// other. The certificates that the operating system trusts are not read.
    pub fn faults(&self) -> Vec<Misfit> {
        let mut found = Vec::new();
        let mut note = |key: &str, result: Result<(), Failure>| {
            found.extend(result.err().map(|failure| Misfit::new(format!("tls.{key}"), failure)));
        };
        if self.ca.is_some() {
            note("ca", roots(self).map(drop));
        }
        match (&self.cert, &self.key) {
            (None, None) => {}
            (Some(_), None) => note("cert", Err(lonely("tls.cert", "tls.key"))),
            (None, Some(_)) => note("key", Err(lonely("tls.key", "tls.cert"))),
            (Some(cert), Some(key)) => match (certificates("tls.cert", cert), private_key(key)) {
                (Ok(chain), Ok(key)) => note("cert", identity(chain, key)),
                (chain, key) => {
                    note("cert", chain.map(drop));
                    note("key", key.map(drop));
                }
            },
        }
        if let Some(name) = &self.server_name {
            let name = ServerName::try_from(name.as_str()).map(drop);
            note(
                "server_name",
                name.map_err(|error| {
                    fault("use `tls.server_name`", "Write the name or address that the certificate is for.")
                        .detail(error.to_string())
                }),
            );
        }
        found
    }
}

/// Whether a certificate and a key belong together.
fn identity(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::internal("set up TLS 1.2 and 1.3 with ring").because(error))?
        .with_root_certificates(RootCertStore::empty());
    builder.with_client_auth_cert(chain, key).map(drop).map_err(foreign_key)
}

fn foreign_key(error: rustls::Error) -> Failure {
    fault("use `tls.cert` with `tls.key`", "Give the private key that belongs to the certificate.")
        .detail(error.to_string())
        .because(error)
}

/// Makes a client's configuration: rustls with ring, TLS 1.2 and 1.3.
///
/// `server_name` is not part of it: the caller passes that name (or the host) to the handshake.
///
/// # Errors
/// A file cannot be read, holds no certificate or key, or the certificate and key do not belong together.
pub fn client_config(settings: &TlsSettings) -> Result<Arc<ClientConfig>, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(settings)?);
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().map_err(|error| {
            fault("use the authorities of `tls.ca`", "Give at least one CA certificate.").because(error)
        })?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::internal("set up TLS 1.2 and 1.3 with ring").because(error))?
        .with_webpki_verifier(verifier);
    let config = match (&settings.cert, &settings.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates("tls.cert", cert)?;
            let key = private_key(key)?;
            builder.with_client_auth_cert(chain, key).map_err(foreign_key)?
        }
        (Some(_), None) => return Err(lonely("tls.cert", "tls.key")),
        (None, Some(_)) => return Err(lonely("tls.key", "tls.cert")),
    };
    Ok(Arc::new(config))
}

/// Makes a server's configuration: rustls with ring, TLS 1.2 and 1.3, HTTP/1.1. `cert` and `key` are paths of PEM files, or PEM texts.
/// Files that were replaced are used for connections from then on.
///
/// # Errors
/// A file cannot be read, holds no certificate or key, or the two do not belong together.
pub fn server_config(cert: &str, key: &Secret) -> Result<Arc<ServerConfig>, Failure> {
    let files = [Some(cert), Some(key.reveal())];
    let (cert, key) = (cert.to_owned(), key.clone());
    let certified = move || certified(&cert, &key).map(Arc::new);
    let certified = Watched::new(&files, Box::new(certified))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::internal("set up TLS 1.2 and 1.3 with ring").because(error))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Makes the configuration of a client that takes one server only: the one that has this certificate and its key, whatever its name is and
/// whoever signed it. `cert` is the path of a PEM file, or the PEM text.
///
/// # Errors
/// The file cannot be read or holds no certificate.
pub fn pinned_client_config(cert: &str) -> Result<Arc<ClientConfig>, Failure> {
    let Some(certificate) = certificates("tls.cert", cert)?.into_iter().next() else {
        return Err(fault("use `tls.cert`", "Give a certificate in PEM form.").detail("it holds none"));
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::internal("set up TLS 1.2 and 1.3 with ring").because(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { certificate, algorithms }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes one certificate only.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn certified(cert: &str, key: &Secret) -> Result<CertifiedKey, Failure> {
    let provider = rustls::crypto::ring::default_provider();
    let (chain, key) = (certificates("tls.cert", cert)?, private_key(key)?);
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
        fault("use `tls.cert` with `tls.key`", "Give the private key that belongs to the certificate.")
            .because(error)
    })
}

/// Gives each connection the current certificate.
struct Resolver(Watched<Arc<CertifiedKey>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.now())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// A value that is made from files, and made again when one of them is replaced.
pub(crate) struct Watched<T> {
    paths: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<T, Failure> + Send + Sync>,
    made: Mutex<(Vec<Stamp>, T)>,
}

/// Identifies the version of a file: inode, size and modification time. `None`: the file does not exist.
type Stamp = Option<(u64, u64, Option<SystemTime>)>;

impl<T: Clone> Watched<T> {
    /// Makes it for the first time. `sources` are paths, or PEM texts, which do not change.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn new(
        sources: &[Option<&str>],
        make: Box<dyn Fn() -> Result<T, Failure> + Send + Sync>,
    ) -> Result<Watched<T>, Failure> {
        let paths = sources.iter().flatten().filter(|source| !is_pem(source)).map(PathBuf::from);
        let paths: Vec<PathBuf> = paths.collect();
        let stamps = stamps(&paths);
        let made = make()?;
        Ok(Watched { paths, make, made: Mutex::new((stamps, made)) })
    }

    /// The value of the current files. If they cannot be read, or do not belong together yet, the last value.
    pub(crate) fn now(&self) -> T {
        let now = stamps(&self.paths);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.0 != now
            && let Ok(again) = (self.make)()
        {
            *made = (now, again);
        }
        made.1.clone()
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
    };
    paths.iter().map(stamp).collect()
}

/// A client's configuration that is made again when one of its files is replaced.
///
/// # Errors
/// As [`client_config`].
pub(crate) fn watched_client_config(settings: &TlsSettings) -> Result<Watched<Arc<ClientConfig>>, Failure> {
    let sources =
        [settings.ca.as_deref(), settings.cert.as_deref(), settings.key.as_ref().map(Secret::reveal)];
    let again = settings.clone();
    Watched::new(&sources, Box::new(move || client_config(&again)))
}

fn roots(settings: &TlsSettings) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &settings.ca {
        for certificate in certificates("tls.ca", ca)? {
            roots.add(certificate).map_err(|error| {
                fault("use a certificate of `tls.ca`", "Give a CA certificate in PEM form.").because(error)
            })?;
        }
        return Ok(roots);
    }
    // The stores of operating systems contain certificates that no library accepts. One valid certificate is
    // enough to continue; a server that none of them signed is refused when it is connected to.
    roots.add_parsable_certificates(system_roots()?);
    Ok(roots)
}

/// The certificates of the authorities the operating system trusts.
pub(crate) fn system_roots() -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let failure = fault(
            "read the certificates the system trusts",
            "Install the package `ca-certificates`, or name the server's authority in `tls.ca`.",
        );
        return Err(match found.errors.into_iter().next() {
            Some(error) => failure.because(error),
            None => failure.detail("there are none"),
        });
    }
    Ok(found.certs)
}

fn certificates(setting: &str, source: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let pem = read(setting, source)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(setting, source).because(error))?;
    if certificates.is_empty() {
        return Err(unreadable(setting, source).detail("it holds no `BEGIN CERTIFICATE`"));
    }
    Ok(certificates)
}

fn private_key(key: &Secret) -> Result<PrivateKeyDer<'static>, Failure> {
    let pem = read("tls.key", key.reveal())?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        unreadable("tls.key", key.reveal())
            .remedy("Give an unencrypted private key in PEM form.")
            .because(error)
    })
}

fn read(setting: &str, source: &str) -> Result<Vec<u8>, Failure> {
    if is_pem(source) {
        return Ok(source.as_bytes().to_vec());
    }
    no_controls(&format!("`{setting}`"), source)
        .map_err(|unusable| fault(&format!("read `{setting}`"), &unusable.remedy).detail(unusable.detail))?;
    std::fs::read(source)
        .map_err(|error| unreadable(setting, source).detail(error.to_string()).because(error))
}

/// Whether a setting is the PEM text itself, not the path of a file.
pub(crate) fn is_pem(source: &str) -> bool {
    source.trim_start().starts_with("-----BEGIN")
}

fn unreadable(setting: &str, source: &str) -> Failure {
    let what = format!("read `{setting}`");
    let failure = fault(&what, "Give the path of a PEM file that Warren may read, or the PEM text itself.");
    if is_pem(source) { failure } else { failure.at(source) }
}

fn lonely(given: &str, missing: &str) -> Failure {
    fault(&format!("use `{given}`"), &format!("Give `{missing}` as well, or neither."))
        .detail(format!("`{missing}` is missing"))
}

fn fault(what: &str, remedy: &str) -> Failure {
    Failure::new(FailureKind::Invalid, codes::TLS_FAILED, what).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A self-signed certificate for `localhost` whose key was thrown away.
    const CERT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBljCCATugAwIBAgIUXw7iOxKle6A3XsIDQQ+Ozc69WhYwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTIyMzQ1N1oYDzIxMjYxMDI4
MjIzNDU3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARzj9gK3tu4kj2tnpWYvpGsoe7GrS2/5gHU3n+U4WD8gsNmKlzZQqld
ONq/BfWSciEPuyLMCQIUsh6feAKJFLo2o2kwZzAdBgNVHQ4EFgQUTeOvlK7CJHnU
+zjDG/Pzn5Sg8iMwHwYDVR0jBBgwFoAUTeOvlK7CJHnU+zjDG/Pzn5Sg8iMwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SQAwRgIhALcXi0PRS8QTi8u8aJaBlJB2j2/Zx12MRNzgd/dXHREQAiEA5zqmcgwP
WYV6az2v9O6PsFmyeuVG2BDilZ+AxhE5uK8=
-----END CERTIFICATE-----\n";

    fn settings(ca: Option<&str>, cert: Option<&str>, key: Option<&str>) -> TlsSettings {
        TlsSettings {
            ca: ca.map(str::to_owned),
            cert: cert.map(str::to_owned),
            key: key.map(Secret::new),
            server_name: None,
        }
    }

    #[test]
    fn pem_text_and_files_are_both_taken() {
        client_config(&settings(Some(CERT), None, None)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, CERT).unwrap();
        client_config(&settings(path.to_str(), None, None)).unwrap();
    }

    #[test]
    fn what_is_wrong_is_said_with_its_setting_and_place() {
        let missing = client_config(&settings(Some("/nowhere/ca.pem"), None, None)).unwrap_err();
        assert_eq!(missing.code, codes::TLS_FAILED);
        assert_eq!(
            missing.to_string(),
            "read `tls.ca` (/nowhere/ca.pem): No such file or directory (os error 2)"
        );
        assert!(missing.cause.is_some());
        let empty =
            client_config(&settings(Some("-----BEGIN NOTHING-----\n-----END NOTHING-----\n"), None, None))
                .unwrap_err();
        assert_eq!(empty.to_string(), "read `tls.ca`: it holds no `BEGIN CERTIFICATE`");
        let lonely = client_config(&settings(Some(CERT), Some(CERT), None)).unwrap_err();
        assert_eq!(lonely.to_string(), "use `tls.cert`: `tls.key` is missing");
        let no_key = client_config(&settings(Some(CERT), Some(CERT), Some(CERT))).unwrap_err();
        assert_eq!(no_key.to_string(), "read `tls.key`");
    }

    #[test]
    fn a_path_that_ends_in_a_line_break_is_named_as_such() {
        let failure = client_config(&settings(Some("/nowhere/ca.pem\n"), None, None)).unwrap_err();
        assert_eq!(failure.to_string(), "read `tls.ca`: `tls.ca` ends in a line break");
        client_config(&settings(Some(&format!("\n{CERT}\n")), None, None)).unwrap();
    }

    #[test]
    fn files_that_were_replaced_are_used_and_what_does_not_fit_yet_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value");
        let write = |text: &str| {
            std::fs::write(folder.path().join("new"), text).unwrap();
            std::fs::rename(folder.path().join("new"), &path).unwrap();
        };
        write("one");
        let read = path.clone();
        let make = move || match std::fs::read_to_string(&read) {
            Ok(text) if text != "bad" => Ok(text),
            _ => Err(fault("read the value", "")),
        };
        let watched = Watched::new(&[path.to_str(), Some(CERT), None], Box::new(make)).unwrap();
        assert_eq!(watched.now(), "one");
        write("two, by rename");
        assert_eq!(watched.now(), "two, by rename");
        write("bad");
        assert_eq!(watched.now(), "two, by rename");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(watched.now(), "two, by rename");
        write("three");
        assert_eq!(watched.now(), "three");
    }

    #[test]
    fn a_key_given_as_text_never_shows() {
        let broken = "-----BEGIN PRIVATE KEY-----\nswordfish";
        let failure = client_config(&settings(Some(CERT), Some(CERT), Some(broken))).unwrap_err();
        assert!(!format!("{failure:?}").contains("swordfish"));
    }
}
