//! The proof of membership: both ends of a new connection show that they know the cluster's secret.
//!
//! ```text
//! dialer                                  acceptor
//!   | MAGIC Hello {who, to whom, what for, nonce} |
//!   |-------------------------------------------->|
//!   |             Challenge {who, nonce}          |
//!   |<--------------------------------------------|
//!   | Proof {tag over everything so far}          |
//!   |-------------------------------------------->|  nothing about membership is said before this tag holds
//!   |         Verdict {code, tag over that too}   |
//!   |<--------------------------------------------|
//! ```
//!
//! A tag is HMAC-SHA-256 under the secret (computed by whoever calls, through [`Seal`]) over a label, the side that
//! speaks, and both messages as they went over the wire: both nonces, both nodes, both directories, both clusters and
//! the purpose are covered. The labels differ, so that no side's tag can be sent back to it. Fresh nonces on both sides
//! make every tag good for one connection.
//!
//! Without a secret both ends must be on the loopback interface, and the tags are zeroes. An end with a secret speaks to
//! none without one.
//!
//! What this is not: encryption. Who can change bytes on the way can take over a proved connection.

use std::sync::Arc;

use bytes::Bytes;

use super::frame::{Frame, Kind};
use super::wire::{Reader, WireError, Writer};
use crate::{BrokerId, ClusterId, DirectoryId, Uuid};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 32;

/// A number used once: random, from the system.
pub type Nonce = [u8; NONCE_BYTES];
/// What only a holder of the secret can make.
pub type Tag = [u8; TAG_BYTES];

/// The label of the dialer's tag.
const DIALER: &[u8] = b"stonelog peer proof 1 dialer";
/// The label of the acceptor's tag.
const ACCEPTOR: &[u8] = b"stonelog peer proof 1 acceptor";

/// Whom a dialer means that knows an address and not whose it is: whoever lives there. For [`Purpose::Probe`] alone.
pub const ANYBODY: BrokerId = BrokerId(i32::MAX);

/// Makes and checks tags: HMAC-SHA-256 with the cluster's secret.
pub trait Seal: Send + Sync {
    /// The tag of a message.
    fn tag(&self, message: &[u8]) -> Tag;
    /// Whether it is the tag of a message; takes the same time for every tag.
    fn is_tag_of(&self, tag: &Tag, message: &[u8]) -> bool;
}

/// What a connection is for. It is part of what is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// [`super::probe`]: is there a cluster, and who is to form it. The only one open to a node without a cluster.
    Probe,
    /// [`super::raft`]: between voters.
    Quorum,
    /// [`super::control`]: a broker asks the active controller.
    Control,
    /// [`super::feed`]: a broker that does not vote follows the metadata.
    Feed,
    /// Partitions' records, from leader to follower.
    Streams,
}

impl Purpose {
    fn code(self) -> u8 {
        match self {
            Purpose::Probe => 1,
            Purpose::Quorum => 2,
            Purpose::Control => 3,
            Purpose::Feed => 4,
            Purpose::Streams => 5,
        }
    }

    fn from_code(code: u8) -> Option<Purpose> {
        Some(match code {
            1 => Purpose::Probe,
            2 => Purpose::Quorum,
            3 => Purpose::Control,
            4 => Purpose::Feed,
            5 => Purpose::Streams,
            _ => return None,
        })
    }
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `node.id`.
    pub node: BrokerId,
    /// The directory that holds its metadata log: the same node with another disk is another member (KIP-853).
    pub directory: DirectoryId,
    /// Its cluster; `None` before it has one.
    pub cluster: Option<ClusterId>,
    /// Which process of it: another one at every start. It is the one that registers as a broker.
    pub incarnation: Uuid,
}

/// The dialer's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who dials.
    pub from: Identity,
    /// Who is meant.
    pub to: BrokerId,
    /// With which directory; `None` where any will do.
    pub to_directory: Option<DirectoryId>,
    /// What for.
    pub purpose: Purpose,
    /// Whether the dialer has a secret.
    pub has_secret: bool,
    /// Fresh for this connection.
    pub nonce: Nonce,
}

