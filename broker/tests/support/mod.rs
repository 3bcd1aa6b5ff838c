//! What the tests of a broker process share: the process itself, a client that blocks and one that does not.

#![allow(dead_code, reason = "each test target uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) mod cluster;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stonelog::client::connection::Connection;
use stonelog_protocol::codec::{decode_response, encode_request};
use stonelog_protocol::messages::create_topics_request::CreatableTopic;
use stonelog_protocol::messages::{CreateTopicsRequest, TopicName};
use stonelog_protocol::{Request, StrBytes};

/// The broker's executable.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_stonelog");
/// What does not come about within this does not come about.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A broker process and what it said until it was ready; dropping it kills it.
pub(crate) struct Broker {
    child: Child,
    pub(crate) address: String,
    pub(crate) banner: Vec<String>,
}

impl Broker {
    /// Starts a broker on a port of its own, with these settings (`key=value`), and waits until it is ready.
    pub(crate) fn start(data_dir: &Path, settings: &[&str]) -> Broker {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--data-dir"]).arg(data_dir).args(["--set", "listeners=PLAINTEXT://127.0.0.1:0"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut banner = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            banner.push(line.unwrap());
            if banner.last().unwrap() == "ready" {
                break;
            }
        }
        let address = banner.iter().find_map(|line| line.split_once(" → ")).expect("the broker is ready").1.to_owned();
        Broker { child, address, banner }
    }

    /// A connection that blocks.
    pub(crate) fn connect(&self) -> BlockingClient {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        BlockingClient(stream)
    }

    /// A connection for asynchronous tests.
    pub(crate) async fn open(&self) -> Client {
        Client(Connection::open(&self.address, "test", LIMIT).await.unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Asks one request after another.
pub(crate) struct BlockingClient(pub(crate) TcpStream);

impl BlockingClient {
    pub(crate) fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.0.write_all(&encode_request(version, 0, None, request).unwrap()).unwrap();
        self.answer::<R>(version).1
    }

    /// The next answer and its correlation id.
    pub(crate) fn answer<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        decode_response::<R>(version, frame.into()).unwrap()
    }

    pub(crate) fn create_topic(&mut self, name: &str) {
        assert_eq!(self.ask(4, &create_topic(new_topic(name, 1))).topics[0].error_code, 0);
    }
}

/// Asks one request after another.
pub(crate) struct Client(pub(crate) Connection);

impl Client {
    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: R) -> R::Response {
        self.0.call(&request, version, LIMIT).await.unwrap()
    }

    pub(crate) async fn create(&mut self, topic: CreatableTopic) {
        assert_eq!(self.ask(4, create_topic(topic)).await.topics[0].error_code, 0);
    }
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(crate) fn new_topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic::default().with_name(topic_name(name)).with_num_partitions(partitions).with_replication_factor(1)
}

fn create_topic(topic: CreatableTopic) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
}
