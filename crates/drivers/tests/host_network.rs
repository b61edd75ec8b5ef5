//! `KernelHostNetwork` against the real kernel. Each test runs in its own network namespace, and most connect it to a
//! second one by a veth pair. The namespaces belong to threads, so they are gone however a test ends. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests end by panicking")]

mod namespace;

use drover_drivers::host_network::{HostNetwork, KernelHostNetwork, Link};
use drover_model::FloatingAddress;
use namespace::{NEAR_MAC, Peer, in_namespace, ip, wait_for};
use std::{
    future::poll_fn,
    net::{IpAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// Timeout for expected events.
const LONG: Duration = Duration::from_secs(30);

fn on(interface: &str, address: &str) -> FloatingAddress {
    FloatingAddress {
        address: address.parse().unwrap(),
        interface: interface.to_owned(),
        network: "upstream".to_owned(),
    }
}

fn after(seconds: f64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs_f64(seconds))
}

/// The line of `ip -o addr` for an address, if it is present.
fn shown(address: &FloatingAddress) -> Option<String> {
    let text = format!(" {}/", address.address.ip);
    ip(&format!("-o addr show dev {}", address.interface)).lines().find(|line| line.contains(&text)).map(str::to_owned)
}

/// Remaining lifetime of an address in the kernel, in seconds.
fn seconds_left(address: &FloatingAddress) -> u64 {
    let line = shown(address).unwrap();
    let valid = line.split(" valid_lft ").nth(1).unwrap();
    valid.split("sec").next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"))
}

const FLOATING: [&str; 2] = ["192.0.2.7/24", "2001:db8::7/64"];

#[test]
fn hold_and_release_are_idempotent() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        let routes = || ip("route show") + &ip("-6 route show");
        let before = routes();
        for address in FLOATING.map(|address| on("near", address)) {
            network.release(&address).await.unwrap();
            assert!(!network.holds(&address).await.unwrap());
            for until in [None, None, after(60.0), None] {
                network.hold(&address, until).await.unwrap();
                assert!(network.holds(&address).await.unwrap(), "{address} {until:?}");
                let line = shown(&address).unwrap();
                // For IPv4, `ip` shows preferred_lft forever, but the flag is set.
                for word in [" deprecated ", " noprefixroute ", " valid_lft forever "] {
                    assert!(line.contains(word), "{line}");
                }
            }
            assert_eq!(routes(), before, "it adds no routes");
            assert!(!network.holds(&on("lo", &address.address.to_string())).await.unwrap(), "another interface");
            for _ in 0..2 {
                network.release(&address).await.unwrap();
                assert!(!network.holds(&address).await.unwrap() && shown(&address).is_none());
            }
        }
    });
}

/// In the kernel, IPv4 addresses of one subnet depend on each other, unless each has a full-length prefix.
#[test]
fn adding_or_removing_an_address_does_not_affect_others_of_its_subnet() {
    in_namespace(async || {
        let _peer = Peer::connected();
        std::fs::write("/proc/sys/net/ipv4/conf/near/promote_secondaries", "0").unwrap();
        let network = KernelHostNetwork::connect().await.unwrap();
        let [first, second, third] =
            ["192.0.2.7/24", "192.0.2.8/24", "192.0.2.9/24"].map(|address| on("near", address));
        let end = after(3.0);
        network.hold(&first, end).await.unwrap();
        network.hold(&second, None).await.unwrap();
        ip("addr add 192.0.2.1/24 dev near");
        network.hold(&third, None).await.unwrap();
        let uses_own_address = || ip("route get 192.0.2.99").contains("dev near src 192.0.2.1 ");
        assert!(uses_own_address(), "the host's own address is the source address");
        wait_for("the expiry of the first address", || shown(&first).is_none());
        network.release(&second).await.unwrap();
        assert!(uses_own_address() && network.holds(&third).await.unwrap());
        // And removing the host's own address does not affect the floating one.
        ip("addr del 192.0.2.1/24 dev near");
        assert!(network.holds(&third).await.unwrap());
    });
}

