//! Redfish over HTTPS (DMTF DSP0266): the power of a `ComputerSystem`, and its action `Reset`.
//!
//! The service is recognised by its certificate or by an authority ([`Trust`]), never by its address alone. Redirects
//! are not followed: they would bring the password elsewhere. The system's resource says where its action is; only a
//! path of the same service is accepted for it.

use super::{CALL_TIMEOUT, PowerError, tls, words};
use drover_model::{Bmc, PowerState, Trust};
use reqwest::{Client, Method, Response, StatusCode, Url};
use rustls::CertificateError;
use serde_json::{Value, json};
use std::error::Error;
use tokio::time::timeout;

/// Maximum length of an answer, in bytes.
const ANSWER_MAX: usize = 256 << 10;

/// The service, the system and the user.
pub(super) struct Access<'a> {
    pub(super) url: &'a str,
    pub(super) system: Option<&'a str>,
    pub(super) user: &'a str,
    pub(super) trust: &'a Trust,
}

struct Service<'a> {
    bmc: &'a Bmc,
    access: Access<'a>,
    url: Url,
    client: Client,
}

pub(super) async fn state(bmc: &Bmc, access: Access<'_>) -> Result<PowerState, PowerError> {
    let work = async {
        let service = Service::new(bmc, access)?;
        let (_, system) = service.system().await?;
        service.power_of(&system)
    };
    within(bmc, work).await
}

pub(super) async fn order(bmc: &Bmc, access: Access<'_>, wanted: PowerState) -> Result<(), PowerError> {
    let work = async {
        let service = Service::new(bmc, access)?;
        let (path, system) = service.system().await?;
        let reset = match wanted {
            PowerState::Off => "ForceOff",
            PowerState::On => "On",
        };
        let named = system.pointer("/Actions/#ComputerSystem.Reset/target").and_then(Value::as_str);
        let target = named.map_or_else(|| format!("{path}/Actions/ComputerSystem.Reset"), str::to_owned);
        let (status, answer) = service.ask(Method::POST, &target, Some(json!({ "ResetType": reset }))).await?;
        if status.is_success() {
            return Ok(());
        }
        // "Already off" is 409 with some services, 400 with others: the state tells.
        let refused = service.failure(status, &answer);
        let (_, system) = service.system().await?;
        if service.power_of(&system)? == wanted { Ok(()) } else { Err(refused) }
    };
    within(bmc, work).await
}

async fn within<T>(bmc: &Bmc, work: impl Future<Output = Result<T, PowerError>>) -> Result<T, PowerError> {
    let late = |_| PowerError::Timeout { bmc: bmc.to_string(), after: CALL_TIMEOUT };
    timeout(CALL_TIMEOUT, work).await.map_err(late)?
}

