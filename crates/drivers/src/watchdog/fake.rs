//! A fake watchdog for simulation and tests, on tokio's (virtual) clock: when it runs out, it calls whoever resets the
//! machine.
//!
//! It does what the kernel's does (`device`): it can be open once, goes on when its process ends, and is
//! petted by that; to open it pets it.

use super::{Started, Watchdog, WatchdogError};
use drover_model::Mono;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// Called when it has run out.
pub type OnReset = Arc<dyn Fn() + Send + Sync>;

/// What is different from a good watchdog, and the rates of the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Make {
    /// Its timeout.
    pub timeout: Duration,
    /// How much faster the machine's clock is, in thousandths; negative: slower.
    pub clock_per_mille: i32,
    /// The same for the timer.
    pub timer_per_mille: i32,
    /// A defect: it stops when its process ends.
    pub stops_when_closed: bool,
    /// A defect: it never resets the machine.
    pub never_resets: bool,
}

impl Default for Make {
    fn default() -> Make {
        Make {
            timeout: Duration::from_secs(10),
            clock_per_mille: 0,
            timer_per_mille: 0,
            stops_when_closed: false,
            never_resets: false,
        }
    }
}

/// The rate of a clock as a factor.
fn rate(per_mille: i32) -> f64 {
    f64::from(per_mille).mul_add(0.001, 1.0)
}

struct State {
    make: Make,
    /// The process that has it open.
    open: Option<u64>,
    /// The timer that runs.
    timer: Option<AbortHandle>,
    processes: u64,
}

/// The watchdog of a machine. Clones are the same one.
#[derive(Clone)]
pub struct FakeDevice {
    state: Arc<Mutex<State>>,
    start: Instant,
    reset: OnReset,
}

impl FakeDevice {
    /// One that is stopped.
    pub fn new(make: Make, reset: OnReset) -> FakeDevice {
        let state = State { make, open: None, timer: None, processes: 0 };
        FakeDevice { state: Arc::new(Mutex::new(state)), start: Instant::now(), reset }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The access of a new process.
    pub fn connect(&self) -> FakeWatchdog {
        let mut state = self.lock();
        state.processes += 1;
        FakeWatchdog { device: self.clone(), process: state.processes }
    }

    /// The machine has lost its power: nothing runs, and nobody has it open.
    pub fn power_off(&self) {
        let mut state = self.lock();
        state.open = None;
        stop(&mut state);
    }

    /// Whether its timer runs.
    pub fn runs(&self) -> bool {
        self.lock().timer.is_some()
    }

    fn pet(&self, state: &mut State) {
        stop(state);
        let after = state.make.timeout.div_f64(rate(state.make.timer_per_mille));
        let (end, device) = (Instant::now() + after, self.clone());
        let timer = tokio::spawn(async move {
            sleep_until(end).await;
            let never = {
                let mut state = device.lock();
                state.timer = None;
                state.make.never_resets
            };
            if !never {
                (device.reset)();
            }
        });
        state.timer = Some(timer.abort_handle());
    }
}

fn stop(state: &mut State) {
    if let Some(timer) = state.timer.take() {
        timer.abort();
    }
}

/// The watchdog as one process has it.
#[derive(Clone)]
pub struct FakeWatchdog {
    device: FakeDevice,
    process: u64,
}

impl FakeWatchdog {
    /// The process ends: the kernel closes what it had open.
    pub fn crash(&self) {
        let mut state = self.device.lock();
        if state.open != Some(self.process) {
            return;
        }
        state.open = None;
        if state.make.stops_when_closed {
            stop(&mut state);
        } else {
            self.device.pet(&mut state);
        }
    }

    fn failed(what: &'static str) -> WatchdogError {
        WatchdogError::Failed { device: "fake".to_owned(), what, why: "it is not open".to_owned() }
    }
}

impl Watchdog for FakeWatchdog {
    fn now(&self) -> Mono {
        let rate = rate(self.device.lock().make.clock_per_mille);
        Mono::default().after(self.device.start.elapsed().mul_f64(rate))
    }

    fn asked(&self) -> Duration {
        self.device.lock().make.timeout
    }

    fn open(&self) -> Result<Started, WatchdogError> {
        let mut state = self.device.lock();
        if state.open.is_some() {
            return Err(WatchdogError::Busy { device: self.name() });
        }
        state.open = Some(self.process);
        self.device.pet(&mut state);
        Ok(Started { identity: "fake".to_owned(), timeout: state.make.timeout })
    }

    fn pet(&self) -> Result<(), WatchdogError> {
        let mut state = self.device.lock();
        if state.open != Some(self.process) {
            return Err(FakeWatchdog::failed("pet it"));
        }
        self.device.pet(&mut state);
        Ok(())
    }

    fn close(&self) -> Result<(), WatchdogError> {
        let mut state = self.device.lock();
        if state.open == Some(self.process) {
            state.open = None;
            stop(&mut state);
        }
        Ok(())
    }

    fn name(&self) -> String {
        "fake".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::sleep;

    fn device(make: Make) -> (FakeDevice, Arc<AtomicU32>) {
        let resets = Arc::new(AtomicU32::new(0));
        let count = resets.clone();
        (FakeDevice::new(make, Arc::new(move || _ = count.fetch_add(1, Ordering::SeqCst))), resets)
    }

    #[tokio::test(start_paused = true)]
    async fn it_resets_the_machine_unless_it_is_petted_or_stopped() {
        let (device, resets) = device(Make::default());
        let watchdog = device.connect();
        watchdog.open().unwrap();
        sleep(Duration::from_secs(9)).await;
        watchdog.pet().unwrap();
        sleep(Duration::from_secs(9)).await;
        // Its process is killed, which pets it.
        watchdog.crash();
        assert_eq!(watchdog.pet(), Err(FakeWatchdog::failed("pet it")));
        sleep(Duration::from_secs(9)).await;
        let next = device.connect();
        next.open().unwrap();
        assert!(device.connect().open().is_err(), "it is open");
        sleep(Duration::from_secs(9)).await;
        assert_eq!(resets.load(Ordering::SeqCst), 0);
        next.close().unwrap();
        sleep(Duration::from_secs(60)).await;
        assert_eq!((resets.load(Ordering::SeqCst), device.runs()), (0, false));
        next.open().unwrap();
        sleep(Duration::from_secs(11)).await;
        assert_eq!(resets.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_have_rates() {
        let (device, resets) = device(Make { clock_per_mille: 100, timer_per_mille: -500, ..Make::default() });
        let watchdog = device.connect();
        watchdog.open().unwrap();
        sleep(Duration::from_secs(10)).await;
        assert_eq!((watchdog.now(), resets.load(Ordering::SeqCst)), (Mono(11_000), 0));
        sleep(Duration::from_secs(11)).await;
        assert_eq!(resets.load(Ordering::SeqCst), 1);
    }
}
