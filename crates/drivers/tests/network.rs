//! Floating addresses against the real kernel. Each test has a network namespace of its own, and most have another one
//! at the far end of a cable (a veth pair). The namespaces are those of threads, and are gone with them, however a test
//! ends. They need root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests end by panicking")]

mod namespace;

use drover_drivers::network::{KernelNetwork, Link, Network};
use drover_model::FloatingAddress;
use namespace::{NEAR_MAC, Peer, in_namespace, ip, wait_for};
use std::{future::poll_fn, net::IpAddr, sync::Arc, task::Poll, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything may take here, and shorter than anybody's patience.
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

/// What `ip` says of an address on `near`, if it is there.
fn shown(address: &FloatingAddress) -> Option<String> {
    let text = format!(" {}/", address.address.ip);
    ip(&format!("-o addr show dev {}", address.interface)).lines().find(|line| line.contains(&text)).map(str::to_owned)
}

/// For how many seconds the kernel still keeps an address.
fn seconds_left(address: &FloatingAddress) -> u64 {
    let line = shown(address).unwrap();
    let valid = line.split(" valid_lft ").nth(1).unwrap();
    valid.split("sec").next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"))
}

const FLOATS: [&str; 2] = ["192.0.2.7/24", "2001:db8::7/64"];

#[test]
fn an_address_is_held_and_released_as_often_as_one_likes() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        let routes = || ip("route show") + &ip("-6 route show");
        let before = routes();
        for address in FLOATS.map(|float| on("near", float)) {
            network.release(&address).await.unwrap();
            assert!(!network.holds(&address).await.unwrap());
            for until in [None, None, after(60.0), None] {
                network.hold(&address, until).await.unwrap();
                assert!(network.holds(&address).await.unwrap(), "{address} {until:?}");
                let line = shown(&address).unwrap();
                // For IPv4, `ip` writes preferred_lft forever there, but the mark is set.
                for word in [" deprecated ", " noprefixroute ", " valid_lft forever "] {
                    assert!(line.contains(word), "{line}");
                }
            }
            assert_eq!(routes(), before, "it brings no routes");
            assert!(!network.holds(&on("lo", &address.address.to_string())).await.unwrap(), "another interface");
            for _ in 0..2 {
                network.release(&address).await.unwrap();
                assert!(!network.holds(&address).await.unwrap() && shown(&address).is_none());
            }
        }
    });
}

/// IPv4 addresses of one network depend on each other in the kernel, unless one takes care.
#[test]
fn neither_the_machine_nor_other_addresses_are_hurt_when_one_comes_or_goes() {
    in_namespace(async || {
        let _peer = Peer::connected();
        std::fs::write("/proc/sys/net/ipv4/conf/near/promote_secondaries", "0").unwrap();
        let network = KernelNetwork::connect().await.unwrap();
        let [first, second, third] = ["192.0.2.7/24", "192.0.2.8/24", "192.0.2.9/24"].map(|float| on("near", float));
        let end = after(3.0);
        network.hold(&first, end).await.unwrap();
        network.hold(&second, None).await.unwrap();
        ip("addr add 192.0.2.1/24 dev near");
        network.hold(&third, None).await.unwrap();
        let undisturbed = || ip("route get 192.0.2.99").contains("dev near src 192.0.2.1 ");
        assert!(undisturbed(), "the machine speaks from its own address");
        wait_for("the end of the first", || shown(&first).is_none());
        network.release(&second).await.unwrap();
        assert!(undisturbed() && network.holds(&third).await.unwrap());
        // And the other way round.
        ip("addr del 192.0.2.1/24 dev near");
        assert!(network.holds(&third).await.unwrap());
    });
}

#[test]
fn what_somebody_else_put_up_is_seen_and_taken_away() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        for address in FLOATS.map(|float| on("near", float)) {
            ip(&format!("addr add {} dev near {}", address.address, nodad(address.address.ip)));
            assert!(network.holds(&address).await.unwrap());
            network.hold(&address, None).await.unwrap();
            network.release(&address).await.unwrap();
            assert!(!network.holds(&address).await.unwrap() && shown(&address).is_none());
        }
    });
}

#[test]
fn the_address_of_the_machine_itself_stays_in_it() {
    in_namespace(async || {
        ip("link set lo up");
        let network = KernelNetwork::connect().await.unwrap();
        let address = FloatingAddress::metadata();
        network.hold(&address, after(60.0)).await.unwrap();
        assert!(shown(&address).unwrap().contains("scope host"));
        network.announce(&address).await.unwrap();
        assert_eq!(network.probe(&address, LONG).await.unwrap(), None);
        network.release(&address).await.unwrap();
    });
}

