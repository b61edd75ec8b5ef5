//! Times of calls to the hypervisor, from the log of `droverd`.

/// The agent's log messages right before and after the call that starts a guest.
const STARTING: &str = "starting a VM";
const STARTED: &str = "started a VM";
/// The agent's log messages right before and after the call that migrates a guest.
const SENDING: &str = "sending a VM";
const SENT: &str = "a VM was sent";
/// The agent's log message when it no longer waits for such a call.
const DROPPED: &str = "the VM's record changed: the step is dropped";

/// A call that starts a guest. Times are in microseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StartCall {
    /// Right before the call.
    pub(crate) begin: u64,
    /// When the hypervisor had answered.
    pub(crate) end: u64,
}

/// The start of a VM under an epoch; `None` if the log does not have it.
pub(crate) fn start_of(log: &str, vm: &str, epoch: u64) -> Option<StartCall> {
    let time = |message: &str| {
        let text = format!(": {message} vm={vm} epoch={epoch}");
        log.lines().rev().find(|line| has(line, &text)).and_then(timestamp)
    };
    Some(StartCall { begin: time(STARTING)?, end: time(STARTED)? })
}

/// A call that migrates a guest. Times are in microseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MigrateCall {
    /// Right before the call.
    pub(crate) begin: u64,
    /// When the hypervisor had answered; `None` if the target took the VM over before that, so that the source no
    /// longer waited for the answer.
    pub(crate) end: Option<u64>,
}

/// The migration of a VM to a node under an epoch; `None` if the log does not have it, or it failed.
pub(crate) fn migration_of(log: &str, vm: &str, to: &str, epoch: u64) -> Option<MigrateCall> {
    let sending = format!(": {SENDING} vm={vm} to={to} epoch={epoch}");
    let sent = format!(": {SENT} vm={vm} to={to}");
    let dropped = format!(": {DROPPED} ");
    let step = format!(" step=Migrate({to})");
    let another = format!(": {SENDING} vm={vm} ");
    // The last one, because an earlier VM may have had the same name.
    let (first, line) = log.lines().enumerate().filter(|(_, line)| has(line, &sending)).last()?;
    let begin = timestamp(line)?;
    let lines = log.lines().skip(first + 1);
    let end = |line: &str| {
        let dropped = line.contains(&dropped) && has(line, &step);
        if has(line, &sent) { timestamp(line).map(Some) } else { dropped.then_some(None) }
    };
    let end = lines.take_while(|line| !line.contains(&another)).find_map(end)?;
    Some(MigrateCall { begin, end })
}

/// The time of the first line from then on (in microseconds since 1970) with this message and fields; `None`: there is
/// none.
pub(crate) fn first_from(log: &str, from: u64, text: &str) -> Option<u64> {
    let of = |line: &str| timestamp(line).filter(|at| *at >= from);
    log.lines().filter(|line| has(line, text)).find_map(of)
}

/// Whether a line contains a text, and its last word as a whole: `epoch=1`, not `epoch=10`.
fn has(line: &str, text: &str) -> bool {
    line.split_once(text).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(' '))
}

/// The time of a line.
fn timestamp(line: &str) -> Option<u64> {
    microseconds(line.split_whitespace().next()?)
}

/// Parses `2026-02-28T23:59:59.123456Z` to microseconds since 1970.
fn microseconds(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (time, fraction) = time.split_once('.')?;
    let seconds = time.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u64>().ok()?))?;
    let fraction = format!("{fraction:0<6}").get(..6)?.parse::<u64>().ok()?;
    Some((days(year, month, day)? * 86_400 + seconds) * 1_000_000 + fraction)
}