#[test]
fn an_address_that_was_added_by_others_is_found_and_removed() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        for address in FLOATING.map(|address| on("near", address)) {
            ip(&format!("addr add {} dev near {}", address.address, nodad(address.address.ip)));
            assert!(network.holds(&address).await.unwrap());
            network.hold(&address, None).await.unwrap();
            network.release(&address).await.unwrap();
            assert!(!network.holds(&address).await.unwrap() && shown(&address).is_none());
        }
    });
}

#[test]
fn a_loopback_address_has_host_scope_and_is_not_announced() {
    in_namespace(async || {
        ip("link set lo up");
        let network = KernelHostNetwork::connect().await.unwrap();
        let address = FloatingAddress::metadata();
        network.hold(&address, after(60.0)).await.unwrap();
        assert!(shown(&address).unwrap().contains("scope host"));
        network.announce(&address).await.unwrap();
        assert_eq!(network.probe(&address, LONG).await.unwrap(), None);
        network.release(&address).await.unwrap();
    });
}

/// With many addresses, because the kernel's timers for them affect each other.
#[test]
fn addresses_expire_in_time_by_themselves() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        let mut ends = Vec::new();
        for i in 0..16_u32 {
            let ips = [format!("192.0.2.{}/24", i + 1), format!("2001:db8::{}/64", i + 1)];
            for address in ips.map(|ip| on("near", &ip)) {
                // Just above whole seconds: the worst case, in which the kernel's delay must be allowed for.
                let until = after(f64::from(3 + i % 3) + 0.01).unwrap();
                network.hold(&address, Some(until)).await.unwrap();
                assert!(shown(&address).is_some(), "{address}");
                ends.push((address, until));
            }
            // The kernel rounds its timers to whole seconds where it can, so the delay depends on the time of the call.
            sleep(Duration::from_millis(60)).await;
        }
        drop(network);
        while !ends.is_empty() {
            let now = Instant::now();
            let present = ip("-o addr show dev near");
            ends.retain(|(address, _)| present.contains(&format!(" {}/", address.address.ip)));
            for (address, until) in &ends {
                assert!(now <= *until, "{address} is still present, {:?} after its end", now - *until);
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
}

/// Another task blocks the thread again and again, so that requests reach the kernel late.
#[test]
fn a_lifetime_ends_in_time_even_if_the_request_was_slow() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        let address = on("near", FLOATING[0]);
        // It re-queues itself at once, and so runs between any two polls of other tasks. (`yield_now` would wait until
        // all of them were polled.)
        let mut times = 0..10;
        let stalls = tokio::spawn(poll_fn(move |context| {
            std::thread::sleep(Duration::from_millis(1200));
            context.waker().wake_by_ref();
            if times.next().is_some() { Poll::Pending } else { Poll::Ready(()) }
        }));
        let until = after(60.31).unwrap();
        network.hold(&address, Some(until)).await.unwrap();
        let left = Duration::from_secs(seconds_left(&address) - 1);
        // The kernel reports whole seconds, rounded up, and removes up to 1.25 s late.
        assert!(Instant::now() + left + Duration::from_millis(1250) <= until, "{left:?}");
        stalls.await.unwrap();
    });
}

#[test]
fn a_later_end_extends_the_lifetime_and_an_earlier_one_does_not_shorten_it() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        for address in FLOATING.map(|address| on("near", address)) {
            network.hold(&address, after(100.0)).await.unwrap();
            assert!(seconds_left(&address) <= 98);
            network.hold(&address, after(200.0)).await.unwrap();
            assert!((101..=198).contains(&seconds_left(&address)), "extended");
            network.hold(&address, after(100.0)).await.unwrap();
            assert!(seconds_left(&address) > 101, "not shortened");

            // An address that was removed by others is added again, also by a call with an earlier end.
            ip(&format!("addr flush dev near to {}", address.address.ip));
            network.hold(&address, after(100.0)).await.unwrap();
            assert!(network.holds(&address).await.unwrap());

            // The end of a released address no longer counts.
            network.release(&address).await.unwrap();
            network.hold(&address, after(50.0)).await.unwrap();
            assert!(seconds_left(&address) <= 48);
        }
    });
}

