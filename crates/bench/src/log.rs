//! When `droverd` did things, by its log.

/// When something went to the hypervisor, and when that had done it; in microseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handed {
    /// Written right before the hypervisor is asked.
    pub(crate) over: u64,
    /// Written when it has answered.
    pub(crate) back: u64,
}

/// The start of a VM under this epoch, if the log tells of it.
pub(crate) fn start_of(log: &str, vm: &str, epoch: u64) -> Option<Handed> {
    let fields = format!("vm={vm} epoch={epoch}");
    let moment = |message: &str| {
        let told = format!(": {message} {fields}");
        log.lines().rev().find(|line| tells(line, &told)).and_then(moment)
    };
    Some(Handed { over: moment("starting a VM")?, back: moment("started a VM")? })
}

/// When the sending of a VM went to the hypervisor, in microseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Written right before the hypervisor is asked.
    pub(crate) over: u64,
    /// Written when it has answered; `None`: the target took the VM over before that, and the answer is not waited for
    /// any more.
    pub(crate) back: Option<u64>,
}

/// The sending of a VM to a node, where it is to run under this epoch, if the log tells of it and of how it ended.
pub(crate) fn sending_of(log: &str, vm: &str, to: &str, epoch: u64) -> Option<Sent> {
    let sending = format!(": sending a VM vm={vm} to={to} epoch={epoch}");
    let sent = format!(": a VM was sent vm={vm} to={to}");
    let left = format!(" step=Migrate({to})");
    let another = format!(": sending a VM vm={vm} ");
    // The last, as an earlier VM may have had the same name.
    let (begin, line) = log.lines().enumerate().filter(|(_, line)| tells(line, &sending)).last()?;
    let over = moment(line)?;
    let lines = log.lines().skip(begin + 1);
    let end = |line: &str| {
        let left = line.contains(": the VM's record changed: the step is dropped ") && tells(line, &left);
        if tells(line, &sent) { moment(line).map(Some) } else { left.then_some(None) }
    };
    let back = lines.take_while(|line| !line.contains(&another)).find_map(end)?;
    Some(Sent { over, back })
}

/// Whether a line has this text, and not only one that begins like it.
fn tells(line: &str, text: &str) -> bool {
    line.split_once(text).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with(' '))
}

/// When a line was written.
fn moment(line: &str) -> Option<u64> {
    microseconds(line.split_whitespace().next()?)
}

/// `2026-02-28T23:59:59.123456Z` in microseconds since 1970.
fn microseconds(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (time, fraction) = time.split_once('.')?;
    let seconds = time.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u64>().ok()?))?;
    let fraction = format!("{fraction:0<6}").get(..6)?.parse::<u64>().ok()?;
    Some((days(year, month, day)? * 86_400 + seconds) * 1_000_000 + fraction)
}

/// Days since 1970 of a day of the Gregorian calendar, which is taken to begin in March: then the leap day is the last.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let since_march = (153 * month + 2) / 5 + day.checked_sub(1)?;
    (year * 365 + year / 4 - year / 100 + year / 400 + since_march).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
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
    fn the_right_start_is_found() {
        let log =
            "1970-01-01T00:00:01.000000Z  INFO drover_agent::vm::step: starting a VM vm=a epoch=1 domain_type=\"kvm\"
1970-01-01T00:00:02.000000Z  INFO drover_agent::vm::step: started a VM vm=a epoch=1
1970-01-01T00:00:03.000000Z  INFO drover_agent::vm::step: starting a VM vm=a epoch=10 domain_type=\"kvm\"
1970-01-01T00:00:04.000000Z  INFO drover_agent::vm::step: started a VM vm=a epoch=10
1970-01-01T00:00:05.000000Z  INFO drover_agent::vm::step: starting a VM vm=a epoch=2 domain_type=\"kvm\"
";
        assert_eq!(start_of(log, "a", 1), Some(Handed { over: 1_000_000, back: 2_000_000 }));
        assert_eq!(start_of(log, "a", 10), Some(Handed { over: 3_000_000, back: 4_000_000 }));
        assert_eq!(start_of(log, "a", 2), None, "it has not come back");
    }

    #[test]
    fn the_right_sending_is_found() {
        let log = "1970-01-01T00:00:01.000000Z  INFO drover_agent::vm::migrate: sending a VM vm=a to=hv3 epoch=2
1970-01-01T00:00:02.000000Z  INFO drover_agent::vm::migrate: a VM was sent vm=b to=hv3
1970-01-01T00:00:03.000000Z  INFO drover_agent::vm::migrate: a VM was sent vm=a to=hv3
1970-01-01T00:00:04.000000Z  INFO drover_agent::vm::migrate: sending a VM vm=a to=hv3 epoch=20
1970-01-01T00:00:05.000000Z  WARN drover_agent::vm::migrate: a VM could not be sent vm=a to=hv3 why=\"no\"
1970-01-01T00:00:06.000000Z  INFO drover_agent::vm::migrate: sending a VM vm=a to=hv3 epoch=21
1970-01-01T00:00:07.000000Z  INFO drover_agent::vm: the VM's record changed: the step is dropped vm=u step=Migrate(hv3)
";
        assert_eq!(sending_of(log, "a", "hv3", 2), Some(Sent { over: 1_000_000, back: Some(3_000_000) }));
        assert_eq!(sending_of(log, "a", "hv3", 20), None, "it failed");
        assert_eq!(sending_of(log, "a", "hv3", 21), Some(Sent { over: 6_000_000, back: None }), "it was taken over");
        assert_eq!(sending_of(log, "a", "hv2", 2), None, "it went elsewhere");
        let again = format!("{log}1970-01-01T00:00:08.000000Z  INFO x: sending a VM vm=a to=hv3 epoch=2\n");
        assert_eq!(sending_of(&again, "a", "hv3", 2), None, "another VM of the same name is under way");
    }
}
