//! API tokens: 256 random bits, of which only the SHA-256 is stored.

use sha2::{Digest, Sha256};

/// Prefix of every token, so that people and scanners recognise one.
pub const PREFIX: &str = "drover_";

/// A new token, of random bits from the operating system.
///
/// # Errors
/// When it has none to give.
pub fn mint() -> std::io::Result<String> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    Ok(format!("{PREFIX}{}", hex(&bits)))
}

/// The stored form of a token: its SHA-256 in lower-case hexadecimal. A fast hash is enough, because a random token
/// cannot be guessed.
pub fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_hash_as_the_standard_says() {
        let (a, b) = (mint().unwrap(), mint().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), PREFIX.len() + 64);
        // The example of FIPS 180-2, B.1.
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
