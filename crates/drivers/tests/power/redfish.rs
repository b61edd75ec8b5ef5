//! Redfish: the driver against a service with TLS, of one system, that can be told to misbehave.

use drover_drivers::power::{Power, PowerControl, PowerError};
use drover_lab::{Answer, Identity, Redfish, https};
use drover_model::{Bmc, BmcAccess, PowerState, Secret, Trust};
use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
};

/// How the service behaves, and what it was asked.
struct Behaviour {
    redfish: Redfish,
    /// Instead of its answers.
    instead: Option<Answer>,
    requests: usize,
}

struct Service {
    port: u16,
    identity: Identity,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Service {
    fn start() -> Service {
        let identity = Identity::new("127.0.0.1").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let redfish = Redfish::new("operator", "s3cret", "On");
        let behaviour = Arc::new(Mutex::new(Behaviour { redfish, instead: None, requests: 0 }));
        let shared = behaviour.clone();
        https::serve(listener, &identity, move |request| {
            let mut behaviour = shared.lock().unwrap();
            behaviour.requests += 1;
            let outcome = behaviour.redfish.answer(request);
            if let Some(reset) = outcome.reset {
                behaviour.redfish.power = if reset == "ForceOff" { "Off" } else { "On" }.to_owned();
            }
            behaviour.instead.clone().filter(|_| outcome.answer.status != 401).unwrap_or(outcome.answer)
        })
        .unwrap();
        Service { port, identity, behaviour }
    }

    fn set(&self, change: impl FnOnce(&mut Redfish)) {
        change(&mut self.behaviour.lock().unwrap().redfish);
    }

    fn instead(&self, answer: Option<Answer>) {
        self.behaviour.lock().unwrap().instead = answer;
    }

    fn trusting(&self, trust: Trust) -> Bmc {
        let (url, user) = (format!("https://127.0.0.1:{}", self.port), "operator".to_owned());
        let access = BmcAccess::Redfish { url, system: None, user, trust };
        Bmc { access, password: Some(Secret::new("s3cret".to_owned())) }
    }

    fn bmc(&self) -> Bmc {
        self.trusting(Trust::Certificate(self.identity.pin()))
    }

    fn authority(&self) -> Trust {
        Trust::Authority(self.identity.authority().to_owned())
    }

    fn requests(&self) -> usize {
        self.behaviour.lock().unwrap().requests
    }
}

#[tokio::test]
async fn power_is_read_cut_and_restored() {
    let (service, power) = (Service::start(), PowerControl::default());
    let bmc = service.bmc();
    assert_eq!(power.state(&bmc).await, Ok(PowerState::On));
    power.off(&bmc).await.unwrap();
    assert_eq!(power.state(&bmc).await, Ok(PowerState::Off));
    power.on(&bmc).await.unwrap();
    assert_eq!(power.state(&bmc).await, Ok(PowerState::On));
}

#[tokio::test]
async fn only_the_trusted_service_gets_the_password() {
    let (service, other, power) = (Service::start(), Service::start(), PowerControl::default());
    assert_eq!(power.state(&service.trusting(service.authority())).await, Ok(PowerState::On));
    let seen = service.requests();
    for trust in [Trust::Certificate(other.identity.pin()), other.authority()] {
        let error = power.state(&service.trusting(trust)).await.unwrap_err();
        assert!(matches!(error, PowerError::Untrusted { .. }), "{error:?}");
    }
    assert_eq!(service.requests(), seen);
    // The authority signed it for another name.
    let mut bmc = service.trusting(service.authority());
    let BmcAccess::Redfish { url, .. } = &mut bmc.access else { panic!() };
    *url = format!("https://localhost:{}", service.port);
    let error = power.state(&bmc).await.unwrap_err();
    assert!(matches!(error, PowerError::Untrusted { .. }), "{error:?}");
}

#[tokio::test]
async fn already_off_is_success_also_as_an_error_and_accepted_is_no_proof() {
    let (service, power) = (Service::start(), PowerControl::default());
    for status in [409, 400] {
        service.set(|service| {
            (service.power, service.order_status, service.obeys) = ("Off".to_owned(), status, false);
        });
        power.off(&service.bmc()).await.unwrap();
        // The same answer while it is on: the order failed.
        service.set(|service| service.power = "On".to_owned());
        let error = power.off(&service.bmc()).await.unwrap_err();
        assert!(matches!(error, PowerError::Failed { .. }), "{error:?}");
        assert!(
            error.to_string().contains("host power is off already") && !error.to_string().contains("s3cret"),
            "{error}"
        );
    }
    service.set(|service| service.order_status = 204);
    power.off(&service.bmc()).await.unwrap();
    assert_eq!(power.state(&service.bmc()).await, Ok(PowerState::On));
}

#[tokio::test]
async fn a_machine_whose_power_changes_is_not_off() {
    let (service, power) = (Service::start(), PowerControl::default());
    for changing in ["PoweringOff", "PoweringOn"] {
        service.set(|service| service.power = changing.to_owned());
        assert_eq!(power.state(&service.bmc()).await, Ok(PowerState::On), "{changing}");
    }
    service.set(|service| service.power = "Perhaps".to_owned());
    assert!(matches!(power.state(&service.bmc()).await, Err(PowerError::Unusable { .. })));
}

#[tokio::test]
async fn wrong_services_prove_nothing() {
    let (service, power) = (Service::start(), PowerControl::default());
    let elsewhere = ("Location".to_owned(), "https://127.0.0.2/".to_owned());
    for (instead, says) in [
        (Answer { headers: vec![elsewhere], ..Answer::new(307, "") }, "a redirect (307"),
        (Answer::new(200, "<html>"), "cannot be used: <html>"),
        (Answer::new(200, "[".repeat(300 << 10)), "endless"),
        (Answer::new(503, ""), "503"),
        (Answer::new(403, ""), "refuses the user or the password"),
    ] {
        service.instead(Some(instead));
        let error = power.state(&service.bmc()).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    service.instead(None);
    service.set(|service| service.systems = 2);
    let error = power.state(&service.bmc()).await.unwrap_err().to_string();
    assert!(error.contains("it has several systems (/redfish/v1/Systems/1, /redfish/v1/Systems/2)"), "{error}");
    service.set(|service| (service.systems, service.target) = (1, "https://127.0.0.2/reset".to_owned()));
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
