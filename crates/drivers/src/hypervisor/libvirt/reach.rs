//! Whether another node's libvirtd can be reached, asked before a guest is sent to it.
//!
//! The sender's libvirtd connects to it within the call that migrates, and has no deadline for that (libvirt 9.0.0,
//! `virNetSocketNewConnectTCP`: connect(2), as often as the kernel tries; Linux 6.1: 127 s with `tcp_syn_retries` = 6).
//! The guest's lane would be taken meanwhile: it could not be shut down, or moved elsewhere.

use std::{
    io::ErrorKind,
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// Timeout for connections to all of a node's addresses, one after the other. Shorter than the kernel's, longer than
/// what passes by itself (a switch that starts, a bridge that learns): a guest that is to move *live, else cold* moves
/// cold after it.
const LIMIT: Duration = Duration::from_secs(20);

/// Refuses if nothing answers there at all. What answers, however badly, is libvirt's to judge, and so is a transport
/// of which this module knows nothing.
pub(super) fn check(uri: &str) -> Result<(), String> {
    within(uri, LIMIT)
}

fn within(uri: &str, limit: Duration) -> Result<(), String> {
    let Some((host, port)) = address(uri) else { return Ok(()) };
    // A name that is not known is libvirt's to report, too.
    let Ok(addresses) = (host, port).to_socket_addrs() else { return Ok(()) };
    let silent = |error: &std::io::Error| matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
    let addresses: Vec<_> = addresses.collect();
    let each = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut answers = addresses.iter().map(|address| TcpStream::connect_timeout(address, each));
    if answers.all(|answer| answer.as_ref().is_err_and(silent)) {
        return Err(format!("{host}:{port} has not answered in {} s", limit.as_secs()));
    }
    Ok(())
}

/// Host and port of a URI whose transport is TCP, with libvirt's own ports as defaults (9.0.0, `remote_driver.h`).
fn address(uri: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = uri.split_once("://")?;
    let default = match scheme.split_once('+')?.1 {
        "tcp" => 16509,
        "tls" => 16514,
        _ => return None,
    };
    let authority = rest.split(['/', '?']).next()?;
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    match server.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']')?;
            Some((host, port.strip_prefix(':').map_or(Some(default), |port| port.parse().ok())?))
        }
        None => match server.split_once(':') {
            Some((host, port)) => Some((host, port.parse().ok()?)),
            None => Some((server, default)),
        },
    }
    .filter(|(host, _)| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::{SocketAddr, TcpListener};

    #[test]
    fn addresses_are_those_that_libvirt_connects_to() {
        for (uri, is) in [
            ("qemu+tcp://10.0.0.2/system", Some(("10.0.0.2", 16509))),
            ("qemu+tls://hv2.example.org/system?no_verify=1", Some(("hv2.example.org", 16514))),
            ("qemu+tcp://root@hv2:17000/system", Some(("hv2", 17000))),
            ("qemu+tcp://[fd00::2]/system", Some(("fd00::2", 16509))),
            ("qemu+tcp://[fd00::2]:17000/system", Some(("fd00::2", 17000))),
            ("qemu+ssh://hv2/system", None),
            ("qemu:///system", None),
            ("qemu+tcp:///system", None),
            ("qemu+tcp://hv2:port/system", None),
            ("", None),
        ] {
            assert_eq!(address(uri), is, "{uri}");
        }
    }

    #[test]
    fn only_silence_is_refused() {
        let limit = Duration::from_millis(300);
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = |address: SocketAddr| format!("qemu+tcp://{address}/system");
        assert_eq!(within(&uri(open.local_addr().unwrap()), limit), Ok(()));
        // Closed: libvirt says so in its own words, at once.
        let closed = open.local_addr().unwrap();
        drop(open);
        assert_eq!(within(&uri(closed), limit), Ok(()));
        assert_eq!(within("qemu+ssh://nowhere/system", limit), Ok(()));
        // Linux drops connections to a socket whose queue is full.
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap().as_socket().unwrap();
        let _waits = TcpStream::connect(address).unwrap();
        let told = within(&uri(address), limit);
        assert!(told.as_ref().is_err_and(|why| why.contains("has not answered")), "{told:?}");
    }
}