/// Many, for the kernel's timers of different addresses affect each other.
#[test]
fn addresses_are_gone_by_their_end_though_nobody_takes_them_away() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        let mut ends = Vec::new();
        for i in 0..16_u32 {
            let ips = [format!("192.0.2.{}/24", i + 1), format!("2001:db8::{}/64", i + 1)];
            for address in ips.map(|ip| on("near", &ip)) {
                // Hardly above whole seconds, so that it shows when the kernel's lateness is not reckoned in.
                let until = after(f64::from(3 + i % 3) + 0.01).unwrap();
                network.hold(&address, Some(until)).await.unwrap();
                assert!(shown(&address).is_some(), "{address}");
                ends.push((address, until));
            }
            // The kernel has its timers run at whole seconds, if it can: how late it is depends on when one began.
            sleep(Duration::from_millis(60)).await;
        }
        drop(network);
        while !ends.is_empty() {
            let looked = Instant::now();
            let there = ip("-o addr show dev near");
            ends.retain(|(address, _)| there.contains(&format!(" {}/", address.address.ip)));
            for (address, until) in &ends {
                assert!(looked <= *until, "{address} is still there, {:?} after its end", looked - *until);
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
}

/// Something keeps the thread from its work, again and again, so that requests come late to the kernel.
#[test]
fn an_end_is_kept_though_the_request_was_long_on_its_way() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        let address = on("near", FLOATS[0]);
        // It goes to the end of the queue at once, and so comes between any two others. (`yield_now` waits until they
        // all have done something.)
        let mut times = 0..10;
        let stalls = tokio::spawn(poll_fn(move |context| {
            std::thread::sleep(Duration::from_millis(1200));
            context.waker().wake_by_ref();
            if times.next().is_some() { Poll::Pending } else { Poll::Ready(()) }
        }));
        let until = after(60.31).unwrap();
        network.hold(&address, Some(until)).await.unwrap();
        let left = Duration::from_secs(seconds_left(&address) - 1);
        // The kernel tells whole seconds, rounded up; and it may be 1.25 s late.
        assert!(Instant::now() + left + Duration::from_millis(1250) <= until, "{left:?}");
        stalls.await.unwrap();
    });
}

#[test]
fn a_later_end_prolongs_and_an_earlier_one_does_not_shorten() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        for address in FLOATS.map(|float| on("near", float)) {
            network.hold(&address, after(100.0)).await.unwrap();
            assert!(seconds_left(&address) <= 98);
            network.hold(&address, after(200.0)).await.unwrap();
            assert!((101..=198).contains(&seconds_left(&address)), "prolonged");
            network.hold(&address, after(100.0)).await.unwrap();
            assert!(seconds_left(&address) > 101, "not shortened");

            // What somebody took away is put up again, also by a call with an earlier end.
            ip(&format!("addr flush dev near to {}", address.address.ip));
            network.hold(&address, after(100.0)).await.unwrap();
            assert!(network.holds(&address).await.unwrap());

            // What was released is forgotten.
            network.release(&address).await.unwrap();
            network.hold(&address, after(50.0)).await.unwrap();
            assert!(seconds_left(&address) <= 48);
        }
    });
}

#[test]
fn an_end_that_the_kernel_cannot_keep_to_is_refused() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        for address in FLOATS.map(|float| on("near", float)) {
            for seconds in [0.0, 1.0, 2.2] {
                let error = network.hold(&address, after(seconds)).await.unwrap_err();
                assert!(
                    error.to_string().starts_with(&format!("cannot hold {address}: its end is too near")),
                    "{error}"
                );
                assert!(!network.holds(&address).await.unwrap());
            }
            // A refusal takes nothing away.
            network.hold(&address, after(100.0)).await.unwrap();
            network.hold(&address, after(1.0)).await.unwrap_err();
            assert!(seconds_left(&address) > 50);
        }
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    in_namespace(async || {
        let network = KernelNetwork::connect().await.unwrap();
        for interface in ["eth7", "a-name-that-no-interface-can-have"] {
            let address = on(interface, FLOATS[0]);
            let errors = [
                network.hold(&address, None).await.unwrap_err(),
                network.announce(&address).await.unwrap_err(),
                network.probe(&address, LONG).await.unwrap_err(),
                network.reaches(interface, "192.0.2.1".parse().unwrap(), LONG).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.why, format!("there is no interface {interface}"));
            }
            network.release(&address).await.unwrap();
            assert!(!network.holds(&address).await.unwrap());
            assert_eq!(network.link(interface).await.unwrap(), None);
        }
    });
}