impl<'a> Service<'a> {
    fn new(bmc: &'a Bmc, access: Access<'a>) -> Result<Service<'a>, PowerError> {
        let local = |why: String| PowerError::Local { bmc: bmc.to_string(), why };
        let url = Url::parse(access.url).map_err(|error| local(format!("its URL is not valid: {error}")))?;
        if url.scheme() != "https" {
            return Err(local("its URL does not begin with https://".to_owned()));
        }
        let config = tls::config(access.trust).map_err(local)?;
        let client = Client::builder()
            .use_preconfigured_tls(config)
            .redirect(reqwest::redirect::Policy::none())
            // A proxy in the daemon's environment would get the password.
            .no_proxy()
            .build()
            .map_err(|error| local(error.to_string()))?;
        Ok(Service { bmc, access, url, client })
    }

    fn unusable(&self, answer: &str) -> PowerError {
        PowerError::Unusable { bmc: self.bmc.to_string(), answer: words(self.bmc, answer) }
    }

    /// The system's path and resource.
    async fn system(&self) -> Result<(String, Value), PowerError> {
        let path = match self.access.system {
            Some(path) => path.to_owned(),
            None => {
                let systems = self.get("/redfish/v1/Systems").await?;
                let members = systems.get("Members").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let paths: Vec<&str> =
                    members.iter().filter_map(|member| member.get("@odata.id").and_then(Value::as_str)).collect();
                match paths.as_slice() {
                    [one] => (*one).to_owned(),
                    [] => return Err(self.unusable("it has no system")),
                    several => {
                        let named = several.join(", ");
                        return Err(
                            self.unusable(&format!("it has several systems ({named}); name one in the configuration"))
                        );
                    }
                }
            }
        };
        let system = self.get(&path).await?;
        Ok((path.trim_end_matches('/').to_owned(), system))
    }

    /// The power by the system's resource. While it changes, the machine counts as on: it may still do something.
    fn power_of(&self, system: &Value) -> Result<PowerState, PowerError> {
        match system.get("PowerState").and_then(Value::as_str) {
            Some("Off") => Ok(PowerState::Off),
            Some("On" | "PoweringOn" | "PoweringOff" | "Paused") => Ok(PowerState::On),
            Some(other) => Err(self.unusable(&format!("PowerState is {other:?}"))),
            None => Err(self.unusable("it names no PowerState")),
        }
    }

    async fn get(&self, path: &str) -> Result<Value, PowerError> {
        let (status, answer) = self.ask(Method::GET, path, None).await?;
        if !status.is_success() {
            return Err(self.failure(status, &answer));
        }
        serde_json::from_slice(&answer).map_err(|_| self.unusable(&String::from_utf8_lossy(&answer)))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<(StatusCode, Vec<u8>), PowerError> {
        if !path.starts_with('/') || path.starts_with("//") {
            return Err(self.unusable(&format!("{path:?} is not a path of this service")));
        }
        let url = self.url.join(path).map_err(|_| self.unusable(&format!("{path:?} is not a path")))?;
        if url.origin() != self.url.origin() {
            return Err(self.unusable(&format!("{path:?} leads to another service")));
        }
        let password = self.bmc.password.as_ref().map(|password| password.reveal());
        let request = self.client.request(method, url).basic_auth(self.access.user, password);
        let request = request.header("Accept", "application/json").header("OData-Version", "4.0");
        let request = match body {
            Some(body) => request.header("Content-Type", "application/json").body(body.to_string()),
            None => request,
        };
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(self.unusable(&format!("a redirect ({status}), which is not followed")));
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(PowerError::Credentials { bmc: self.bmc.to_string() });
        }
        Ok((status, self.body(response).await?))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, PowerError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(self.unusable("endless"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// An answer that is a failure, with the service's own words if there are any.
    fn failure(&self, status: StatusCode, answer: &[u8]) -> PowerError {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let said = ["/error/@Message.ExtendedInfo/0/Message", "/error/message"];
        let said = said.iter().find_map(|at| answer.pointer(at).and_then(Value::as_str));
        let why = said.map_or_else(|| status.to_string(), |said| format!("{} ({status})", words(self.bmc, said)));
        PowerError::Failed { bmc: self.bmc.to_string(), why }
    }

    fn unreachable(&self, error: &reqwest::Error) -> PowerError {
        let bmc = self.bmc.to_string();
        if let Some(why) = untrusted(error) {
            return PowerError::Untrusted { bmc, why };
        }
        // The last cause says it; those before repeat the URL.
        let mut last: &dyn Error = error;
        while let Some(cause) = last.source() {
            last = cause;
        }
        PowerError::Unreachable { bmc, why: words(self.bmc, &last.to_string()) }
    }
}

/// What is wrong with the certificate, if that is the cause.
fn untrusted(error: &reqwest::Error) -> Option<String> {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref() {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(why))) => return Some(why.0.to_string()),
            Some(rustls::Error::InvalidCertificate(why)) => {
                return Some(format!("its certificate is not accepted: {why}"));
            }
            _ => {}
        }
        // An I/O error hides the error inside it from `source`.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = inner.map(|inner| inner as &dyn Error).or_else(|| error.source());
    }
    None
}
