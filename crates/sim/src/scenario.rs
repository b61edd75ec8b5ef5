//! Scenarios: what people write of a cluster, of what happens to it, and of what they expect. Each is played by the
//! machines of the simulation, without weather, and told as a story. `docs/scenarios.md` describes the language.

mod commands;
mod expect;
mod language;
mod scene;
mod stage;

#[cfg(test)]
mod tests;

use crate::invariants::Judge;
use language::{Scenario, TICK};
use scene::Scene;
use stage::{Stage, Told};
use std::{fmt::Write, time::Duration};
use tokio::{
    runtime::{Builder, RngSeed},
    time::{Instant, sleep_until},
};

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// What happened, a line for each thing, with its time in seconds.
    pub story: String,
    /// What was expected and did not hold, or was violated although it must always hold. Empty: all is well.
    pub failures: Vec<String>,
}

/// Plays the scenario of this text. `file`: its name, for errors.
///
/// # Errors
/// The line that is not understood, and what is accepted there; or why the cluster did not come up.
pub fn play(file: &str, text: &str) -> Result<Played, String> {
    let scenario = language::read(file, text)?;
    // tokio uses random numbers too, for the order in which it polls.
    let chance = RngSeed::from_bytes(b"scenario");
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).rng_seed(chance).build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(perform(scenario)).map_err(|why| format!("{file}: {why}"))
}

/// The story as it is told.
#[derive(Default)]
struct Story {
    text: String,
}

impl Story {
    fn tell(&mut self, at: Duration, what: &str) {
        // Writing to a string does not fail.
        _ = writeln!(self.text, "{:6.1}  {what}", at.as_secs_f64());
    }
}

async fn perform(mut scenario: Scenario) -> Result<Played, String> {
    let mut stage = Stage::new(&scenario);
    let server = stage.world.cluster.clone();
    let server = tokio::spawn(async move { server.run().await });
    stage.set_up(&scenario).await?;
    let (began, mut story, mut failures) = (Instant::now(), Story::default(), Vec::new());
    let mut scene = Scene::default().look(&stage.world, &stage.vms, true);
    for sentence in scene.describe() {
        story.tell(Duration::ZERO, &sentence);
    }
    let (mut at, mut violation) = (Duration::ZERO, None);
    let mut commands = std::mem::take(&mut scenario.commands).into_iter().peekable();
    let mut said = String::new();
    loop {
        while let Some(timed) = commands.next_if(|command| command.at <= at) {
            // Several nodes are several commands, and were one line.
            let line = format!("{at:?} {}", timed.text);
            if said != line {
                story.tell(at, &format!("> {}", timed.text));
                said = line;
            }
            if let Err(why) = stage.act(&timed.text, &timed.command, timed.refused).await {
                failures.push(format!("after {:.1} s: {}: {why}", at.as_secs_f64(), timed.text));
            }
        }
        stage.notice();
        while let Ok(Told { text, refused, outcome }) = stage.told.try_recv() {
            let wrong = match &outcome {
                Ok(()) => refused.then(|| "is not refused".to_owned()),
                Err(why) => {
                    story.tell(at, &format!("'{text}' is refused: {why}"));
                    (!refused).then(|| format!("is refused: {why}"))
                }
            };
            failures.extend(wrong.map(|wrong| format!("after {:.1} s: '{text}' {wrong}", at.as_secs_f64())));
        }
        let whole = at.subsec_nanos() == 0;
        let now = scene.look(&stage.world, &stage.vms, whole);
        for sentence in now.since(&scene) {
            story.tell(at, &sentence);
        }
        let stirred = whole || now.calls != scene.calls;
        scene = now;
        if let Err(found) = stage.judge(stirred) {
            let what = scene::named(&found.what, &stage.vms);
            story.tell(at, &format!("! {what}"));
            violation = Some(what);
            break;
        }
        let ends = at >= scenario.end;
        failures.extend(scenario.expectations.iter_mut().filter_map(|expected| expected.check(at, ends, &scene)));
        if ends {
            break;
        }
        at += TICK;
        sleep_until(began + at).await;
    }
    match (&scenario.violation, violation) {
        (Some(expected), Some(found)) if found.contains(expected) => {}
        (None, None) => {}
        (Some(expected), None) => failures.push(format!("nothing is violated, and this was expected: {expected}")),
        (_, Some(found)) => failures.push(format!("after {:.1} s: {found}", at.as_secs_f64())),
    }
    // What ends now is nobody's fault.
    for machine in &mut stage.world.machines {
        machine.crash_daemon(&Judge::new(stage.world.cluster.clone(), stage.world.shape));
    }
    server.abort();
    Ok(Played { story: story.text, failures })
}