/// Days since 1970 of a date in the Gregorian calendar. Years are counted from March, so that the leap day is the last.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let since_march = (153 * month + 2) / 5 + day.checked_sub(1)?;
    (year * 365 + year / 4 - year / 100 + year / 400 + since_march).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_parsed() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2000-02-29T12:00:00.000000Z", 951_825_600),
            ("2024-12-31T23:59:59.000000Z", 1_735_689_599),
            ("2026-03-01T00:00:00.000000Z", 1_772_323_200),
        ] {
            assert_eq!(microseconds(text), Some(seconds * 1_000_000), "{text}");
        }
        assert_eq!(microseconds("1970-01-01T00:00:01.5Z"), Some(1_500_000));
        assert_eq!(microseconds("yesterday"), None);
    }

    #[test]
    fn start_is_found_by_vm_and_epoch() {
        let log =
            "1970-01-01T00:00:01.000000Z  INFO drover_agent::vm::step: starting a VM vm=a epoch=1 domain_type=\"kvm\"
1970-01-01T00:00:02.000000Z  INFO drover_agent::vm::step: started a VM vm=a epoch=1
1970-01-01T00:00:03.000000Z  INFO drover_agent::vm::step: starting a VM vm=a epoch=10 domain_type=\"kvm\"
1970-01-01T00:00:04.000000Z  INFO drover_agent::vm::step: started a VM vm=a epoch=10
1970-01-01T00:00:05.000000Z  INFO drover_agent::vm::step: starting a VM vm=a epoch=2 domain_type=\"kvm\"
";
        assert_eq!(start_of(log, "a", 1), Some(StartCall { begin: 1_000_000, end: 2_000_000 }));
        assert_eq!(start_of(log, "a", 10), Some(StartCall { begin: 3_000_000, end: 4_000_000 }));
        assert_eq!(start_of(log, "a", 2), None, "the hypervisor has not answered");
    }

    #[test]
    fn migration_is_found_by_vm_target_and_epoch() {
        let log = "1970-01-01T00:00:01.000000Z  INFO drover_agent::vm::migrate: sending a VM vm=a to=hv3 epoch=2
1970-01-01T00:00:02.000000Z  INFO drover_agent::vm::migrate: a VM was sent vm=b to=hv3
1970-01-01T00:00:03.000000Z  INFO drover_agent::vm::migrate: a VM was sent vm=a to=hv3
1970-01-01T00:00:04.000000Z  INFO drover_agent::vm::migrate: sending a VM vm=a to=hv3 epoch=20
1970-01-01T00:00:05.000000Z  WARN drover_agent::vm::migrate: a VM could not be sent vm=a to=hv3 why=\"no\"
1970-01-01T00:00:06.000000Z  INFO drover_agent::vm::migrate: sending a VM vm=a to=hv3 epoch=21
1970-01-01T00:00:07.000000Z  INFO drover_agent::vm: the VM's record changed: the step is dropped vm=u step=Migrate(hv3)
";
        assert_eq!(migration_of(log, "a", "hv3", 2), Some(MigrateCall { begin: 1_000_000, end: Some(3_000_000) }));
        assert_eq!(migration_of(log, "a", "hv3", 20), None, "it failed");
        assert_eq!(
            migration_of(log, "a", "hv3", 21),
            Some(MigrateCall { begin: 6_000_000, end: None }),
            "it was taken over"
        );
        assert_eq!(migration_of(log, "a", "hv2", 2), None, "it went elsewhere");
        let again = format!("{log}1970-01-01T00:00:08.000000Z  INFO x: sending a VM vm=a to=hv3 epoch=2\n");
        assert_eq!(migration_of(&again, "a", "hv3", 2), None, "another VM of the same name is migrating");
    }

    #[test]
    fn a_line_is_found_from_a_time_on_and_by_whole_words() {
        let log = "1970-01-01T00:00:01.000000Z WARN x: a node is dead node=hv1 from=run\n\
            1970-01-01T00:00:02.000000Z WARN x: a node is dead node=hv12 from=run\n\
            1970-01-01T00:00:03.000000Z WARN x: a node is dead node=hv1 from=run\n";
        let text = ": a node is dead node=hv1";
        assert_eq!(first_from(log, 0, text), Some(1_000_000));
        assert_eq!(first_from(log, 1_000_001, text), Some(3_000_000));
        assert_eq!(first_from(log, 3_000_001, text), None);
    }
}