#[test]
fn a_lifetime_that_the_kernel_cannot_enforce_is_refused() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        for address in FLOATING.map(|address| on("near", address)) {
            for seconds in [0.0, 1.0, 2.2] {
                let error = network.hold(&address, after(seconds)).await.unwrap_err();
                assert!(
                    error.to_string().starts_with(&format!("cannot add {address}: its lifetime is too short")),
                    "{error}"
                );
                assert!(!network.holds(&address).await.unwrap());
            }
            // A refusal leaves a present address as it is.
            network.hold(&address, after(100.0)).await.unwrap();
            network.hold(&address, after(1.0)).await.unwrap_err();
            assert!(seconds_left(&address) > 50);
        }
    });
}

#[test]
fn errors_name_an_interface_that_does_not_exist() {
    in_namespace(async || {
        let network = KernelHostNetwork::connect().await.unwrap();
        for interface in ["eth7", "a-name-that-no-interface-can-have"] {
            let address = on(interface, FLOATING[0]);
            let errors = [
                network.hold(&address, None).await.unwrap_err(),
                network.announce(&address).await.unwrap_err(),
                network.probe(&address, LONG).await.unwrap_err(),
                network.reaches(interface, "192.0.2.1".parse().unwrap(), LONG).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.reason, format!("there is no interface {interface}"));
            }
            network.release(&address).await.unwrap();
            assert!(!network.holds(&address).await.unwrap());
            assert_eq!(network.link(interface).await.unwrap(), None);
        }
    });
}

#[test]
fn a_tentative_address_does_not_count_as_held() {
    in_namespace(async || {
        let _peer = Peer::connected();
        // Duplicate address detection takes longer than the test.
        std::fs::write("/proc/sys/net/ipv6/conf/near/dad_transmits", "1000").unwrap();
        ip("addr add 2001:db8::7/64 dev near");
        let network = KernelHostNetwork::connect().await.unwrap();
        assert!(shown(&on("near", FLOATING[1])).unwrap().contains("tentative"));
        assert!(!network.holds(&on("near", FLOATING[1])).await.unwrap());
    });
}

/// The kernel enters the route of an IPv6 address a while after it has answered, and until then drops its packets.
#[test]
fn an_address_that_is_held_gets_its_packets() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let busy = Arc::new(AtomicBool::new(true));
        // Whoever changes an interface, in whichever namespace, delays the kernel's work for an address.
        let others = std::thread::spawn({
            let busy = busy.clone();
            move || {
                while busy.load(Ordering::Relaxed) {
                    ip("link add other type veth peer name another");
                    ip("link del other");
                }
            }
        });
        ip("link set lo up");
        let network = KernelHostNetwork::connect().await.unwrap();
        let receiver = UdpSocket::bind("[::]:0").unwrap();
        let port = receiver.local_addr().unwrap().port();
        receiver.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let lost = |address: &FloatingAddress| {
            let sender = UdpSocket::bind("[::]:0").unwrap();
            // Without a route, not even this is possible.
            let sent = sender.send_to(b"x", (address.address.ip, port));
            sent.is_err() || receiver.recv(&mut [0]).is_err()
        };
        let mut all_lost = Vec::new();
        for round in 0..50 {
            for address in FLOATING.map(|address| on("near", address)) {
                network.hold(&address, None).await.unwrap();
                if lost(&address) {
                    all_lost.push((round, address.to_string()));
                }
                network.release(&address).await.unwrap();
            }
        }
        busy.store(false, Ordering::Relaxed);
        others.join().unwrap();
        assert_eq!(all_lost, []);
    });
}

