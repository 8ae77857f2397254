//! A name server of one name, whose answer can be changed while somebody asks.
//!
//! As much of RFC 1035 as a resolver needs: one question in a datagram on loopback, and addresses of IPv4 or what went
//! wrong in the answer. Written by hand, so that the lab does not judge a resolver by itself.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{net::UdpSocket, task::JoinHandle};

/// What the name means now.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    pub(crate) addresses: Vec<Ipv4Addr>,
    pub(crate) seconds: u32,
    pub(crate) trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    NoSuchName,
    ServerFails,
    Silence,
}

/// Stops when it is dropped.
#[derive(Debug)]
pub(crate) struct NameServer {
    pub(crate) at: SocketAddr,
    means: Arc<Mutex<Means>>,
    task: JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
/// A response, with recursion asked for and available.
const FLAGS: [u8; 2] = [0x81, 0x80];
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

impl NameServer {
    /// Answers for every name alike.
    pub(crate) async fn start(means: Means) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (at, means) = (socket.local_addr()?, Arc::new(Mutex::new(means)));
        let now = means.clone();
        let task = tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let means = now.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(answer) = answer(&question[..length], &means) {
                    // One that is lost is asked for again.
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Ok(Self { at, means, task })
    }

    pub(crate) fn change(&self, means: Means) {
        *self.means.lock().unwrap_or_else(PoisonError::into_inner) = means;
    }
}

/// `None` for what is no question, and for silence.
fn answer(question: &[u8], means: &Means) -> Option<Vec<u8>> {
    let name = question.get(HEADER..)?;
    let name_length = end_of_name(name)?;
    let asked = name.get(..name_length + 4)?;
    let code = match means.trouble {
        None => 0,
        Some(Trouble::ServerFails) => SERVER_FAILURE,
        Some(Trouble::NoSuchName) => NO_SUCH_NAME,
        Some(Trouble::Silence) => return None,
    };
    let has_addresses = code == 0 && asked[name_length..name_length + 2] == TYPE_A;
    let addresses = if has_addresses { means.addresses.as_slice() } else { &[] };
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([FLAGS[0], FLAGS[1] | code, 0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(asked);
    for address in addresses {
        // The name is that of the question; an address of the Internet, of four bytes.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1]);
        answer.extend(means.seconds.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// The bytes of the labels, with the empty one that ends them.
fn end_of_name(labels: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match usize::from(*labels.get(at)?) {
            0 => return Some(at + 1),
            length => at += length + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// engine.test, with two more bytes where the type is.
    fn question(kind: u8) -> Vec<u8> {
        let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(b"\x06engine\x04test\x00\x00");
        bytes.extend([kind, 0, 1]);
        bytes
    }

    fn means(trouble: Option<Trouble>) -> Means {
        Means { addresses: vec![[127, 0, 0, 1].into(), [127, 0, 0, 2].into()], seconds: 7, trouble }
    }

    #[test]
    fn addresses_are_answered_for_a_name_and_nothing_of_ipv6() {
        let got = answer(&question(1), &means(None)).unwrap();
        assert_eq!((&got[..4], &got[6..8]), ([7, 9, 0x81, 0x80].as_slice(), [0, 2].as_slice()));
        assert!(got.ends_with(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 7, 0, 4, 127, 0, 0, 2]));
        let none = answer(&question(28), &means(None)).unwrap();
        assert_eq!((none[3], &none[6..8]), (0x80, [0, 0].as_slice()));
    }

    #[test]
    fn trouble_has_its_code_or_no_answer() {
        let code = |trouble| answer(&question(1), &means(Some(trouble))).map(|got| (got[3] & 15, got[7]));
        assert_eq!(code(Trouble::NoSuchName), Some((3, 0)));
        assert_eq!(code(Trouble::ServerFails), Some((2, 0)));
        assert_eq!(code(Trouble::Silence), None);
        assert_eq!(answer(b"\x00\x01", &means(None)), None);
        assert_eq!(answer(&[9; 40], &means(None)), None);
    }
}
