//! The designs over TCP and TLS: one stream of frames that carries everything, and yamux.

use std::sync::Arc;

use anyhow::Context;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use crate::place::Link;
use crate::rival_quic::{BULK_STREAMS, Tls};
use crate::session::{
    CHUNK_BYTES, Plan, REQUEST_BYTES, Received, Session, Shown, ask, echo, hear, number, pump,
    request, started,
};
use crate::stats::Probe;

type Secure = TlsStream<TcpStream>;

/// End 0 dials end 1.
async fn connect(link: &Link) -> anyhow::Result<[Secure; 2]> {
    let tls = Tls::new()?;
    let [dialing, accepting] = &link.ends;
    let listener = accepting.listen()?;
    let (dialed, accepted) = tokio::try_join!(
        async {
            let stream = dialing.connect().await?;
            stream.set_nodelay(true)?;
            let connector = TlsConnector::from(Arc::new(tls.client()?));
            anyhow::Ok(connector.connect(Tls::name()?, stream).await?)
        },
        async {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let acceptor = TlsAcceptor::from(Arc::new(tls.server()?));
            anyhow::Ok(acceptor.accept(stream).await?)
        }
    )?;
    Ok([dialed.into(), accepted.into()])
}

const PING: u8 = 1;
const PONG: u8 = 2;
const BULK: u8 = 3;
/// Pings that wait for their pong to be written; beyond, the reader waits.
const PONGS_WAITING: usize = 4_096;

/// One TCP+TLS stream for everything, bulk in frames of this length.
pub async fn open_one_stream(
    link: &Link,
    plan: Plan,
    frame_bytes: usize,
) -> anyhow::Result<Session> {
    let go = watch::Sender::new(false);
    let (received, ping) = (Received::default(), Arc::new(Probe::default()));
    let mut tasks = JoinSet::new();
    for (index, stream) in connect(link).await?.into_iter().enumerate() {
        let (read, write) = tokio::io::split(stream);
        let write = Arc::new(Mutex::new(write));
        let (pongs_in, pongs) = mpsc::channel(PONGS_WAITING);
        tasks.spawn(read_frames(
            read,
            index,
            received.clone(),
            ping.clone(),
            pongs_in,
        ));
        tasks.spawn(write_pongs(write.clone(), pongs));
        if plan.load.sends(index) {
            tasks.spawn(write_bulk(write.clone(), frame_bytes, go.subscribe()));
        }
        if index == 0 {
            tasks.spawn(write_pings(write, plan, ping.clone()));
        }
    }
    let shown = Shown {
        ping,
        vote: None,
        received: received.reader(),
        go,
    };
    Ok(Session { shown, tasks })
}

/// A frame as it goes out: its length, its kind, its content.
fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = (content.len() as u32).to_be_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(content);
    bytes
}

type Writer = Arc<Mutex<WriteHalf<Secure>>>;

async fn write_bulk(
    writer: Writer,
    frame_bytes: usize,
    go: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    started(go).await?;
    let block = frame(BULK, &vec![7; frame_bytes]);
    loop {
        // The lock is fair: whoever waited meanwhile goes first.
        let mut writer = writer.lock().await;
        writer.write_all(&block).await?;
        writer.flush().await?;
    }
}

async fn write_pings(writer: Writer, plan: Plan, probe: Arc<Probe>) -> anyhow::Result<()> {
    let mut pace = tokio::time::interval(plan.ask_every);
    for next in 0.. {
        pace.tick().await;
        probe.sent(next);
        let mut writer = writer.lock().await;
        writer.write_all(&frame(PING, &request(next))).await?;
        writer.flush().await?;
    }
    Ok(())
}