#[test]
fn an_address_that_may_be_taken_is_not_held() {
    in_namespace(async || {
        let _peer = Peer::connected();
        // So that it stays in doubt for longer than the test takes.
        std::fs::write("/proc/sys/net/ipv6/conf/near/dad_transmits", "1000").unwrap();
        ip("addr add 2001:db8::7/64 dev near");
        let network = KernelNetwork::connect().await.unwrap();
        assert!(shown(&on("near", FLOATS[1])).unwrap().contains("tentative"));
        assert!(!network.holds(&on("near", FLOATS[1])).await.unwrap());
    });
}

#[test]
fn an_announcement_reaches_the_other_end() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        let [v4, v6] = FLOATS.map(|float| on("near", float));
        let mut ear = peer.ear();
        network.hold(&v4, None).await.unwrap();
        network.announce(&v4).await.unwrap();
        let arps = [ear.arp(), ear.arp()];
        for (frame, op) in arps.iter().zip([1, 2]) {
            assert_eq!((&frame[..6], &frame[6..12]), (&[0xff; 6][..], &NEAR_MAC[..]), "to everybody, from us");
            assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, op]);
            assert_eq!(
                (&frame[22..28], &frame[28..32], &frame[38..42]),
                (&NEAR_MAC[..], &[192, 0, 2, 7][..], &[192, 0, 2, 7][..])
            );
        }

        network.hold(&v6, None).await.unwrap();
        network.announce(&v6).await.unwrap();
        let ip6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let frame = ear.icmp6(136);
        assert_eq!((&frame[..6], &frame[6..12]), (&[0x33, 0x33, 0, 0, 0, 1][..], &NEAR_MAC[..]));
        assert_eq!((frame[21], &frame[22..38], &frame[38..54]), (255, &ip6("2001:db8::7")[..], &ip6("ff02::1")[..]));
        assert_eq!((&frame[58..62], &frame[62..78]), (&[0x20, 0, 0, 0][..], &ip6("2001:db8::7")[..]), "override only");
        assert_eq!((&frame[78..80], &frame[80..86]), (&[2, 1][..], &NEAR_MAC[..]));
    });
}

/// The other end's kernel heeds an announcement only if everything in it is right, the checksum too.
#[test]
fn an_announcement_changes_what_neighbours_know() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        peer.ip("addr add 192.0.2.2/24 dev far");
        peer.ip("addr add 2001:db8::2/64 dev far nodad");
        for address in FLOATS.map(|float| on("near", float)) {
            let ip = address.address.ip;
            peer.ip(&format!("neigh replace {ip} lladdr 02:00:00:00:00:99 nud stale dev far"));
            network.announce(&address).await.unwrap();
            wait_for("the new place", || peer.ip(&format!("neigh show {ip} dev far")).contains("02:00:00:00:00:0a"));
        }
    });
}

#[test]
fn a_probe_finds_who_has_the_address_and_nobody_if_nobody_has() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        for (address, brief) in FLOATS.map(|float| on("near", float)).iter().zip([1.0, 1.0]) {
            let mut ear = peer.ear();
            assert_eq!(network.probe(address, Duration::from_secs_f64(brief)).await.unwrap(), None);
            for _ in 0..3 {
                if address.address.ip.is_ipv4() {
                    assert_eq!(ear.arp()[28..32], [0; 4], "it tells nobody's address");
                } else {
                    assert_eq!(ear.icmp6(135)[22..38], [0; 16], "it tells nobody's address");
                }
            }
            peer.ip(&format!("addr add {} dev far {}", address.address, nodad(address.address.ip)));
            let found = network.probe(address, LONG).await.unwrap();
            assert_eq!(found.as_deref(), Some("02:00:00:00:00:0b"));
            // Having it oneself does not hide it.
            network.hold(address, None).await.unwrap();
            assert_eq!(network.probe(address, LONG).await.unwrap(), found);
            peer.ip(&format!("addr del {} dev far", address.address));
            assert_eq!(network.probe(address, Duration::from_secs(1)).await.unwrap(), None, "only we have it");
        }
    });
}

fn nodad(ip: IpAddr) -> &'static str {
    if ip.is_ipv6() { "nodad" } else { "" }
}

