use super::*;
use drover_model::Dice;

const W: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1000)
}

fn timing() -> Timing {
    Timing::of(W)
}

/// A member that is connected, with an open device that it has just petted.
fn armed(promised: Promised, now: u64) -> Situation {
    Situation {
        now: at(now),
        timing: timing(),
        promised,
        wanted: true,
        member: true,
        connected: true,
        busy: false,
        open: true,
        began: at(0),
        tried: None,
        petted: Some(at(now)),
        sent: Some(at(now)),
    }
}

fn until(end: u64) -> Promised {
    Promised::Until { end: at(end), known: true }
}

#[test]
fn what_is_promised_follows_from_what_was_read_and_written() {
    use Promised::{Inherited, Nothing, Spent, Unknown, Until};
    let (maybe, known) = (Until { end: at(9), known: false }, until(9));
    for (before, none, withdrawn, promise) in [
        (Unknown, Nothing, Nothing, Inherited),
        (Nothing, Nothing, Nothing, Inherited),
        (Inherited, Spent, Nothing, Inherited),
        // A first promise whose answer is missing may still arrive.
        (maybe, maybe, maybe, known),
        // Only whoever has used it as a proof deletes it.
        (known, Spent, Nothing, known),
        (Spent, Spent, Spent, Spent),
    ] {
        let after = [Said::Nothing, Said::Withdrawn, Said::Promise].map(|said| before.read(said));
        assert_eq!(after, [none, withdrawn, promise], "{before:?}");
    }
    // It counts from the sending, and before there is an answer.
    assert_eq!(Nothing.sending(Write::Renew, at(1), &timing()), Until { end: at(21), known: false });
    for same in [Inherited, known, Spent] {
        assert_eq!(same.sending(Write::Renew, at(1), &timing()), same, "only an answer prolongs it");
    }
    assert_eq!(Inherited.done(Write::Renew, at(1), &timing()), until(21));
    assert_eq!(maybe.done(Write::Renew, at(1), &timing()), until(21));
    assert_eq!(until(40).done(Write::Renew, at(1), &timing()), until(40), "an answer that is late");
    assert_eq!(known.done(Write::Withdraw, at(1), &timing()), Nothing);
    assert_eq!(Spent.done(Write::Renew, at(1), &timing()), Spent);
}

#[test]
fn the_watchdog_is_petted_until_the_promise_ends_and_then_the_guests_are_ended() {
    let later = |s: Situation, now: u64| decide(&Situation { now: at(now), connected: false, ..s });
    let cut_off = armed(until(20), 10);
    let now = later(cut_off, 10);
    assert_eq!((now.pet, now.end_guests, now.again), (false, false, Some(at(12))));
    assert!(later(cut_off, 12).pet && later(cut_off, 19).pet && !later(cut_off, 19).end_guests);
    let over = later(cut_off, 20);
    assert!(!over.pet && over.end_guests && !over.close);
    // A process that was stopped for long.
    let thawed = later(cut_off, 500);
    assert!(!thawed.pet && thawed.end_guests && thawed.again.is_some(), "and it looks again");
    let spent = decide(&armed(Promised::Spent, 10));
    assert!(!spent.pet && spent.end_guests && spent.write.is_none());
    let may = [Promised::Unknown, Promised::Inherited, Promised::Spent].map(|promised| promised.may_pet(at(10)));
    assert_eq!((may, Promised::Nothing.may_pet(at(10))), ([false; 3], true));
    // Where nothing was promised, or nothing is known of it yet, the guests stay.
    for promised in [Promised::Nothing, Promised::Unknown, Promised::Inherited] {
        assert!(!later(armed(promised, 10), 500).end_guests, "{promised:?}");
    }
}

#[test]
fn the_device_is_open_before_the_first_promise_and_as_long_as_there_is_one() {
    let shut = |promised| Situation { open: false, ..armed(promised, 10) };
    let first = decide(&shut(Promised::Nothing));
    assert_eq!((first.open, first.write), (true, None));
    for s in [
        Situation { wanted: false, ..shut(Promised::Nothing) },
        Situation { member: false, ..shut(Promised::Nothing) },
        Situation { connected: false, ..shut(Promised::Nothing) },
    ] {
        assert_eq!(decide(&s), Decision::default(), "{s:?}");
    }
    let ready = Situation { sent: None, ..armed(Promised::Nothing, 10) };
    assert_eq!(decide(&ready).write, Some(Write::Renew));
    assert_eq!(decide(&Situation { member: false, ..ready }).write, None);
    // The last renewal of an earlier daemon is not known: to open the device would pet it.
    let heir = Situation { member: false, sent: None, ..shut(Promised::Inherited) };
    assert_eq!((decide(&heir).open, decide(&heir).write), (false, Some(Write::Renew)));
    assert!(decide(&Situation { member: false, ..shut(until(20)) }).open);
    assert!(!decide(&shut(until(10))).open, "the promise has ended");
    let failed = Situation { tried: Some(at(10)), ..shut(until(20)) };
    assert!(!decide(&failed).open && decide(&failed).again.is_some());
}