/// Writes all pongs that wait whenever it is its turn.
async fn write_pongs(
    writer: Writer,
    mut pongs: mpsc::Receiver<[u8; REQUEST_BYTES]>,
) -> anyhow::Result<()> {
    while let Some(first) = pongs.recv().await {
        let mut writer = writer.lock().await;
        let mut bytes = frame(PONG, &first);
        while let Ok(next) = pongs.try_recv() {
            bytes.extend(frame(PONG, &next));
        }
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
    anyhow::bail!("no pings any more")
}

async fn read_frames(
    stream: ReadHalf<Secure>,
    end: usize,
    received: Received,
    probe: Arc<Probe>,
    pongs: mpsc::Sender<[u8; REQUEST_BYTES]>,
) -> anyhow::Result<()> {
    let mut stream = BufReader::with_capacity(CHUNK_BYTES, stream);
    let mut small = [0; REQUEST_BYTES];
    let mut bulk = vec![0; CHUNK_BYTES];
    loop {
        let length = stream.read_u32().await? as usize;
        match stream.read_u8().await? {
            PING => {
                stream.read_exact(&mut small).await?;
                pongs.send(small).await?;
            }
            PONG => {
                stream.read_exact(&mut small).await?;
                probe.answered(number(&small));
            }
            BULK => {
                let mut left = length;
                while left > 0 {
                    let most = left.min(bulk.len());
                    let read = stream.read(&mut bulk[..most]).await?;
                    anyhow::ensure!(read > 0, "the stream ended");
                    received.count(end, read);
                    left -= read;
                }
            }
            kind => anyhow::bail!("a frame of kind {kind}"),
        }
    }
}

type Mux = yamux::Connection<Compat<Secure>>;

/// TCP+TLS+yamux as the crate comes: one stream for liveness, 4 for bulk.
pub async fn open_yamux(link: &Link, plan: Plan) -> anyhow::Result<Session> {
    let [dialed, accepted] = connect(link).await?;
    let mux = |stream: Secure, mode| Mux::new(stream.compat(), yamux::Config::default(), mode);
    let muxes = [
        mux(dialed, yamux::Mode::Client),
        mux(accepted, yamux::Mode::Server),
    ];
    let go = watch::Sender::new(false);
    let (received, ping) = (Received::default(), Arc::new(Probe::default()));
    let mut tasks = JoinSet::new();
    for (index, mut mux) in muxes.into_iter().enumerate() {
        if plan.load.sends(index) {
            for _ in 0..BULK_STREAMS {
                let mut stream = outbound(&mut mux).await?;
                let go = go.subscribe();
                tasks.spawn(async move {
                    stream.write_all(&[BULK]).await?;
                    pump(stream, go).await
                });
            }
        }
        if index == 0 {
            let mut stream = outbound(&mut mux).await?;
            let (plan, ping) = (plan, ping.clone());
            tasks.spawn(async move {
                stream.write_all(&[PING]).await?;
                let (read, write) = tokio::io::split(stream);
                tokio::try_join!(ask(write, plan.ask_every, ping.clone()), hear(read, ping))?;
                Ok(())
            });
        }
        tasks.spawn(drive(mux, index, received.clone()));
    }
    let shown = Shown {
        ping,
        vote: None,
        received: received.reader(),
        go,
    };
    Ok(Session { shown, tasks })
}

async fn outbound(mux: &mut Mux) -> anyhow::Result<Compat<yamux::Stream>> {
    let stream = std::future::poll_fn(|context| mux.poll_new_outbound(context)).await?;
    Ok(stream.compat())
}

/// Moves the connection's bytes, and serves the streams that the other end opens.
async fn drive(mut mux: Mux, end: usize, received: Received) -> anyhow::Result<()> {
    let mut served = JoinSet::new();
    loop {
        let next = std::future::poll_fn(|context| mux.poll_next_inbound(context)).await;
        let stream = next.context("the connection ended")??.compat();
        served.spawn(serve(stream, end, received.clone()));
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    end: usize,
    received: Received,
) -> anyhow::Result<()> {
    match stream.read_u8().await? {
        BULK => received.drain(end, stream).await,
        _ => {
            let (read, write) = tokio::io::split(stream);
            echo(read, write).await
        }
    }
}
