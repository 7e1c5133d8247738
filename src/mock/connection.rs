//! One connection as a server sees it: TCP, with TLS or not, with the faults of the wire and grpc-go's ping policy.
//!
//! grpc-go's default enforcement policy: a client's HTTP/2 ping less than 5 min after its last one is a strike; a frame of
//! headers or data that the server sent in between forgives all strikes; the third strike (a client's fourth ping) ends
//! the connection with GOAWAY ENHANCE_YOUR_CALM, `too_many_pings`.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;

use super::fault::{Faults, Kind, Scope};

const PING_MIN_TIME: Duration = Duration::from_secs(300);
const MAX_PING_STRIKES: u32 = 2;
const SLOW_STEP: Duration = Duration::from_millis(50);
pub(super) const NOISE: &[u8] =
    b"\x00\xff\x17\x42 this is neither HTTP nor gRPC \xde\xad\xbe\xef\r\n\r\n\x80\x01\x02\x03";

/// How a connection is ended from within a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// TCP RST.
    Reset,
    /// Noise, then FIN.
    Garbage,
}

/// A call's hold on the connection it came on.
#[derive(Debug, Clone)]
pub(super) struct Control(Arc<watch::Sender<Option<End>>>);

impl Control {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::channel(None).0))
    }

    pub(super) fn end(&self, end: End) {
        self.0.send_replace(Some(end));
    }

    pub(super) async fn ended(&self) {
        let mut end = self.0.subscribe();
        // The sender lives in self.
        let _ = end.wait_for(Option::is_some).await;
    }
}

/// The stream under HTTP.
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => tls.get_ref().0,
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Socket::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }
}

