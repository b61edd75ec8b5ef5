//! Commands for the cluster as a whole.

use super::{Context, Run, commands};
use crate::{args::duration, failure::Failure};
use clap::{Args, ValueEnum};
use drover_model::wire::SetMaintenance;
use std::time::Duration;

commands! {
    /// Manage the cluster as a whole
    Cluster {
        Maintenance(Maintenance),
    }
}

/// Switch maintenance on or off
///
/// 'drover status' shows whether it is on, and until when.
///
/// Examples: drover cluster maintenance on --for 2h; drover cluster maintenance off
#[derive(Debug, Args)]
pub(crate) struct Maintenance {
    /// Whether to switch maintenance on or off
    #[arg(value_enum)]
    switch: Switch,
    /// End maintenance after this time: 90s, 45m, 2h, 3d; if not given, it lasts until it is switched off
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasts: Option<Duration>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// Switch it on
    On,
    /// Switch it off
    Off,
}

impl Run for Maintenance {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let state = self.switch == Switch::On;
        if !state && self.lasts.is_some() {
            return Err(Failure::usage("--for can only be used with 'on'"));
        }
        let duration = self.lasts.map(|lasts| lasts.as_secs());
        let done = context.client()?.set_maintenance(&SetMaintenance { state, until: None, duration }).await?;
        context.output.done(&done.message, &done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{args::Arguments, commands::Command};
    use clap::Parser;

    #[test]
    fn maintenance_can_be_limited_in_time() {
        let parsed = |line: &str| match Arguments::try_parse_from(line.split(' ')).ok()?.command {
            Command::Cluster(Cluster::Maintenance(Maintenance { switch, lasts })) => {
                Some((switch, lasts.map(|l| l.as_secs())))
            }
            _ => None,
        };
        for (line, order) in [
            ("drover cluster maintenance on", Some((Switch::On, None))),
            ("drover cluster maintenance on --for 2h", Some((Switch::On, Some(7200)))),
            ("drover cluster maintenance off", Some((Switch::Off, None))),
            ("drover cluster maintenance on --for 2", None),
            ("drover cluster maintenance on --for 10ms", None),
            ("drover cluster maintenance", None),
        ] {
            assert_eq!(parsed(line), order, "{line}");
        }
    }
}
