//! Requests about the cluster's configuration.

use super::{
    CommandError, Commands, Result,
    update::{Outcome, Write},
};
use crate::{events::About, operation::stamped, records};
use drover_model::{
    AfterProof, ClusterConfig, ClusterView, OnReturn, Only, Selector, Stall, WallTime,
    cluster::{DEADLINE_MAX_S, LIMIT_MAX, MAINTENANCE_MAX_S, TOLERATE_MAX},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

/// Maximum length of maintenance with an end.
const MAINTENANCE_MAX: Duration = Duration::from_secs(MAINTENANCE_MAX_S);

/// The wanted maintenance mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintenance {
    /// Off.
    Off,
    /// On until that time, or until somebody ends it.
    On(Option<WallTime>),
}

/// A change of the configuration; `None` leaves a value unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConfigChange {
    /// See [`ClusterConfig::selector`].
    pub selector: Option<Selector>,
    /// See [`drover_model::MoveLimits::per_source`].
    pub moves_per_source: Option<u32>,
    /// See [`drover_model::MoveLimits::per_target`].
    pub moves_per_target: Option<u32>,
    /// See [`drover_model::MoveLimits::cluster`].
    pub moves: Option<u32>,
    /// See [`ClusterConfig::stall`].
    pub stall: Option<Stall>,
    /// See [`ClusterConfig::migration_deadline_s`].
    pub migration_deadline_s: Option<u32>,
    /// See [`ClusterConfig::tolerate`].
    pub tolerate: Option<u32>,
    /// See [`ClusterConfig::after_proof`].
    pub after_proof: Option<AfterProof>,
    /// See [`ClusterConfig::power_on`].
    pub power_on: Option<bool>,
    /// See [`ClusterConfig::on_return`].
    pub on_return: Option<OnReturn>,
    /// See [`ClusterConfig::maintenance`].
    pub maintenance: Option<Maintenance>,
}

impl ConfigChange {
    fn apply(&self, config: &ClusterConfig, now: WallTime) -> Result<ClusterConfig> {
        let between = |field: &'static str, given: Option<u32>, now: u32, accepted: RangeInclusive<u32>| match given {
            Some(n) if !accepted.contains(&n) => {
                let (min, max) = accepted.into_inner();
                let message = format!("{field}: {n} is not accepted; accepted is a whole number from {min} to {max}");
                Err(CommandError::Invalid { field, given: n.to_string(), message })
            }
            given => Ok(given.unwrap_or(now)),
        };
        let within = |field, given, now, max| between(field, given, now, 1..=max);
        let mut next = config.clone();
        next.selector = self.selector.unwrap_or(next.selector);
        next.stall = self.stall.unwrap_or(next.stall);
        let limits = config.limits;
        next.limits.per_source = within("moves_per_source", self.moves_per_source, limits.per_source, LIMIT_MAX)?;
        next.limits.per_target = within("moves_per_target", self.moves_per_target, limits.per_target, LIMIT_MAX)?;
        next.limits.cluster = within("moves", self.moves, limits.cluster, LIMIT_MAX)?;
        let deadline = config.migration_deadline_s;
        next.migration_deadline_s = within("migration_deadline", self.migration_deadline_s, deadline, DEADLINE_MAX_S)?;
        next.tolerate = between("tolerate", self.tolerate, config.tolerate, 0..=TOLERATE_MAX)?;
        next.after_proof = self.after_proof.unwrap_or(next.after_proof);
        next.power_on = self.power_on.unwrap_or(next.power_on);
        next.on_return = self.on_return.unwrap_or(next.on_return);
        match self.maintenance {
            Some(Maintenance::On(Some(until))) if until <= now || until > now.after(MAINTENANCE_MAX) => {
                let (from, to) = (now.0, now.after(MAINTENANCE_MAX).0);
                let message = format!(
                    "until: {} ({until}) is not accepted; accepted are milliseconds since 1970, UTC, from now ({from}) \
                     to a year from now ({to})",
                    until.0
                );
                return Err(CommandError::Invalid { field: "until", given: until.0.to_string(), message });
            }
            Some(Maintenance::On(until)) => (next.maintenance, next.maintenance_until) = (true, until),
            Some(Maintenance::Off) => (next.maintenance, next.maintenance_until) = (false, None),
            None => {}
        }
        Ok(next)
    }
}

impl Commands {
    /// Changes the cluster's configuration.
    pub async fn set_config(&self, change: &ConfigChange) -> Result<ClusterConfig> {
        self.update(About::Other("the cluster's configuration".to_owned()), || async move {
            let Some(old) = records::read::<ClusterConfig>(&*self.ctx.store, &Only).await? else {
                return Err(CommandError::Unavailable(
                    "the cluster is not set up yet; try again in a moment".to_owned(),
                ));
            };
            let new = change.apply(&old.value, self.ctx.wall())?;
            if new == old.value {
                return Ok(Outcome::Unchanged(new));
            }
            let ops = vec![records::set_op(&Only, &old, &new)?];
            let (wanted, log) = (stamped(Some(&old.value), &new).into_owned(), differences(&old.value, &new));
            let shows = move |view: &ClusterView| view.config == wanted;
            Ok(Outcome::Write(Write { ops, answer: new, log, shows: Box::new(shows), taken: Vec::new() }))
        })
        .await
    }
}

/// What differs, for the log: each setting with its new and its old value.
fn differences(old: &ClusterConfig, new: &ClusterConfig) -> String {
    let settings = |config: &ClusterConfig| {
        let mut settings = BTreeMap::new();
        if let Ok(document) = serde_json::to_value(config) {
            flatten("", document, &mut settings);
        }
        settings
    };
    let (old, new) = (settings(old), settings(new));
    let of = |settings: &BTreeMap<String, String>, name: &str| {
        settings.get(name).cloned().unwrap_or_else(|| "the default".to_owned())
    };
    let names: BTreeSet<&String> =
        old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name)).collect();
    let changes = names.into_iter().map(|name| format!("{name} is {} (was {})", of(&new, name), of(&old, name)));
    changes.collect::<Vec<_>>().join(", ")
}

fn flatten(name: &str, value: Value, settings: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field } else { format!("{name}.{field}") };
                flatten(&name, value, settings);
            }
        }
        Value::String(word) => _ = settings.insert(name.to_owned(), word),
        other => _ = settings.insert(name.to_owned(), other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_what_has_changed() {
        let old = ClusterConfig::default();
        let mut new = ClusterConfig { power_on: true, selector: Selector::Vcpus, ..old.clone() };
        new.limits.cluster = 9;
        let says = "limits.cluster is 9 (was 8), power_on is true (was the default), selector is vcpus (was ";
        assert!(differences(&old, &new).starts_with(says), "{}", differences(&old, &new));
        assert_eq!(differences(&old, &old), "");
    }
}
