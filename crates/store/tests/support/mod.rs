//! A wire between a client and a server that can be cut.

use std::{io, net::SocketAddr};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Passes everything on.
    Whole,
    /// Ends every connection, and refuses new ones.
    Cut,
    /// Keeps connections, and passes nothing on either way.
    Silent,
}

/// Passes connections on to a server.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    wire: watch::Sender<Wire>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (wire, state) = watch::channel(Wire::Whole);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut state, server) = (state.clone(), server.clone());
                tokio::spawn(async move {
                    if *state.borrow() == Wire::Cut {
                        return;
                    }
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (there, back) = (state.clone(), state.clone());
                    let cut = async { state.wait_for(|s| *s == Wire::Cut).await.map(|_| ()) };
                    tokio::select! {
                        _ = cut => {}
                        _ = pass(&client, &server, there) => {}
                        _ = pass(&server, &client, back) => {}
                    }
                });
            }
        });
        Proxy { address, wire }
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

/// Passes on what one side sends, as long as the wire is whole.
async fn pass(from: &TcpStream, to: &TcpStream, mut state: watch::Receiver<Wire>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        from.readable().await?;
        if state.wait_for(|s| *s == Wire::Whole).await.is_err() {
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
