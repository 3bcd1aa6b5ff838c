//! The cluster's secret, and the tags made with it.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use stonelog_protocol::peer::proof::{Seal, Tag};

/// What every node of a cluster knows, and nobody else.
///
/// Comparing a tag takes the same time whatever it is (`hmac` over `subtle`).
#[derive(Clone)]
pub struct ClusterSecret {
    keyed: Hmac<Sha256>,
}

impl ClusterSecret {
    /// The shortest secret, in bytes: 128 bits, if they are random.
    pub const BYTES_MIN: usize = 16;

    /// A secret; `None` if it is too short to be one.
    pub fn new(secret: &[u8]) -> Option<ClusterSecret> {
        if secret.len() < ClusterSecret::BYTES_MIN {
            return None;
        }
        let keyed = Hmac::new_from_slice(secret).expect("HMAC takes keys of any length");
        Some(ClusterSecret { keyed })
    }
}

impl Seal for ClusterSecret {
    fn tag(&self, message: &[u8]) -> Tag {
        self.keyed.clone().chain_update(message).finalize().into_bytes().into()
    }

    fn is_tag_of(&self, tag: &Tag, message: &[u8]) -> bool {
        self.keyed.clone().chain_update(message).verify_slice(tag).is_ok()
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_hmac_sha_256() {
        // RFC 4231, test case 1.
        let secret = ClusterSecret::new(&[0x0b; 20]).unwrap();
        let tag = secret.tag(b"Hi There");
        let text: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        assert!(secret.is_tag_of(&tag, b"Hi There"));
        assert!(!secret.is_tag_of(&tag, b"Hi there"));
        let mut other = tag;
        other[31] ^= 1;
        assert!(!secret.is_tag_of(&other, b"Hi There"));
    }

    #[test]
    fn short_secret_is_none() {
        assert!(ClusterSecret::new(&[1; 15]).is_none());
    }
}
