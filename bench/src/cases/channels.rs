//! Channels: how fast messages go through, the price of one answer, and of a select over several.
//!
//! The channels have room for 100, as long as a peer has such ones (may has not). An operation is a
//! message received.

use super::{WALL, WALL_AND_CPU, contest};
use crate::measure::Figures;
use crate::{Case, Peer, Plan, Program, Row};

const PEERS: &[(Peer, Program)] = &[
    #[cfg(feature = "strands")]
    (Peer::Strands, channel_strands),
    (Peer::May, channel_may),
    (Peer::Tokio, channel_tokio),
    (Peer::Go, |plan| super::go("channel", plan)),
    (Peer::Crossbeam, channel_crossbeam),
    (Peer::Threads, channel_threads),
];

/// tokio's channels and std's have one receiver.
const MPMC_PEERS: &[(Peer, Program)] = &[
    #[cfg(feature = "strands")]
    (Peer::Strands, channel_strands),
    (Peer::May, mpmc_may),
    (Peer::Go, |plan| super::go("mpmc", plan)),
    (Peer::Crossbeam, channel_crossbeam),
];

const SELECT_PEERS: &[(Peer, Program)] = &[
    #[cfg(feature = "strands")]
    (Peer::Strands, select_strands),
    (Peer::Tokio, select_tokio),
    (Peer::Go, |plan| super::go("select", plan)),
    (Peer::Crossbeam, select_crossbeam),
];

pub const CASES: &[Case] = &[
    channel("channel/1-1/1", "channel, 1 sender, 1 worker", WALL, Plan::new(1, 2), PEERS),
    channel("channel/1-1/2", "channel, 1 sender, 2 workers", WALL_AND_CPU, Plan::new(2, 2), PEERS),
    channel("channel/4-1/2", "channel, 4 senders", WALL_AND_CPU, Plan::new(2, 5), PEERS),
    channel(
        "channel/4-4/2",
        "channel, 4 senders, 4 receivers",
        WALL_AND_CPU,
        Plan::new(2, 8),
        MPMC_PEERS,
    ),
    channel("select/8/1", "select over 8 channels, 1 worker", WALL, Plan::new(1, 9), SELECT_PEERS),
    channel("select/8/2", "select over 8 channels", WALL_AND_CPU, Plan::new(2, 9), SELECT_PEERS),
    Case {
        name: "oneshot",
        title: "request and oneshot answer, 2 workers",
        rows: WALL_AND_CPU,
        plan: Plan::new(2, 2),
        peers: &[
            #[cfg(feature = "strands")]
            (Peer::Strands, oneshot_strands),
            (Peer::Tokio, oneshot_tokio),
            (Peer::Go, |plan| super::go("oneshot", plan)),
            (Peer::Crossbeam, oneshot_crossbeam),
            (Peer::Threads, oneshot_threads),
        ],
    },
];

const fn channel(
    name: &'static str,
    title: &'static str,
    rows: &'static [Row],
    plan: Plan,
    peers: &'static [(Peer, Program)],
) -> Case {
    Case { name, title, rows, plan, peers }
}

const ROOM: usize = 100;

/// How many of the parties send: all but one, or half of eight.
fn senders(plan: &Plan) -> usize {
    if plan.count == 8 { 4 } else { plan.count - 1 }
}

#[cfg(feature = "strands")]
fn channel_strands(plan: &Plan) -> Figures {
    let senders = senders(plan);
    let (sender, receiver) = strands::sync::channel::bounded(ROOM);
    contest::strands(plan, plan.count, move |mut tick| {
        if tick.party() < senders {
            for number in 0u64.. {
                sender.send(number).expect("the receivers live for ever");
            }
        }
        loop {
            receiver.recv().expect("the senders live for ever");
            tick.add(1);
        }
    })
}

/// may's channels are unbounded, and senders that never wait would fill the memory: they wait
/// for a permit, which receivers give back.
fn channel_may(plan: &Plan) -> Figures {
    let senders = senders(plan);
    let (sender, receiver) = may::sync::mpsc::channel();
    let receiver = std::sync::Arc::new(may::sync::Mutex::new(Some(receiver)));
    let room = std::sync::Arc::new(may::sync::Semphore::new(ROOM));
    contest::may(plan, plan.count, move |mut tick| {
        if tick.party() < senders {
            for number in 0u64.. {
                room.wait();
                sender.send(number).expect("the receiver lives for ever");
            }
        }
        let receiver = receiver.lock().expect("nobody panics").take().expect("one receiver");
        loop {
            receiver.recv().expect("the senders live for ever");
            room.post();
            tick.add(1);
        }
    })
}

