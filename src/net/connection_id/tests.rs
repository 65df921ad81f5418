use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn identity(seed: u8) -> Identity {
    Identity::create(&[seed; 32], "127.0.0.1".parse().unwrap(), "node", 0).unwrap()
}

fn generator(node: u8, process: u8) -> ConnectionIds {
    ConnectionIds::new(&identity(node), &Entropy::from_seed([process; 32]))
}

#[test]
fn a_restarted_node_recognises_its_ids_and_another_node_does_not() {
    let mut before = generator(1, 1);
    let (after, other) = (generator(1, 2), generator(2, 1));
    for _ in 0..100 {
        let id = before.generate_cid();
        assert_eq!(id.len(), before.cid_len());
        assert!(before.validate(&id).is_ok());
        assert!(after.validate(&id).is_ok());
        assert!(other.validate(&id).is_err());
    }
}

#[test]
fn ids_repeat_neither_in_a_process_nor_after_a_restart_but_do_with_the_same_entropy() {
    let draw = |process| {
        let mut generator = generator(1, process);
        (0..1_000).map(move |_| generator.generate_cid().to_vec())
    };
    let distinct: BTreeSet<_> = draw(1).chain(draw(2)).collect();
    assert_eq!(distinct.len(), 2_000);
    assert!(draw(1).eq(draw(1)));
}

#[test]
fn both_keys_are_the_nodes_own_and_differ_from_each_other() {
    let (one, two) = (identity(1), identity(2));
    let keys = BTreeSet::from([
        one.derive_key(RESET_CONTEXT),
        one.derive_key(CONNECTION_ID_CONTEXT),
        two.derive_key(RESET_CONTEXT),
        two.derive_key(CONNECTION_ID_CONTEXT),
    ]);
    assert_eq!(keys.len(), 4);
}

#[test]
fn a_reset_token_is_the_same_after_a_restart_and_verifies() {
    let token = |node| {
        let key = reset_key(&identity(node));
        let mut token = vec![0; key.signature_len()];
        key.sign(b"an id", &mut token);
        (key, token)
    };
    let (key, mut first) = token(1);
    assert_eq!(first, token(1).1);
    assert_ne!(first, token(2).1);
    assert!(key.verify(b"an id", &first).is_ok());
    assert!(key.verify(b"another", &first).is_err());
    assert!(key.verify(b"an id", &first[..16]).is_err());
    first[31] ^= 1;
    assert!(key.verify(b"an id", &first).is_err());
}

proptest! {
    /// Nobody harvests reset tokens by making up ids or changing real ones.
    #[test]
    fn an_id_that_was_not_made_here_is_refused(
        made_up in proptest::collection::vec(any::<u8>(), 0..=20),
        position in 0..ID_BYTES,
        flip in 1u8..,
    ) {
        let mut generator = generator(1, 1);
        // A random guess passes with probability 2^-32.
        prop_assert!(generator.validate(&ConnectionId::new(&made_up)).is_err());
        let mut id = generator.generate_cid().to_vec();
        id[position] ^= flip;
        prop_assert!(generator.validate(&ConnectionId::new(&id)).is_err());
    }
}

mod restart {
    use std::net::{SocketAddr, UdpSocket};

    use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::net::explain::explain;
    use crate::net::tls;
    use crate::wire::CloseCode;

    /// One process of node 1, with its own runtime: dropping it is a SIGKILL, since nothing of it
    /// runs again and no close is sent.
    struct Process {
        runtime: Runtime,
        endpoint: Endpoint,
    }

    impl Process {
        fn start(node: u8, process: u8, address: SocketAddr) -> Self {
            let identity = identity(node);
            let mut config = EndpointConfig::new(reset_key(&identity));
            let entropy = Entropy::from_seed([process; 32]);
            let crypto = tls::server_crypto(&identity).unwrap();
            config.cid_generator(move || Box::new(ConnectionIds::new(&identity, &entropy)));
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let guard = runtime.enter();
            let endpoint = Endpoint::new(
                config,
                Some(ServerConfig::with_crypto(crypto)),
                UdpSocket::bind(address).unwrap(),
                Arc::new(TokioRuntime),
            )
            .unwrap();
            drop(guard);
            Self { runtime, endpoint }
        }
    }

    /// Connects from outside to node 1, replaces its process by one of node `after`, goes on
    /// sending, and returns how that ends.
    fn end_after_restart(after: u8, idle_timeout: Duration) -> CloseCode {
        // An address of its own, or another test may take the port between the two processes.
        let address = SocketAddr::from(([127, 0, 61, after], 0));
        let Process { runtime, endpoint } = Process::start(1, 1, address);
        let address = endpoint.local_addr().unwrap();
        let accepting = endpoint.clone();
        let accepted =
            runtime.spawn(async move { accepting.accept().await.unwrap().await.unwrap() });

        let outside = Runtime::new().unwrap();
        let connection = outside.block_on(async {
            let dialing = Endpoint::client("127.0.0.2:0".parse().unwrap()).unwrap();
            let mut transport = quinn::TransportConfig::default();
            transport.max_idle_timeout(Some(idle_timeout.try_into().unwrap()));
            let mut config = ClientConfig::new(tls::client_crypto(&identity(2)).unwrap());
            config.transport_config(Arc::new(transport));
            let connecting = dialing.connect_with(config, address, "timed").unwrap();
            connecting.await.unwrap()
        });
        let old = outside.block_on(accepted).unwrap();

        runtime.shutdown_timeout(Duration::from_secs(10));
        drop((endpoint, old));
        let _after = Process::start(after, 2, address);
        outside.block_on(async {
            // An acknowledgement may have met the new process first: then the end is here already,
            // and both of these fail with it.
            if let Ok(mut stream) = connection.open_uni().await {
                let _ = stream.write_all(&[0; 100]).await;
            }
            explain(&connection.closed().await).code
        })
    }

    #[test]
    fn a_restarted_node_answers_old_packets_with_a_reset() {
        // Far above what a slow machine needs: the reset must come before it.
        let end = end_after_restart(1, Duration::from_secs(60));
        assert_eq!(end, CloseCode::PeerRestarted);
    }

    /// The control: without the node's own keys there is no reset, and the peer must wait.
    #[test]
    fn another_node_at_the_address_cannot_reset_the_connection() {
        let end = end_after_restart(3, Duration::from_secs(5));
        assert_eq!(end, CloseCode::TransportLost);
    }
}
