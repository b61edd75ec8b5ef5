//! The cluster's key, and BMC data sealed with it.
//!
//! Whoever reads the store must not get the passwords of all BMCs, and whoever writes to it must not be able to
//! redirect a password or have a coordinator run a program: the data are encrypted and authenticated
//! (ChaCha20-Poly1305, RFC 8439), together with the name of the node that they are of.

use drover_model::{Bmc, BmcAccess, BmcRecord, NodeName, Secret, bmc::BMC_SCHEMA};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
};
use serde::{Deserialize, Serialize};
use std::{fmt, io};

/// Length of a key, in bytes.
const KEY_LEN: usize = 32;

/// The key of a cluster: 256 random bits that all its nodes have in a file, and that are nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_LEN]);

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({})", self.id())
    }
}

/// A text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not a cluster key; accepted are 64 hexadecimal digits ('droverd --new-cluster-key' writes such a file)")]
pub struct BadKey;

/// Sealed data that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotOpen {
    /// Another key.
    #[error("they are sealed with the cluster key {theirs}, and this node has {ours}")]
    AnotherKey {
        /// That of the data.
        theirs: String,
        /// This node's.
        ours: String,
    },
    /// Changed, or of another node.
    #[error("they were not written by that node")]
    Forged,
    /// In a later layout.
    #[error("this version does not know their layout")]
    Unknown,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Content {
    access: BmcAccess,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

impl ClusterKey {
    /// A new key, as text for a file.
    ///
    /// # Errors
    /// When the operating system has no random bits to give.
    pub fn mint() -> io::Result<String> {
        let mut key = [0; KEY_LEN];
        getrandom::fill(&mut key)?;
        Ok(hex(&key))
    }

    /// The key in a file's text.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<ClusterKey, BadKey> {
        unhex(text.trim()).and_then(|bytes| bytes.try_into().ok()).map(ClusterKey).ok_or(BadKey)
    }

    /// Names the key without saying anything about it: part of a hash.
    pub fn id(&self) -> String {
        let mut hashed = b"drover cluster key id".to_vec();
        hashed.extend_from_slice(&self.0);
        hex(digest::digest(&digest::SHA256, &hashed).as_ref().get(..4).unwrap_or_default())
    }

    fn cipher(&self) -> io::Result<LessSafeKey> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.0).map_err(|_| io::Error::other("not a key"))?;
        Ok(LessSafeKey::new(key))
    }

    /// Seals the data of a node's BMC.
    ///
    /// # Errors
    /// When the operating system has no random bits to give.
    pub fn seal(&self, node: &NodeName, bmc: &Bmc) -> io::Result<BmcRecord> {
        let password = bmc.password.as_ref().map(|password| password.reveal().to_owned());
        let mut data = serde_json::to_vec(&Content { access: bmc.access.clone(), password })?;
        // Random, because several nodes use the key: that is safe for 2^32 records (NIST SP 800-38D, 8.3), and one is
        // written for each change of a configuration.
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce)?;
        let sealed = self.cipher()?.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(node.as_str().as_bytes()),
            &mut data,
        );
        sealed.map_err(|_| io::Error::other("sealing failed"))?;
        let sealed = format!("{}{}", hex(&nonce), hex(&data));
        Ok(BmcRecord { schema: BMC_SCHEMA, shown: bmc.to_string(), key: self.id(), sealed })
    }

    /// Opens the data of a node's BMC.
    ///
    /// # Errors
    /// See the sentences of `CannotOpen`.
    pub fn open(&self, node: &NodeName, record: &BmcRecord) -> Result<Bmc, CannotOpen> {
        let ours = self.id();
        if record.key != ours {
            return Err(CannotOpen::AnotherKey { theirs: record.key.clone(), ours });
        }
        let bytes = unhex(&record.sealed).ok_or(CannotOpen::Forged)?;
        let (nonce, data) = bytes.split_at_checked(NONCE_LEN).ok_or(CannotOpen::Forged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CannotOpen::Forged)?;
        let mut data = data.to_vec();
        let cipher = self.cipher().map_err(|_| CannotOpen::Forged)?;
        let open = cipher.open_in_place(nonce, Aad::from(node.as_str().as_bytes()), &mut data);
        let plain = open.map_err(|_| CannotOpen::Forged)?;
        let content: Content = serde_json::from_slice(plain).map_err(|_| CannotOpen::Unknown)?;
        Ok(Bmc { access: content.access, password: content.password.map(Secret::new) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn sealed() -> (ClusterKey, Bmc, BmcRecord) {
        let key = ClusterKey::parse(&ClusterKey::mint().unwrap()).unwrap();
        let access = BmcAccess::Ipmi { address: "10.0.0.9".to_owned(), port: 623, user: "admin".to_owned() };
        let bmc = Bmc { access, password: Some(Secret::new("hunter2".to_owned())) };
        let record = key.seal(&name("a"), &bmc).unwrap();
        (key, bmc, record)
    }

    #[test]
    fn what_is_sealed_is_read_by_who_has_the_key() {
        let (key, bmc, record) = sealed();
        assert_eq!(key.open(&name("a"), &record), Ok(bmc.clone()));
        let text = serde_json::to_string(&record).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("admin"), "{text}");
        assert!(!text.contains(&hex(b"hunter2")), "{text}");
        assert_ne!(key.seal(&name("a"), &bmc).unwrap().sealed, record.sealed);
        let other = ClusterKey::parse(&"ab".repeat(32)).unwrap();
        assert!(matches!(other.open(&name("a"), &record), Err(CannotOpen::AnotherKey { .. })));
        assert!(!format!("{other:?}").contains("abab"), "{other:?}");
    }

    #[test]
    fn what_was_changed_or_is_of_another_node_is_not_used() {
        let (key, _, record) = sealed();
        assert_eq!(key.open(&name("b"), &record), Err(CannotOpen::Forged));
        for at in [0, 30, record.sealed.len() - 1] {
            let mut forged = record.clone();
            let digit = if record.sealed.as_bytes()[at] == b'0' { "1" } else { "0" };
            forged.sealed.replace_range(at..=at, digit);
            assert_eq!(key.open(&name("a"), &forged), Err(CannotOpen::Forged), "{at}");
        }
        for sealed in ["", "0", "zz", "00112233", "é"] {
            let forged = BmcRecord { sealed: sealed.to_owned(), ..record.clone() };
            assert_eq!(key.open(&name("a"), &forged), Err(CannotOpen::Forged), "{sealed}");
        }
    }

    #[test]
    fn only_keys_are_keys() {
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66)] {
            assert_eq!(ClusterKey::parse(text), Err(BadKey), "{text}");
        }
        assert!(ClusterKey::parse(&format!("{}\n", "A0".repeat(32))).is_ok());
    }
}