fn mpmc_may(plan: &Plan) -> Figures {
    let senders = senders(plan);
    let (sender, receiver) = may::sync::mpmc::channel();
    let room = std::sync::Arc::new(may::sync::Semphore::new(ROOM));
    contest::may(plan, plan.count, move |mut tick| {
        if tick.party() < senders {
            for number in 0u64.. {
                room.wait();
                sender.send(number).expect("the receivers live for ever");
            }
        }
        loop {
            receiver.recv().expect("the senders live for ever");
            room.post();
            tick.add(1);
        }
    })
}

fn channel_tokio(plan: &Plan) -> Figures {
    let senders = senders(plan);
    let (sender, receiver) = tokio::sync::mpsc::channel(ROOM);
    let receiver = std::sync::Mutex::new(Some(receiver));
    contest::tokio(plan, plan.count, move |mut tick| {
        let sender = sender.clone();
        let receiver = (tick.party() == senders)
            .then(|| receiver.lock().expect("nobody panics").take().expect("one receiver"));
        async move {
            let Some(mut receiver) = receiver else {
                for number in 0u64.. {
                    sender.send(number).await.expect("the receiver lives for ever");
                }
                return;
            };
            loop {
                receiver.recv().await.expect("the senders live for ever");
                tick.add(1);
            }
        }
    })
}

fn channel_crossbeam(plan: &Plan) -> Figures {
    let senders = senders(plan);
    let (sender, receiver) = crossbeam_channel::bounded(ROOM);
    contest::threads(plan, plan.count, move |mut tick| {
        if tick.party() < senders {
            for number in 0u64.. {
                sender.send(number).expect("the receivers live for ever");
            }
        }
        loop {
            receiver.recv().expect("the senders live for ever");
            tick.add(1);
        }
    })
}

fn channel_threads(plan: &Plan) -> Figures {
    let senders = senders(plan);
    let (sender, receiver) = std::sync::mpsc::sync_channel(ROOM);
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    contest::threads(plan, plan.count, move |mut tick| {
        if tick.party() < senders {
            for number in 0u64.. {
                sender.send(number).expect("the receiver lives for ever");
            }
        }
        let receiver = receiver.lock().expect("nobody panics").take().expect("one receiver");
        loop {
            receiver.recv().expect("the senders live for ever");
            tick.add(1);
        }
    })
}

// ---- oneshot ----
//
// A client sends a request that carries the sending half of a new oneshot, and waits for the answer.

#[cfg(feature = "strands")]
fn oneshot_strands(plan: &Plan) -> Figures {
    use strands::sync::oneshot;
    let (requests, server) = strands::sync::channel::bounded::<oneshot::Sender<u64>>(ROOM);
    contest::strands(plan, 2, move |mut tick| {
        if tick.party() == 0 {
            for number in 0.. {
                let request = server.recv().expect("the client lives for ever");
                request.send(number).expect("the client waits");
            }
        }
        loop {
            let (request, answer) = oneshot::channel();
            requests.send(request).expect("the server lives for ever");
            answer.recv().expect("an answer");
            tick.add(1);
        }
    })
}

fn oneshot_tokio(plan: &Plan) -> Figures {
    use tokio::sync::{mpsc, oneshot};
    let (requests, server) = mpsc::channel::<oneshot::Sender<u64>>(ROOM);
    let server = std::sync::Mutex::new(Some(server));
    contest::tokio(plan, 2, move |mut tick| {
        let requests = requests.clone();
        let server = (tick.party() == 0)
            .then(|| server.lock().expect("nobody panics").take().expect("one server"));
        async move {
            if let Some(mut server) = server {
                for number in 0.. {
                    let request = server.recv().await.expect("the client lives for ever");
                    request.send(number).expect("the client waits");
                }
            }
            loop {
                let (request, answer) = oneshot::channel();
                requests.send(request).await.expect("the server lives for ever");
                answer.await.expect("an answer");
                tick.add(1);
            }
        }
    })
}