#[test]
fn a_probe_hears_who_only_announces_the_address() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        for address in FLOATS.map(|float| on("near", float)) {
            let there = on("far", &address.address.to_string());
            // It goes on for as long as this is there.
            let wanted = Arc::new(());
            let still_wanted = Arc::downgrade(&wanted);
            let announcing = peer.begin(async move {
                let network = KernelNetwork::connect().await.unwrap();
                while still_wanted.strong_count() > 0 {
                    network.announce(&there).await.unwrap();
                    sleep(Duration::from_millis(20)).await;
                }
            });
            assert_eq!(network.probe(&address, LONG).await.unwrap().as_deref(), Some("02:00:00:00:00:0b"));
            drop(wanted);
            announcing.recv_timeout(LONG).unwrap();
        }
    });
}

#[test]
fn neighbours_are_reached_or_not() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        let brief = Duration::from_secs(1);
        peer.ip("addr add 192.0.2.2/24 dev far");
        peer.ip("addr add 2001:db8::2/64 dev far nodad");
        let there: [IpAddr; 2] = ["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()];
        let nobody: [IpAddr; 2] = ["192.0.2.3".parse().unwrap(), "2001:db8::3".parse().unwrap()];
        // An address that floats is not spoken from.
        for float in FLOATS {
            network.hold(&on("near", float), None).await.unwrap();
        }
        let mut ear = peer.ear();
        for neighbour in there {
            assert!(network.reaches("near", neighbour, LONG).await.unwrap(), "{neighbour} without an own address");
        }
        assert_eq!((&ear.arp()[28..32], &ear.icmp6(135)[22..38]), (&[0; 4][..], &[0; 16][..]));

        ip("addr add 198.51.100.1/24 dev near");
        ip("addr add 192.0.2.1/24 dev near");
        ip("addr add 2001:db8::1/64 dev near nodad");
        let mut ear = peer.ear();
        for (neighbour, nobody) in there.into_iter().zip(nobody) {
            assert!(network.reaches("near", neighbour, LONG).await.unwrap(), "{neighbour}");
            assert!(!network.reaches("near", nobody, brief).await.unwrap(), "{nobody}");
        }
        assert_eq!(
            (&ear.arp()[28..32], ear.icmp6(135)[37]),
            (&[192, 0, 2, 1][..], 1),
            "from the own address that is nearest"
        );

        peer.ip("link set far down");
        assert!(!network.reaches("near", there[0], brief).await.unwrap(), "no carrier");
        ip("link set near down");
        assert!(!network.reaches("near", there[0], LONG).await.unwrap(), "down");
        network.reaches("lo", there[0], LONG).await.unwrap_err();
    });
}

#[test]
fn a_link_is_seen_and_its_changes_ring() {
    in_namespace(async || {
        let peer = Peer::connected();
        let network = KernelNetwork::connect().await.unwrap();
        let mut bell = network.changes();
        assert_eq!(network.link("near").await.unwrap(), Some(Link { up: true, carrier: true }));
        // It rings at least once for each change, and after it is seen.
        let mut expect = async |change: &dyn Fn(), link: Link| {
            bell.mark_unchanged();
            change();
            loop {
                timeout(LONG, bell.changed()).await.expect("it rings").unwrap();
                if network.link("near").await.unwrap() == Some(link) {
                    break;
                }
            }
        };
        expect(&|| drop(peer.ip("link set far down")), Link { up: true, carrier: false }).await;
        let error = network.probe(&on("near", FLOATS[0]), LONG).await.unwrap_err();
        assert_eq!(error.why, "near is not connected", "silence there proves nothing");
        expect(&|| drop(ip("link set near down")), Link { up: false, carrier: false }).await;
        for error in [
            network.probe(&on("near", FLOATS[0]), LONG).await.unwrap_err(),
            network.announce(&on("near", FLOATS[0])).await.unwrap_err(),
        ] {
            assert_eq!(error.why, "near is down");
        }
        peer.ip("link set far up");
        expect(&|| drop(ip("link set near up")), Link { up: true, carrier: true }).await;
        assert_eq!(network.link("lo").await.unwrap(), Some(Link { up: false, carrier: false }));
    });
}

#[test]
fn many_ask_and_hold_at_the_same_time() {
    in_namespace(async || {
        let _peer = Peer::connected();
        let network = Arc::new(KernelNetwork::connect().await.unwrap());
        let tasks: Vec<_> = (1..=50)
            .map(|i| {
                let network = network.clone();
                tokio::spawn(async move {
                    let address = on("near", &format!("2001:db8::{i}/64"));
                    network.hold(&address, after(60.0)).await.unwrap();
                    assert!(network.holds(&address).await.unwrap());
                    // Given up at once, whenever that is: the next call has its effect all the same.
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
