//! Redfish: the driver against a service with TLS, of one system, that can be told to misbehave.

use drover_drivers::power::{Power, PowerControl, PowerError};
use drover_model::{Bmc, BmcAccess, PowerState, Secret, Trust};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

/// How the service behaves.
#[derive(Clone, Default)]
struct Behaviour {
    /// `PowerState` of the system.
    power: &'static str,
    /// The status of the answer to an order, and whether it is followed.
    order: (u16, bool),
    /// Instead of its answers.
    instead: Option<(&'static str, &'static str)>,
    systems: usize,
    /// The resource's path of the action.
    target: &'static str,
    requests: Vec<String>,
}

struct Service {
    port: u16,
    pin: String,
    authority: String,
    behaviour: Arc<Mutex<Behaviour>>,
}

/// `operator:s3cret` in base64.
const AUTHORISATION: &str = "authorization: basic b3blcmf0b3i6cznjcmv0";
const SYSTEM: &str = "/redfish/v1/Systems/1";
const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

impl Service {
    async fn start() -> Service {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let pin = Sha256::digest(certificate.der()).iter().map(|byte| format!("{byte:02x}")).collect();
        let config =
            ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behaviour =
            Behaviour { power: "On", order: (204, true), systems: 1, target: RESET, ..Behaviour::default() };
        let behaviour = Arc::new(Mutex::new(behaviour));
        let (acceptor, shared) = (TlsAcceptor::from(Arc::new(config)), behaviour.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behaviour) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    // A client that does not trust the certificate ends here.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let request = request(&mut stream).await;
                    let answer = answer(&mut behaviour.lock().unwrap(), &request);
                    stream.write_all(answer.as_bytes()).await.ok();
                    stream.shutdown().await.ok();
                });
            }
        });
        Service { port, pin, authority: authority.pem(), behaviour }
    }

    fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    fn trusting(&self, trust: Trust) -> Bmc {
        let (url, user) = (format!("https://127.0.0.1:{}", self.port), "operator".to_owned());
        let access = BmcAccess::Redfish { url, system: None, user, trust };
        Bmc { access, password: Some(Secret::new("s3cret".to_owned())) }
    }

    fn bmc(&self) -> Bmc {
        self.trusting(Trust::Certificate(self.pin.clone()))
    }

    fn requests(&self) -> Vec<String> {
        self.behaviour.lock().unwrap().requests.clone()
    }
}

async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).await.unwrap_or(0);
        text.extend_from_slice(&buffer[..n]);
        let so_far = String::from_utf8_lossy(&text).into_owned();
        let lower = so_far.to_lowercase();
        let length =
            lower.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()?.trim().parse().ok());
        let whole = so_far.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length.unwrap_or(0));
        if whole || n == 0 {
            return so_far;
        }
    }
}

fn answer(service: &mut Behaviour, request: &str) -> String {
    let line = request.lines().next().unwrap_or_default().to_owned();
    service.requests.push(line.clone());
    let http = |status: u16, extra: &str, body: &str| {
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{extra}\r\n{body}", body.len())
    };
    if !request.to_lowercase().contains(AUTHORISATION) {
        return http(401, "", "");
    }
    if let Some((head, body)) = service.instead {
        return format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}");
    }
    match line.split(' ').take(2).collect::<Vec<_>>().join(" ").as_str() {
        "GET /redfish/v1/Systems" => {
            let members: Vec<String> =
                (1..=service.systems).map(|i| format!("{{\"@odata.id\":\"/redfish/v1/Systems/{i}\"}}")).collect();
            http(200, "", &format!("{{\"Members\":[{}]}}", members.join(",")))
        }
        get if get == format!("GET {SYSTEM}") => http(
            200,
            "",
            &format!(
                "{{\"PowerState\":\"{}\",\"Actions\":{{\"#ComputerSystem.Reset\":{{\"target\":\"{}\"}}}}}}",
                service.power, service.target
            ),
        ),
        post if post == format!("POST {RESET}") => {
            let (status, followed) = service.order;
            if followed {
                service.power = if request.contains(r#"{"ResetType":"ForceOff"}"#) { "Off" } else { "On" };
            }
            let said = r#"{"error":{"@Message.ExtendedInfo":[{"Message":"s3cret: host power is off already"}]}}"#;
            http(status, "", if status == 204 { "" } else { said })
        }
        _ => http(404, "", "{}"),
    }
}