/// A oneshot of crossbeam's is a channel with room for one.
fn oneshot_crossbeam(plan: &Plan) -> Figures {
    use crossbeam_channel::{Sender, bounded};
    let (requests, server) = bounded::<Sender<u64>>(ROOM);
    contest::threads(plan, 2, move |mut tick| {
        if tick.party() == 0 {
            for number in 0.. {
                let request = server.recv().expect("the client lives for ever");
                request.send(number).expect("the client waits");
            }
        }
        loop {
            let (request, answer) = bounded(1);
            requests.send(request).expect("the server lives for ever");
            answer.recv().expect("an answer");
            tick.add(1);
        }
    })
}

fn oneshot_threads(plan: &Plan) -> Figures {
    use std::sync::mpsc::{SyncSender, sync_channel};
    let (requests, server) = sync_channel::<SyncSender<u64>>(ROOM);
    let server = std::sync::Arc::new(std::sync::Mutex::new(Some(server)));
    contest::threads(plan, 2, move |mut tick| {
        if tick.party() == 0 {
            let server = server.lock().expect("nobody panics").take().expect("one server");
            for number in 0.. {
                let request = server.recv().expect("the client lives for ever");
                request.send(number).expect("the client waits");
            }
        }
        loop {
            let (request, answer) = sync_channel(1);
            requests.send(request).expect("the server lives for ever");
            answer.recv().expect("an answer");
            tick.add(1);
        }
    })
}

// ---- select ----
//
// Eight senders with a channel each, and one that receives whatever comes first.

#[cfg(feature = "strands")]
fn select_strands(plan: &Plan) -> Figures {
    use strands::sync::channel::bounded;
    let channels = std::sync::Arc::new([(); 8].map(|()| bounded::<u64>(ROOM)));
    contest::strands(plan, plan.count, move |mut tick| {
        if let Some((sender, _)) = channels.get(tick.party()) {
            for number in 0.. {
                sender.send(number).expect("the receiver lives for ever");
            }
        }
        let [a, b, c, d, e, f, g, h] = channels.each_ref().map(|(_, receiver)| receiver);
        loop {
            let message = strands::select! {
                message = recv(a) => message,
                message = recv(b) => message,
                message = recv(c) => message,
                message = recv(d) => message,
                message = recv(e) => message,
                message = recv(f) => message,
                message = recv(g) => message,
                message = recv(h) => message,
            };
            message.expect("the senders live for ever");
            tick.add(1);
        }
    })
}

fn select_tokio(plan: &Plan) -> Figures {
    use tokio::sync::mpsc::{Receiver, channel};
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..8).map(|_| channel::<u64>(ROOM)).unzip();
    let receivers = std::sync::Mutex::new(receivers);
    contest::tokio(plan, plan.count, move |mut tick| {
        let sender = senders.get(tick.party()).cloned();
        let receivers: Vec<Receiver<u64>> = match &sender {
            Some(_) => Vec::new(),
            None => std::mem::take(&mut receivers.lock().expect("nobody panics")),
        };
        async move {
            if let Some(sender) = sender {
                for number in 0u64.. {
                    sender.send(number).await.expect("the receiver lives for ever");
                }
            }
            let receivers: Result<[Receiver<u64>; 8], _> = receivers.try_into();
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] =
                receivers.expect("one receives");
            loop {
                let message = tokio::select! {
                    message = a.recv() => message,
                    message = b.recv() => message,
                    message = c.recv() => message,
                    message = d.recv() => message,
                    message = e.recv() => message,
                    message = f.recv() => message,
                    message = g.recv() => message,
                    message = h.recv() => message,
                };
                message.expect("the senders live for ever");
                tick.add(1);
            }
        }
    })
}

fn select_crossbeam(plan: &Plan) -> Figures {
    use crossbeam_channel::{bounded, select};
    let channels = std::sync::Arc::new([(); 8].map(|()| bounded::<u64>(ROOM)));
    contest::threads(plan, plan.count, move |mut tick| {
        if let Some((sender, _)) = channels.get(tick.party()) {
            for number in 0.. {
                sender.send(number).expect("the receiver lives for ever");
            }
        }
        let [a, b, c, d, e, f, g, h] = channels.each_ref().map(|(_, receiver)| receiver);
        loop {
            let message = select! {
                recv(a) -> message => message,
                recv(b) -> message => message,
                recv(c) -> message => message,
                recv(d) -> message => message,
                recv(e) -> message => message,
                recv(f) -> message => message,
                recv(g) -> message => message,
                recv(h) -> message => message,
            };
            message.expect("the senders live for ever");
            tick.add(1);
        }
    })
}
