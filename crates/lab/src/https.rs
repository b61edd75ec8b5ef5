//! A small HTTPS server for doubles of services: a certificate that an authority of its own has signed, and one request
//! for each connection.

use crate::tools::{Attempt, LabError, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

/// Maximum length of a request, in bytes.
const REQUEST_MAX: usize = 64 << 10;
/// How long a client may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What a service proves itself by.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: String,
}

impl Identity {
    /// A new key, certificate and authority for a host name or an address.
    ///
    /// # Errors
    /// If the name is not valid.
    pub fn new(host: &str) -> Result<Identity> {
        let failed = || format!("cannot make a certificate for {host}");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().attempt(failed)?).attempt(failed)?;
        let key = KeyPair::generate().attempt(failed)?;
        let params = CertificateParams::new(vec![host.to_owned()]).attempt(failed)?;
        let certificate = params.signed_by(&key, &authority).attempt(failed)?;
        Ok(Identity { certificate: certificate.der().to_vec(), key: key.serialize_der(), authority: authority.pem() })
    }

    /// SHA-256 of the certificate, in hexadecimal.
    pub fn pin(&self) -> String {
        Sha256::digest(&self.certificate).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The authority's certificate, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    fn config(&self) -> Result<ServerConfig> {
        let failed = || "cannot use the certificate".to_owned();
        let certificate = CertificateDer::from(self.certificate.clone());
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .attempt(failed)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(self.key.clone()).into())
            .attempt(failed)
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// Path, with the query.
    pub path: String,
    /// User and password of "basic" authorisation.
    pub user: Option<(String, String)>,
    /// The body.
    pub body: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// An answer without further headers.
    pub fn new(status: u16, body: impl Into<String>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into() }
    }
}

/// Serves until the process ends, each connection in a thread of its own. A client that does not trust the certificate
/// gets nothing.
///
/// # Errors
/// If the identity is not valid.
pub fn serve<F>(listener: TcpListener, identity: &Identity, answer: F) -> Result<()>
where
    F: Fn(&Request) -> Answer + Send + Sync + 'static,
{
    let (config, answer) = (Arc::new(identity.config()?), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, answer) = (config.clone(), answer.clone());
            // Who hangs up early has lost interest.
            std::thread::spawn(move || one(stream, config, &*answer).ok());
        }
    });
    Ok(())
}

fn one(stream: TcpStream, config: Arc<ServerConfig>, answer: &dyn Fn(&Request) -> Answer) -> Result<()> {
    let failed = || "a connection failed".to_owned();
    stream.set_read_timeout(Some(SILENCE_MAX)).attempt(failed)?;
    let mut stream = StreamOwned::new(ServerConnection::new(config).attempt(failed)?, stream);
    let mut text = Vec::new();
    let request = loop {
        if let Some(request) = parse(&text) {
            break request;
        }
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).attempt(failed)?;
        if n == 0 || text.len() > REQUEST_MAX {
            return Err(LabError::new(failed(), "no whole request"));
        }
        text.extend_from_slice(buffer.get(..n).unwrap_or_default());
    };
    let Answer { status, headers, body } = answer(&request);
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all((head + &body).as_bytes()).attempt(failed)?;
    stream.conn.send_close_notify();
    stream.flush().attempt(failed)
}

/// A request, if it is complete.
fn parse(text: &[u8]) -> Option<Request> {
    let text = std::str::from_utf8(text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |wanted: &str| {
        let mut headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let user = header("authorization").and_then(|value| {
        let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
    });
    let mut first = head.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    (body.len() >= length).then(|| Request { method, path, user, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_complete_with_its_body() {
        let head = "POST /x HTTP/1.1\r\nauthorization: Basic b3A6czpjcmV0\r\ncontent-length: 4\r\n\r\n";
        let request = parse(format!("{head}{{}}\r\n").as_bytes()).unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/x"));
        assert_eq!(request.user, Some(("op".to_owned(), "s:cret".to_owned())));
        for incomplete in [&head[..head.len() - 1], &format!("{head}{{}}")] {
            assert_eq!(parse(incomplete.as_bytes()), None);
        }
        assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n").map(|request| request.user), Some(None));
    }
}
