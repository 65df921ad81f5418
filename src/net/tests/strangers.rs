//! Peers without a record have a thread of their own.

use std::pin::Pin;
use std::sync::OnceLock;

use quinn::AsyncTimer;

use super::*;
use crate::env::Offload;

/// What QUIC runs on the strangers' thread keeps that thread until this opens.
#[derive(Debug)]
struct Gated(Arc<OnceLock<()>>);

impl Runtime for Gated {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, mut task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let open = self.0.clone();
        TokioRuntime.spawn(Box::pin(std::future::poll_fn(move |context| {
            if std::thread::current().name() == Some("strangers") {
                open.wait();
            }
            task.as_mut().poll(context)
        })));
    }

    fn wrap_udp_socket(
        &self,
        socket: std::net::UdpSocket,
    ) -> std::io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> std::time::Instant {
        TokioRuntime.now()
    }
}

#[tokio::test]
async fn a_stranger_that_keeps_its_thread_busy_delays_no_masternode() {
    let mut plan = Plan::new(2, 1);
    plan.timing.ping_interval = Duration::from_millis(50);
    let open = Arc::new(OnceLock::new());
    let runtime = Arc::new(Gated(open.clone()));
    let environment = NetEnvironment {
        socket: bind_udp(plan.address(1), &*runtime as &dyn Runtime).unwrap(),
        runtime,
        clock: Arc::new(SystemClock),
        entropy: Entropy::from_seed([1; 32]),
        pins: Arc::new(FileInMemory::default()),
        offload: Offload::Threads,
    };
    let own = identity(1, plan.ip(1));
    let node = Node::start(
        plan.ip(1),
        plan.config(1),
        own,
        plan.directory(),
        environment,
    );
    let stranger = plan.start(3);
    let half_open = |_: &[PeerInfo]| node.net.half_open().now == 1;
    node.until("the stranger's handshake has begun", half_open)
        .await;

    let masternode = plan.start(2);
    node.connected_to(&[masternode.ip]).await;
    node.until("pongs", |peers| peers[0].pongs_received >= 5)
        .await;
    assert!(stranger.net.peers().is_empty());

    open.set(()).unwrap();
    node.connected_to(&[masternode.ip, stranger.ip]).await;
    stranger.stop().await;
    node.connected_to(&[masternode.ip]).await;
    node.stop().await;
}
