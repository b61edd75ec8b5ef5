//! A double of a Redfish service (DMTF DSP0266) as a BMC has it: systems with a power state, and the action `Reset`.
//!
//! It decides only what is answered. What an order does to a machine is up to its owner: a test, or a lab.

use crate::https::{Answer, Request};
use serde_json::json;

/// Path of the first system.
pub(crate) const SYSTEM: &str = "/redfish/v1/Systems/1";
/// Path of its action.
pub(crate) const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

/// A service, and how it behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Who may use it.
    pub user: String,
    /// The password.
    pub password: String,
    /// `PowerState` of the first system.
    pub power: String,
    /// The HTTP status of the answer to an order.
    pub order_status: u16,
    /// Whether an order is followed.
    pub obeys: bool,
    /// How many systems it names.
    pub systems: usize,
    /// Where the first system says that its action is.
    pub target: String,
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What is answered.
    pub answer: Answer,
    /// The `ResetType` that is to be followed.
    pub reset: Option<String>,
}

impl Service {
    /// One that behaves, of one system.
    pub fn new(user: &str, password: &str, power: &str) -> Service {
        Service {
            user: user.to_owned(),
            password: password.to_owned(),
            power: power.to_owned(),
            order_status: 204,
            obeys: true,
            systems: 1,
            target: RESET.to_owned(),
        }
    }

    /// What is answered to a request.
    pub fn answer(&self, request: &Request) -> Outcome {
        let only = |status: u16, body: String| Outcome { answer: Answer::new(status, body), reset: None };
        if request.user.as_ref() != Some(&(self.user.clone(), self.password.clone())) {
            return only(401, String::new());
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/redfish/v1/Systems") => {
                let members: Vec<_> =
                    (1..=self.systems).map(|i| json!({ "@odata.id": format!("/redfish/v1/Systems/{i}") })).collect();
                only(200, json!({ "Members": members }).to_string())
            }
            ("GET", SYSTEM) => {
                let actions = json!({ "#ComputerSystem.Reset": { "target": self.target } });
                only(200, json!({ "PowerState": self.power, "Actions": actions }).to_string())
            }
            ("POST", RESET) => {
                let order: serde_json::Value = serde_json::from_str(&request.body).unwrap_or_default();
                let reset = order["ResetType"].as_str().map(str::to_owned);
                // It may quote what it was sent.
                let why = format!("{}: host power is off already", self.password);
                let said = json!({ "error": { "@Message.ExtendedInfo": [{ "Message": why }] } });
                let said = if self.order_status < 300 { String::new() } else { said.to_string() };
                Outcome { reset: reset.filter(|_| self.obeys), ..only(self.order_status, said) }
            }
            _ => only(404, "{}".to_owned()),
        }
    }
}