/// Ends a connection with a TCP RST when it is dropped.
pub(super) fn reset_on_drop(tcp: &TcpStream) {
    // Where it fails, the peer sees FIN instead: nothing to be done about it.
    let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

/// Finds the frames of one direction of an HTTP/2 connection.
#[derive(Debug, Default)]
struct Frames {
    skip: usize,
    head: Vec<u8>,
}

impl Frames {
    fn from_client() -> Self {
        Self { skip: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len(), head: Vec::new() }
    }

    /// Calls `frame(type, flags)` for each frame that begins in `bytes`.
    fn feed(&mut self, mut bytes: &[u8], mut frame: impl FnMut(u8, u8)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (9 - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let [a, b, c, kind, flags, ..] = self.head[..]
                && self.head.len() == 9
            {
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.head.clear();
                frame(kind, flags);
            }
        }
    }
}

/// The ping policy of one HTTP/2 connection.
#[derive(Debug)]
struct Pings {
    received: Frames,
    sent: Frames,
    last: Option<Instant>,
    strikes: u32,
    forgiven: bool,
}

impl Pings {
    fn new() -> Self {
        Self {
            received: Frames::from_client(),
            sent: Frames::default(),
            last: None,
            strikes: 0,
            forgiven: false,
        }
    }

    fn sent(&mut self, bytes: &[u8]) {
        let forgiven = &mut self.forgiven;
        self.sent.feed(bytes, |kind, _| *forgiven |= kind <= 1);
    }

    /// Whether the client has pinged too often.
    fn received(&mut self, bytes: &[u8]) -> bool {
        let (last, strikes, forgiven) = (&mut self.last, &mut self.strikes, &mut self.forgiven);
        self.received.feed(bytes, |kind, flags| {
            if kind != 6 || flags & 1 == 1 {
                return;
            }
            let now = Instant::now();
            if std::mem::take(forgiven) {
                *strikes = 0;
            } else if last.is_some_and(|l| now < l + PING_MIN_TIME) {
                *strikes += 1;
            }
            *last = Some(now);
        });
        self.strikes > MAX_PING_STRIKES
    }
}

fn too_many_pings() -> Vec<u8> {
    let debug = b"too_many_pings";
    let mut frame = vec![0, 0, 8 + debug.len() as u8, 7, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&i32::MAX.to_be_bytes());
    frame.extend_from_slice(&11u32.to_be_bytes());
    frame.extend_from_slice(debug);
    frame
}

type Lifted = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A [`Socket`] with the faults of the wire.
pub(super) struct Wire {
    socket: Socket,
    control: Control,
    faults: Arc<Faults>,
    api: Scope,
    pings: Option<Mutex<Pings>>,
    cut: AtomicBool,
    slow: bool,
    frozen: Option<Lifted>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// `http2`: the ping policy applies. `slow`: this connection is slow, whatever the switches say.
    pub(super) fn new(
        socket: Socket,
        control: Control,
        faults: Arc<Faults>,
        api: Scope,
        http2: bool,
        slow: bool,
    ) -> Self {
        Self {
            socket,
            control,
            faults,
            api,
            pings: http2.then(|| Mutex::new(Pings::new())),
            cut: AtomicBool::new(false),
            slow,
            frozen: None,
            pause: None,
        }
    }

    /// Waits while the black hole is on: no byte passes either way.
    fn poll_frozen(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.frozen.is_none() && self.faults.is_on(Kind::BlackHole, self.api) {
            let (faults, api) = (self.faults.clone(), self.api);
            self.frozen = Some(Box::pin(async move { faults.until(Kind::BlackHole, api, false).await }));
        }
        if let Some(lifted) = &mut self.frozen {
            ready!(lifted.as_mut().poll(cx));
            self.frozen = None;
        }
        Poll::Ready(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        match *self.control.0.borrow() {
            Some(End::Reset) => reset_on_drop(self.socket.tcp()),
            Some(End::Garbage) => drop(self.socket.tcp().try_write(NOISE)),
            None => {}
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_frozen(cx));
        if this.cut.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match &mut this.socket {
            Socket::Plain(tcp) => ready!(Pin::new(tcp).poll_read(cx, buf))?,
            Socket::Tls(tls) => ready!(Pin::new(tls).poll_read(cx, buf))?,
        }
        let too_many = this.pings.as_ref().is_some_and(|pings| {
            pings.lock().unwrap_or_else(PoisonError::into_inner).received(&buf.filled()[before..])
        });
        if too_many {
            this.cut.store(true, Relaxed);
            buf.set_filled(before);
            // A frame of 31 bytes into an idle socket's buffer: it goes at once, or not at all.
            let _ = this.socket.poll_write(cx, &too_many_pings());
            let _ = this.socket.poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_frozen(cx));
        let mut bytes = bytes;
        if !bytes.is_empty() && (this.slow || this.faults.is_on(Kind::Slow, this.api)) {
            let pause = this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(SLOW_STEP)));
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
            bytes = &bytes[..1];
        }
        let written = ready!(this.socket.poll_write(cx, bytes))?;
        if let Some(pings) = &this.pings {
            pings.lock().unwrap_or_else(PoisonError::into_inner).sent(&bytes[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const DATA: [u8; 9] = [0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn after_preface() -> Pings {
        let mut pings = Pings::new();
        assert!(!pings.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        pings
    }

    #[tokio::test(start_paused = true)]
    async fn the_fourth_ping_within_five_minutes_of_each_other_is_too_many_however_the_bytes_are_cut() {
        let mut pings = after_preface();
        for n in 1..=4 {
            let mut cut = false;
            for byte in PING {
                cut |= pings.received(&[byte]);
            }
            assert_eq!(cut, n == 4, "ping {n}");
            tokio::time::advance(Duration::from_secs(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_between_forgives_and_a_slow_ping_is_no_strike() {
        let mut pings = after_preface();
        for _ in 0..20 {
            assert!(!pings.received(&PING));
            pings.sent(&DATA);
        }
        let mut pings = after_preface();
        for _ in 0..20 {
            assert!(!pings.received(&PING));
            tokio::time::advance(PING_MIN_TIME).await;
        }
    }

    #[test]
    fn an_acknowledgement_of_a_ping_is_none() {
        let mut pings = after_preface();
        let mut ack = PING;
        ack[4] = 1;
        for _ in 0..20 {
            assert!(!pings.received(&ack));
        }
    }
}
