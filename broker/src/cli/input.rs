//! Standard input, line by line, read by a thread of its own so that a terminal never blocks the rest.

use std::io::{self, BufRead as _, Read as _};
use std::thread;

use tokio::sync::mpsc;

/// Lines read ahead of those being written.
const LINES_AHEAD: usize = 10_000;
/// Longest line; a broker takes records of 1 MiB unless told otherwise.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// The lines of standard input, in order.
#[derive(Debug)]
pub(super) struct Lines {
    receiver: mpsc::Receiver<io::Result<Vec<u8>>>,
}

impl Lines {
    /// Starts reading.
    pub(super) fn start() -> Lines {
        let (sender, receiver) = mpsc::channel(LINES_AHEAD);
        thread::spawn(move || {
            let mut input = io::stdin().lock();
            while let Some(line) = next_line(&mut input).transpose() {
                let failed = line.is_err();
                if sender.blocking_send(line).is_err() || failed {
                    return;
                }
            }
        });
        Lines { receiver }
    }

    /// The next line without its end; `None` at the end of input.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.receiver.recv().await.transpose()
    }

    /// The next line if it is there already.
    pub(super) fn ready(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.receiver.try_recv().ok().transpose()
    }
}

fn next_line(input: &mut impl io::BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if read as u64 == LINE_BYTES_MAX {
        let message = format!("a line is longer than {LINE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_lines_are_cut_and_the_last_may_lack_one() {
        let mut input = &b"a\r\n\nb"[..];
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]);
    }
}