/// A bridge or a bond that is made anew at every reload of the network's configuration, say.
#[test]
fn interfaces_that_come_and_go_leave_no_sockets() {
    in_namespace(async || {
        let network = KernelHostNetwork::connect().await.unwrap();
        let address = on("near", FLOATING[0]);
        let sockets = || std::fs::read_to_string("/proc/thread-self/net/packet").unwrap().lines().count() - 1;
        for _ in 0..10 {
            ip("link add near type veth peer name far");
            ip("link set near up");
            network.announce(&address).await.unwrap();
            ip("link del near");
        }
        // They are closed on another thread.
        timeout(LONG, async {
            while sockets() > 1 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{} sockets are left", sockets()));
    });
}

#[test]
fn announcements_are_sent_to_all_neighbours() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        let [v4, v6] = FLOATING.map(|address| on("near", address));
        let mut capture = peer.capture();
        network.hold(&v4, None).await.unwrap();
        network.announce(&v4).await.unwrap();
        let arps = [capture.arp(), capture.arp()];
        for (frame, op) in arps.iter().zip([1, 2]) {
            assert_eq!((&frame[..6], &frame[6..12]), (&[0xff; 6][..], &NEAR_MAC[..]), "broadcast, from us");
            assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, op]);
            assert_eq!(
                (&frame[22..28], &frame[28..32], &frame[38..42]),
                (&NEAR_MAC[..], &[192, 0, 2, 7][..], &[192, 0, 2, 7][..])
            );
        }

        network.hold(&v6, None).await.unwrap();
        network.announce(&v6).await.unwrap();
        let ip6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let frame = capture.icmp6(136);
        assert_eq!((&frame[..6], &frame[6..12]), (&[0x33, 0x33, 0, 0, 0, 1][..], &NEAR_MAC[..]));
        assert_eq!((frame[21], &frame[22..38], &frame[38..54]), (255, &ip6("2001:db8::7")[..], &ip6("ff02::1")[..]));
        assert_eq!((&frame[58..62], &frame[62..78]), (&[0x20, 0, 0, 0][..], &ip6("2001:db8::7")[..]), "override only");
        assert_eq!((&frame[78..80], &frame[80..86]), (&[2, 1][..], &NEAR_MAC[..]));
    });
}

/// The peer's kernel accepts an announcement only if all of it is valid, including the checksum.
#[test]
fn announcements_update_the_neighbours_caches() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        peer.ip("addr add 192.0.2.2/24 dev far");
        peer.ip("addr add 2001:db8::2/64 dev far nodad");
        for address in FLOATING.map(|address| on("near", address)) {
            let ip = address.address.ip;
            peer.ip(&format!("neigh replace {ip} lladdr 02:00:00:00:00:99 nud stale dev far"));
            network.announce(&address).await.unwrap();
            wait_for("the updated neighbour entry", || {
                peer.ip(&format!("neigh show {ip} dev far")).contains("02:00:00:00:00:0a")
            });
        }
    });
}

#[test]
fn probe_finds_another_owner_of_the_address() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        let brief = Duration::from_secs(1);
        for address in &FLOATING.map(|address| on("near", address)) {
            let mut capture = peer.capture();
            assert_eq!(network.probe(address, brief).await.unwrap(), None);
            for _ in 0..3 {
                if address.address.ip.is_ipv4() {
                    assert_eq!(capture.arp()[28..32], [0; 4], "the source is unspecified");
                } else {
                    assert_eq!(capture.icmp6(135)[22..38], [0; 16], "the source is unspecified");
                }
            }
            peer.ip(&format!("addr add {} dev far {}", address.address, nodad(address.address.ip)));
            let found = network.probe(address, LONG).await.unwrap();
            assert_eq!(found.as_deref(), Some("02:00:00:00:00:0b"));
            // It is found even if we have the address, too.
            network.hold(address, None).await.unwrap();
            assert_eq!(network.probe(address, LONG).await.unwrap(), found);
            peer.ip(&format!("addr del {} dev far", address.address));
            assert_eq!(network.probe(address, brief).await.unwrap(), None, "only we have it");
        }
    });
}

fn nodad(ip: IpAddr) -> &'static str {
    if ip.is_ipv6() { "nodad" } else { "" }
}

#[test]
fn probe_finds_an_owner_that_only_announces_the_address() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        for address in FLOATING.map(|address| on("near", address)) {
            let peers = on("far", &address.address.to_string());
            // The peer announces until this is dropped.
            let keep_going = Arc::new(());
            let running = Arc::downgrade(&keep_going);
            let announcing = peer.spawn(async move {
                let network = KernelHostNetwork::connect().await.unwrap();
                while running.strong_count() > 0 {
                    network.announce(&peers).await.unwrap();
                    sleep(Duration::from_millis(20)).await;
                }
            });
            assert_eq!(network.probe(&address, LONG).await.unwrap().as_deref(), Some("02:00:00:00:00:0b"));
            drop(keep_going);
            announcing.recv_timeout(LONG).unwrap();
        }
    });
}

