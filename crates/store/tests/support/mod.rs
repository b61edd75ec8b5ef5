//! A TCP proxy that can cut or stall its connections.

use std::{io, net::SocketAddr};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Forwards data in both directions.
    Forward,
    /// Closes every connection, also new ones.
    Cut,
    /// Keeps connections open, and forwards nothing.
    Stall,
}

/// Forwards TCP connections to a server.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Forward);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut modes, server) = (modes.clone(), server.clone());
                tokio::spawn(async move {
                    if *modes.borrow() == Mode::Cut {
                        return;
                    }
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (requests, responses) = (modes.clone(), modes.clone());
                    let cut = async { modes.wait_for(|mode| *mode == Mode::Cut).await.map(|_| ()) };
                    tokio::select! {
                        _ = cut => {}
                        _ = forward(&client, &server, requests) => {}
                        _ = forward(&server, &client, responses) => {}
                    }
                });
            }
        });
        Proxy { address, mode }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// Forwards data in one direction, in the mode `Forward`.
async fn forward(from: &TcpStream, to: &TcpStream, mut modes: watch::Receiver<Mode>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        from.readable().await?;
        if modes.wait_for(|mode| *mode == Mode::Forward).await.is_err() {
            return Ok(());
        }
        let count = match from.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            to.writable().await?;
            match to.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