/// The acceptor's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Who was reached.
    pub from: Identity,
    /// Whether the acceptor has a secret.
    pub has_secret: bool,
    /// Fresh for this connection.
    pub nonce: Nonce,
}

/// What the acceptor says to a dialer that has proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Go on.
    Welcome,
    /// Another node lives here.
    OtherNode,
    /// The node meant, with another directory.
    OtherDirectory,
    /// The two are of different clusters, or one has none yet.
    OtherCluster,
    /// The dialer's node and directory are no member, as far as this node knows.
    NotMember,
    /// What the connection is for is not served here, or not yet.
    NotServed,
    /// Another process speaks for the dialer's node and directory at the moment.
    OtherProcess,
}

/// Why a connection did not come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// What arrived is no such message.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// Something else arrived than what comes next.
    #[error("a frame of {0:?} came out of turn")]
    OutOfTurn(Kind),
    /// One end has a secret, the other none.
    #[error("one node has a cluster secret and the other has none")]
    OneSecret,
    /// Neither end has a secret, and they are not on one machine.
    #[error("without a cluster secret, nodes speak over the loopback interface only")]
    NotLoopback,
    /// The other end does not know the secret.
    #[error("the node did not prove that it belongs to the cluster")]
    WrongSecret,
    /// The acceptor has proved itself, and refuses.
    #[error("refused: {0:?}")]
    Refused(Verdict),
}

impl Identity {
    fn write(&self, out: &mut Writer) {
        out.node(self.node);
        out.uuid(self.directory);
        out.option(self.cluster.as_ref(), |out, cluster| out.cluster(cluster));
        out.uuid(self.incarnation);
    }

    fn read(input: &mut Reader) -> Result<Identity, WireError> {
        let (node, directory, cluster) = (input.node()?, input.uuid()?, input.option(Reader::cluster)?);
        Ok(Identity { node, directory, cluster, incarnation: input.uuid()? })
    }
}

impl Hello {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        self.from.write(&mut out);
        out.node(self.to);
        out.option(self.to_directory, Writer::uuid);
        out.u8(self.purpose.code());
        out.flag(self.has_secret);
        out.raw(&self.nonce);
        out.finish()
    }

    /// Reads what [`Hello::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<Hello, WireError> {
        let mut input = Reader::new(bytes);
        let hello = Hello {
            from: Identity::read(&mut input)?,
            to: input.node()?,
            to_directory: input.option(Reader::uuid)?,
            purpose: Purpose::from_code(input.u8()?).ok_or(WireError::Invalid("purpose"))?,
            has_secret: input.flag()?,
            nonce: input.array()?,
        };
        input.end()?;
        Ok(hello)
    }
}

impl Challenge {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        self.from.write(&mut out);
        out.flag(self.has_secret);
        out.raw(&self.nonce);
        out.finish()
    }

    /// Reads what [`Challenge::encode`] wrote; every byte must belong.
    pub fn decode(bytes: Bytes) -> Result<Challenge, WireError> {
        let mut input = Reader::new(bytes);
        let from = Identity::read(&mut input)?;
        let challenge = Challenge { from, has_secret: input.flag()?, nonce: input.array()? };
        input.end()?;
        Ok(challenge)
    }
}

impl Verdict {
    const ALL: [Verdict; 7] = [
        Verdict::Welcome,
        Verdict::OtherNode,
        Verdict::OtherDirectory,
        Verdict::OtherCluster,
        Verdict::NotMember,
        Verdict::NotServed,
        Verdict::OtherProcess,
    ];

    fn code(self) -> u8 {
        Verdict::ALL.iter().position(|verdict| *verdict == self).expect("all verdicts are listed") as u8
    }