#[test]
fn the_promise_is_withdrawn_before_the_device_is_closed() {
    let unwanted = |promised| Situation { wanted: false, sent: None, ..armed(promised, 10) };
    let still = decide(&unwanted(until(20)));
    assert_eq!((still.write, still.close), (Some(Write::Withdraw), false));
    let petted = Situation { petted: Some(at(0)), connected: false, ..unwanted(until(20)) };
    assert!(decide(&petted).pet, "it is petted until that is known");
    let over = decide(&unwanted(Promised::Nothing));
    assert_eq!((over.write, over.close), (None, true));
    assert_eq!(decide(&Situation { busy: true, ..unwanted(until(20)) }).write, None);
    // The timer of an earlier daemon runs: it is stopped by who has opened it.
    let inherited = decide(&Situation { open: false, ..unwanted(Promised::Inherited) });
    assert_eq!((inherited.open, inherited.write), (false, Some(Write::Renew)));
    let renewed = decide(&Situation { open: false, ..unwanted(until(20)) });
    assert_eq!((renewed.open, renewed.write), (true, Some(Write::Renew)));
    // The timer would have run out long ago if it ran.
    let idle = Situation { open: false, sent: None, ..armed(Promised::Inherited, 20) };
    assert_eq!(decide(&idle).write, Some(Write::Withdraw));
    assert_eq!(decide(&Situation { now: at(19), ..idle }).write, Some(Write::Renew));
}

#[test]
fn renewals_have_a_rhythm() {
    let s = armed(until(20), 0);
    assert_eq!(decide(&Situation { now: at(2), ..s }).write, None);
    assert_eq!(decide(&Situation { now: Mono(2500), ..s }).write, Some(Write::Renew));
    assert_eq!(decide(&Situation { now: Mono(2500), busy: true, ..s }).write, None);
    assert_eq!(decide(&Situation { now: Mono(2500), connected: false, ..s }).write, None);
    assert_eq!(timing().gone_after(), Duration::from_millis(56_250));
}

/// The machine in [`the_machine_is_reset_in_time`].
struct Machine {
    dice: Dice,
    now: u64,
    /// When the timer runs out.
    timer: Option<u64>,
    /// When the last acknowledged renewal was sent; `None`: nothing is promised.
    renewed: Option<u64>,
    /// When the last renewal of this daemon that counts was sent: the first, and each that it knows of.
    counts: Option<u64>,
    /// Whether the store answers.
    connected: bool,
    promised: Promised,
    s: Situation,
}

impl Machine {
    fn wait(&mut self, most: u64) {
        self.now += self.dice.roll(most);
    }

    fn is_reset(&self) -> bool {
        self.timer.is_some_and(|timer| timer <= self.now)
    }

    fn pet(&mut self) {
        self.timer = Some(self.now + 10_000);
    }

    /// A new daemon.
    fn begin(&mut self) {
        self.promised = Promised::Unknown;
        self.counts = None;
        self.s = Situation { open: false, began: Mono(self.now), tried: None, petted: None, sent: None, ..self.s };
    }

    /// One pass: it decides, and does it after a while that may be long.
    fn pass(&mut self, stall: u64) {
        if self.promised == Promised::Unknown && self.connected {
            let said = if self.renewed.is_some() { Said::Promise } else { Said::Nothing };
            self.promised = self.promised.read(said);
        }
        let (decided, promised) = (Mono(self.now), self.promised);
        let s = Situation { now: decided, promised, connected: self.connected, ..self.s };
        let decision = decide(&s);
        self.wait(stall);
        if self.is_reset() {
            return;
        }
        if decision.open || decision.pet {
            let since = self.counts.map(|counts| decided.0 - counts);
            assert!(since.is_none_or(|since| since < 20_000), "petted {since:?} ms after the last renewal was sent");
            assert!(since.is_some() || self.renewed.is_none(), "petted, and an earlier daemon has promised");
            self.s.open |= decision.open;
            self.s.petted = Some(decided);
            self.pet();
        }
        if let Some(write) = decision.write {
            let sent = self.now;
            self.s.sent = Some(Mono(sent));
            self.counts = self.counts.or_else(|| self.renewed.is_none().then_some(sent));
            self.promised = self.promised.sending(write, Mono(sent), &timing());
            // The answer takes its time, and it may be lost.
            self.wait(4000);
            if !self.is_reset() && self.connected && self.dice.per_mille(900) {
                (self.renewed, self.counts) = (Some(sent), Some(sent));
                self.promised = self.promised.done(write, Mono(sent), &timing());
            } else if self.connected && self.dice.per_mille(500) {
                self.renewed = Some(sent);
            }
        }
    }
}

/// Processes are stopped at any moment, killed and started again; then the machine is cut off.
#[test]
fn the_machine_is_reset_in_time() {
    let (mut latest, mut cut_off) = (0, 0);
    for seed in 0..20_000 {
        let s = Situation { began: Mono(0), sent: None, petted: None, open: false, ..armed(Promised::Unknown, 0) };
        let mut m = Machine {
            dice: Dice::new(seed),
            now: 0,
            timer: None,
            renewed: None,
            counts: None,
            connected: true,
            promised: Promised::Unknown,
            s,
        };
        let cut = 1000 + m.dice.roll(60_000);
        for _ in 0..2000 {
            if m.is_reset() || m.now > 400_000 {
                break;
            }
            m.connected = m.now < cut;
            let stall = if m.dice.per_mille(60) { 11_000 } else { 300 };
            m.pass(stall);
            m.wait(1000);
            if !m.is_reset() && m.dice.per_mille(30) {
                // Killed: the kernel closes the device, and pets it.
                if m.s.open {
                    m.pet();
                }
                m.wait(3000);
                m.begin();
            }
        }
        let Some(renewed) = m.renewed else { continue };
        let reset = m.timer.filter(|timer| *timer <= m.now).expect("it is cut off, and was never reset");
        cut_off += 1;
        latest = latest.max(reset.saturating_sub(renewed));
    }
    let bound = timing().patience + 3 * W;
    assert!(cut_off > 10_000, "only {cut_off} were cut off with a promise");
    assert!(u128::from(latest) < bound.as_millis(), "one was reset {latest} ms after its last renewal");
    assert!(latest > 30_000, "with {latest} ms at the most there is not much to see");
}