#[tokio::test]
async fn power_is_read_cut_and_restored() {
    let (service, power) = (Service::start().await, PowerControl::default());
    let bmc = service.bmc();
    assert_eq!(power.state(&bmc).await, Ok(PowerState::On));
    power.off(&bmc).await.unwrap();
    assert_eq!(power.state(&bmc).await, Ok(PowerState::Off));
    power.on(&bmc).await.unwrap();
    assert_eq!(power.state(&bmc).await, Ok(PowerState::On));
}

#[tokio::test]
async fn only_the_trusted_service_gets_the_password() {
    let (service, other, power) = (Service::start().await, Service::start().await, PowerControl::default());
    assert_eq!(power.state(&service.trusting(Trust::Authority(service.authority.clone()))).await, Ok(PowerState::On));
    let seen = service.requests().len();
    for trust in [Trust::Certificate(other.pin.clone()), Trust::Authority(other.authority.clone())] {
        let error = power.state(&service.trusting(trust)).await.unwrap_err();
        assert!(matches!(error, PowerError::Untrusted { .. }), "{error:?}");
    }
    assert_eq!(service.requests().len(), seen);
    // The authority signed it for another name.
    let mut bmc = service.trusting(Trust::Authority(service.authority.clone()));
    let BmcAccess::Redfish { url, .. } = &mut bmc.access else { panic!() };
    *url = format!("https://localhost:{}", service.port);
    let error = power.state(&bmc).await.unwrap_err();
    assert!(matches!(error, PowerError::Untrusted { .. }), "{error:?}");
}

#[tokio::test]
async fn already_off_is_success_also_as_an_error_and_accepted_is_no_proof() {
    let (service, power) = (Service::start().await, PowerControl::default());
    for status in [409, 400] {
        service.set(|service| (service.power, service.order) = ("Off", (status, false)));
        power.off(&service.bmc()).await.unwrap();
        // The same answer while it is on: the order failed.
        service.set(|service| service.power = "On");
        let error = power.off(&service.bmc()).await.unwrap_err();
        assert!(matches!(error, PowerError::Failed { .. }), "{error:?}");
        assert!(
            error.to_string().contains("host power is off already") && !error.to_string().contains("s3cret"),
            "{error}"
        );
    }
    service.set(|service| service.order = (204, false));
    power.off(&service.bmc()).await.unwrap();
    assert_eq!(power.state(&service.bmc()).await, Ok(PowerState::On));
}

#[tokio::test]
async fn a_machine_whose_power_changes_is_not_off() {
    let (service, power) = (Service::start().await, PowerControl::default());
    for changing in ["PoweringOff", "PoweringOn"] {
        service.set(|service| service.power = changing);
        assert_eq!(power.state(&service.bmc()).await, Ok(PowerState::On), "{changing}");
    }
    service.set(|service| service.power = "Perhaps");
    assert!(matches!(power.state(&service.bmc()).await, Err(PowerError::Unusable { .. })));
}

#[tokio::test]
async fn wrong_services_prove_nothing() {
    let (service, power) = (Service::start().await, PowerControl::default());
    let endless: &'static str = Box::leak("[".repeat(300 << 10).into_boxed_str());
    for (instead, says) in [
        (("307 X\r\nLocation: https://127.0.0.2/\r\nContent-Length: 0", ""), "a redirect (307"),
        (("200 OK", "<html>"), "cannot be used: <html>"),
        (("200 OK", endless), "endless"),
        (("503 X", ""), "503"),
        (("403 X", ""), "refuses the user or the password"),
    ] {
        service.set(|service| service.instead = Some(instead));
        let error = power.state(&service.bmc()).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    service.set(|service| (service.instead, service.systems) = (None, 2));
    let error = power.state(&service.bmc()).await.unwrap_err().to_string();
    assert!(error.contains("it has several systems (/redfish/v1/Systems/1, /redfish/v1/Systems/2)"), "{error}");
    service.set(|service| (service.systems, service.target) = (1, "https://127.0.0.2/reset"));
    let error = power.off(&service.bmc()).await.unwrap_err().to_string();
    assert!(error.contains("is not a path of this service"), "{error}");
    let mut bmc = service.bmc();
    bmc.password = Some(Secret::new("wrong".to_owned()));
    assert!(matches!(power.state(&bmc).await, Err(PowerError::Credentials { .. })));
    let BmcAccess::Redfish { url, .. } = &mut bmc.access else { panic!() };
    *url = "https://127.0.0.1:1".to_owned();
    let error = power.state(&bmc).await.unwrap_err();
    assert!(matches!(error, PowerError::Unreachable { .. }), "{error:?}");
}