    fn from_code(code: u8) -> Option<Verdict> {
        Verdict::ALL.get(usize::from(code)).copied()
    }
}

/// How this end shows who it is, and what it asks of the other.
#[derive(Clone)]
pub enum Trust {
    /// Both ends know a secret.
    Secret(Arc<dyn Seal>),
    /// Neither has one; whether the other end's address is one of the loopback interface.
    Loopback {
        /// By the socket's address.
        is_loopback: bool,
    },
}

impl Trust {
    fn has_secret(&self) -> bool {
        matches!(self, Trust::Secret(_))
    }

    fn check(&self, other_has_secret: bool) -> Result<(), ProofError> {
        match self {
            _ if self.has_secret() != other_has_secret => Err(ProofError::OneSecret),
            Trust::Loopback { is_loopback: false } => Err(ProofError::NotLoopback),
            Trust::Loopback { .. } | Trust::Secret(_) => Ok(()),
        }
    }

    fn tag(&self, message: &[u8]) -> Tag {
        match self {
            Trust::Secret(seal) => seal.tag(message),
            Trust::Loopback { .. } => [0; TAG_BYTES],
        }
    }

    fn is_tag_of(&self, tag: &Tag, message: &[u8]) -> bool {
        match self {
            Trust::Secret(seal) => seal.is_tag_of(tag, message),
            Trust::Loopback { .. } => *tag == [0; TAG_BYTES],
        }
    }
}

/// What a side's tag covers.
fn covered(label: &[u8], hello: &[u8], challenge: &[u8], verdict: &[u8]) -> Bytes {
    let mut out = Writer::new();
    out.bytes(label);
    out.bytes(hello);
    out.bytes(challenge);
    out.bytes(verdict);
    out.finish()
}

fn frame(kind: Kind, body: Bytes) -> Frame {
    Frame { kind, exchange: 0, body }
}

/// The dialing end. Feed it the frames that arrive, send what it returns.
pub struct Dialer {
    trust: Trust,
    hello: Hello,
    hello_bytes: Bytes,
    challenge: Option<(Challenge, Bytes)>,
}

/// What the dialer does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Dialing {
    /// Send this, and go on.
    Send(Frame),
    /// The connection is proved; this is who was reached.
    Proved(Identity),
}

impl Dialer {
    /// Begins; the frame goes out behind [`super::frame::MAGIC`]. `has_secret` of the hello is set here.
    pub fn begin(trust: Trust, hello: Hello) -> (Dialer, Frame) {
        let hello = Hello { has_secret: trust.has_secret(), ..hello };
        let hello_bytes = hello.encode();
        let first = frame(Kind::Hello, hello_bytes.clone());
        (Dialer { trust, hello, hello_bytes, challenge: None }, first)
    }

    /// Takes the next frame.
    pub fn on_frame(&mut self, arrived: Frame) -> Result<Dialing, ProofError> {
        match (arrived.kind, self.challenge.take()) {
            (Kind::Challenge, None) => {
                let challenge = Challenge::decode(arrived.body.clone())?;
                self.trust.check(challenge.has_secret)?;
                let message = covered(DIALER, &self.hello_bytes, &arrived.body, &[]);
                self.challenge = Some((challenge, arrived.body));
                Ok(Dialing::Send(frame(Kind::Proof, Bytes::copy_from_slice(&self.trust.tag(&message)))))
            }
            (Kind::Verdict, Some((challenge, challenge_bytes))) => {
                let mut input = Reader::new(arrived.body);
                let code = input.u8()?;
                let tag = input.array()?;
                input.end()?;
                let message = covered(ACCEPTOR, &self.hello_bytes, &challenge_bytes, &[code]);
                if !self.trust.is_tag_of(&tag, &message) {
                    return Err(ProofError::WrongSecret);
                }
                match Verdict::from_code(code) {
                    Some(Verdict::Welcome) => self.check_reached(challenge.from),
                    Some(verdict) => Err(ProofError::Refused(verdict)),
                    None => Err(WireError::Invalid("verdict").into()),
                }
            }
            (kind, _) => Err(ProofError::OutOfTurn(kind)),
        }
    }