#[test]
fn reaches_says_whether_a_neighbour_answers() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        let brief = Duration::from_secs(1);
        peer.ip("addr add 192.0.2.2/24 dev far");
        peer.ip("addr add 2001:db8::2/64 dev far nodad");
        let present: [IpAddr; 2] = ["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()];
        let absent: [IpAddr; 2] = ["192.0.2.3".parse().unwrap(), "2001:db8::3".parse().unwrap()];
        // A floating address must not become the source address.
        for address in FLOATING {
            network.hold(&on("near", address), None).await.unwrap();
        }
        let mut capture = peer.capture();
        for neighbour in present {
            assert!(network.reaches("near", neighbour, LONG).await.unwrap(), "{neighbour} without an own address");
        }
        assert_eq!((&capture.arp()[28..32], &capture.icmp6(135)[22..38]), (&[0; 4][..], &[0; 16][..]));

        ip("addr add 198.51.100.1/24 dev near");
        ip("addr add 192.0.2.1/24 dev near");
        ip("addr add 2001:db8::1/64 dev near nodad");
        let mut capture = peer.capture();
        for (neighbour, absent) in present.into_iter().zip(absent) {
            assert!(network.reaches("near", neighbour, LONG).await.unwrap(), "{neighbour}");
            assert!(!network.reaches("near", absent, brief).await.unwrap(), "{absent}");
        }
        assert_eq!(
            (&capture.arp()[28..32], capture.icmp6(135)[37]),
            (&[192, 0, 2, 1][..], 1),
            "the source is the own address in the neighbour's subnet"
        );

        peer.ip("link set far down");
        assert!(!network.reaches("near", present[0], brief).await.unwrap(), "no carrier");
        ip("link set near down");
        assert!(!network.reaches("near", present[0], LONG).await.unwrap(), "down");
        network.reaches("lo", present[0], LONG).await.unwrap_err();
    });
}

#[test]
fn subscribers_are_notified_of_link_changes() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelHostNetwork::connect().await.unwrap();
        let mut changes = network.changes();
        assert_eq!(network.link("near").await.unwrap(), Some(Link { up: true, carrier: true }));
        // There is at least one notification for each change, when the new state can be read.
        let mut expect = async |change: &dyn Fn(), link: Link| {
            changes.mark_unchanged();
            change();
            loop {
                timeout(LONG, changes.changed()).await.expect("a notification").unwrap();
                if network.link("near").await.unwrap() == Some(link) {
                    break;
                }
            }
        };
        expect(&|| drop(peer.ip("link set far down")), Link { up: true, carrier: false }).await;
        let error = network.probe(&on("near", FLOATING[0]), LONG).await.unwrap_err();
        assert_eq!(error.reason, "near has no carrier", "without a carrier, no answer proves nothing");
        expect(&|| drop(ip("link set near down")), Link { up: false, carrier: false }).await;
        for error in [
            network.probe(&on("near", FLOATING[0]), LONG).await.unwrap_err(),
            network.announce(&on("near", FLOATING[0])).await.unwrap_err(),
        ] {
            assert_eq!(error.reason, "near is down");
        }
        peer.ip("link set far up");
        expect(&|| drop(ip("link set near up")), Link { up: true, carrier: true }).await;
        assert_eq!(network.link("lo").await.unwrap(), Some(Link { up: false, carrier: false }));
    });
}

#[test]
fn concurrent_calls_do_not_disturb_each_other() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = Arc::new(KernelHostNetwork::connect().await.unwrap());
        let tasks: Vec<_> = (1..=50)
            .map(|i| {
                let network = network.clone();
                tokio::spawn(async move {
                    let address = on("near", &format!("2001:db8::{i}/64"));
                    network.hold(&address, after(60.0)).await.unwrap();
                    assert!(network.holds(&address).await.unwrap());
                    // Cancelled at once, at whatever point: the next call takes effect all the same.
                    let _ = timeout(Duration::ZERO, network.hold(&address, after(90.0))).await;
                    network.release(&address).await.unwrap();
                    assert!(!network.holds(&address).await.unwrap());
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(!ip("-o addr show dev near").contains("2001:db8"));
    });
}