    /// The acceptor has checked it; so does the dialer.
    fn check_reached(&self, reached: Identity) -> Result<Dialing, ProofError> {
        match fits(&self.hello, &reached) {
            Verdict::Welcome => Ok(Dialing::Proved(reached)),
            verdict => Err(ProofError::Refused(verdict)),
        }
    }
}

/// Whether the node reached is the one meant, and of the same cluster.
fn fits(hello: &Hello, reached: &Identity) -> Verdict {
    // Who has no cluster may ask whether there is one, and be asked; who has another hears so in the answer.
    let same_cluster =
        hello.purpose == Purpose::Probe || hello.from.cluster.is_some() && hello.from.cluster == reached.cluster;
    let is_anybody = hello.to == ANYBODY && hello.purpose == Purpose::Probe;
    if hello.to != reached.node && !is_anybody {
        Verdict::OtherNode
    } else if hello.to_directory.is_some_and(|directory| directory != reached.directory) {
        Verdict::OtherDirectory
    } else if !same_cluster {
        Verdict::OtherCluster
    } else {
        Verdict::Welcome
    }
}

/// The accepting end. Feed it the frames that arrive, send what it returns.
pub struct Acceptor {
    trust: Trust,
    challenge: Challenge,
    challenge_bytes: Bytes,
    hello: Option<(Hello, Bytes)>,
}

/// What the acceptor does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Accepting {
    /// Send this, and go on.
    Send(Frame),
    /// Send this; the connection is proved, by this dialer.
    Proved(Frame, Hello),
    /// Send this, and close: the dialer has proved itself, and is refused.
    Refused(Frame, Verdict),
}

impl Acceptor {
    /// Begins, behind [`super::frame::MAGIC`].
    pub fn begin(trust: Trust, own: Identity, nonce: Nonce) -> Acceptor {
        let challenge = Challenge { from: own, has_secret: trust.has_secret(), nonce };
        let challenge_bytes = challenge.encode();
        Acceptor { trust, challenge, challenge_bytes, hello: None }
    }

    /// Takes the next frame. `admit` is asked about a dialer that has proved itself and means this node.
    pub fn on_frame(&mut self, arrived: Frame, admit: impl FnOnce(&Hello) -> Verdict) -> Result<Accepting, ProofError> {
        match (arrived.kind, self.hello.take()) {
            (Kind::Hello, None) => {
                let hello = Hello::decode(arrived.body.clone())?;
                self.trust.check(hello.has_secret)?;
                self.hello = Some((hello, arrived.body));
                Ok(Accepting::Send(frame(Kind::Challenge, self.challenge_bytes.clone())))
            }
            (Kind::Proof, Some((hello, hello_bytes))) => {
                let mut input = Reader::new(arrived.body);
                let tag = input.array()?;
                input.end()?;
                if !self.trust.is_tag_of(&tag, &covered(DIALER, &hello_bytes, &self.challenge_bytes, &[])) {
                    return Err(ProofError::WrongSecret);
                }
                let verdict = match fits(&hello, &self.challenge.from) {
                    Verdict::Welcome => admit(&hello),
                    verdict => verdict,
                };
                let code = verdict.code();
                let message = covered(ACCEPTOR, &hello_bytes, &self.challenge_bytes, &[code]);
                let mut out = Writer::new();
                out.u8(code);
                out.raw(&self.trust.tag(&message));
                let answer = frame(Kind::Verdict, out.finish());
                Ok(match verdict {
                    Verdict::Welcome => Accepting::Proved(answer, hello),
                    verdict => Accepting::Refused(answer, verdict),
                })
            }
            (kind, _) => Err(ProofError::OutOfTurn(kind)),
        }
    }
}
