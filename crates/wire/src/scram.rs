//! SCRAM-SHA-512 (RFC 5802, RFC 7677), the client's side, without I/O.
//!
//! The server's signature is checked: a server that does not know the credentials is refused. The iteration count
//! is bounded, or a hostile server could burn our CPU.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::ExposeSecret as _;

use crate::config::ScramSha512;

pub(crate) const MECHANISM: &str = "SCRAM-SHA-512";
const HASH_BYTES: usize = digest::SHA512_OUTPUT_LEN;
const ITERATIONS_MIN: u32 = 4096;
const ITERATIONS_MAX: u32 = 100_000;
const MESSAGE_BYTES_MAX: usize = 4096;
/// "n,," in base64: no channel binding.
const CHANNEL_BINDING: &str = "biws";

/// An exchange that has sent its first message.
pub(crate) struct Exchange<'a> {
    credentials: &'a ScramSha512,
    nonce: String,
    first_bare: String,
}

/// What the server must prove at the end.
pub(crate) struct ExpectedServer {
    signature: hmac::Tag,
}

impl<'a> Exchange<'a> {
    /// `nonce` must be fresh random text without commas.
    pub(crate) fn start(credentials: &'a ScramSha512, nonce: String) -> Self {
        let user = credentials.user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Self { credentials, nonce, first_bare }
    }

    pub(crate) fn first_message(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// Takes the server's first message; gives our final one and what to expect in return.
    pub(crate) fn answer(&self, server_first: &[u8]) -> Result<(String, ExpectedServer), String> {
        let server_first = message_text(server_first)?;
        let (nonce, salt, iterations) = parse_server_first(server_first)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("server changed our nonce".to_owned());
        }
        let salted = salted_password(self.credentials.password.expose_secret(), &salt, iterations);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA512, client_key.as_ref());
        let final_bare = format!("c={CHANNEL_BINDING},r={nonce}");
        let auth_message = format!("{},{server_first},{final_bare}", self.first_bare);
        let client_signature = sign(stored_key.as_ref(), auth_message.as_bytes());
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(client_signature.as_ref()).map(|(key, mask)| key ^ mask).collect();
        let server_key = sign(&salted, b"Server Key");
        let signature = sign(server_key.as_ref(), auth_message.as_bytes());
        Ok((format!("{final_bare},p={}", BASE64.encode(proof)), ExpectedServer { signature }))
    }
}

impl ExpectedServer {
    /// Checks the server's final message.
    pub(crate) fn verify(&self, server_final: &[u8]) -> Result<(), String> {
        let text = message_text(server_final)?;
        if let Some(reason) = text.strip_prefix("e=") {
            return Err(format!("server refused: {reason}"));
        }
        let encoded = text.strip_prefix("v=").ok_or("malformed final server message")?;
        let encoded = encoded.split(',').next().unwrap_or_default();
        let signature = BASE64.decode(encoded).map_err(|_| "malformed server signature")?;
        constant_time::verify_slices_are_equal(&signature, self.signature.as_ref())
            .map_err(|_| "server signature does not match".to_owned())
    }
}

/// PBKDF2 of the password, as stored by the server for `AlterUserScramCredentials`.
pub(crate) fn salted_password(password: &str, salt: &[u8], iterations: NonZeroU32) -> [u8; HASH_BYTES] {
    let mut salted = [0; HASH_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, iterations, salt, password.as_bytes(), &mut salted);
    salted
}

fn parse_server_first(text: &str) -> Result<(&str, Vec<u8>, NonZeroU32), String> {
    let mut fields = text.split(',');
    let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name));
    let nonce = field("r=").ok_or("server message without nonce")?;
    let salt = field("s=").ok_or("server message without salt")?;
    let iterations = field("i=").ok_or("server message without iterations")?;
    let salt = BASE64.decode(salt).map_err(|_| "malformed salt")?;
    let iterations: u32 = iterations.parse().map_err(|_| "malformed iterations")?;
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        return Err(format!("{iterations} iterations are outside {ITERATIONS_MIN}..={ITERATIONS_MAX}"));
    }
    let iterations = NonZeroU32::new(iterations).ok_or("malformed iterations")?;
    Ok((nonce, salt, iterations))
}

fn message_text(message: &[u8]) -> Result<&str, String> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err("server message is too long".to_owned());
    }
    std::str::from_utf8(message).map_err(|_| "server message is not text".to_owned())
}

fn sign(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, key), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> ScramSha512 {
        ScramSha512 { user: "us=er,1".to_owned(), password: "pencil".into() }
    }

    #[test]
    fn user_names_are_escaped() {
        let credentials = credentials();
        let exchange = Exchange::start(&credentials, "abc".to_owned());
        assert_eq!(exchange.first_message(), "n,,n=us=3Der=2C1,r=abc");
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_refused() {
        let credentials = credentials();
        let exchange = Exchange::start(&credentials, "abc".to_owned());
        let (_, expected) = exchange.answer(b"r=abcdef,s=c2FsdA==,i=4096").unwrap();
        assert!(expected.verify(b"v=AAAA").is_err());
        assert!(expected.verify(b"e=other-error").is_err());
        let right = format!("v={}", BASE64.encode(expected.signature.as_ref()));
        assert!(expected.verify(right.as_bytes()).is_ok());
    }

    #[test]
    fn hostile_first_messages_are_refused() {
        let credentials = credentials();
        let exchange = Exchange::start(&credentials, "abc".to_owned());
        for message in [
            "r=abc,s=c2FsdA==,i=4096",
            "r=xyzdef,s=c2FsdA==,i=4096",
            "r=abcdef,s=c2FsdA==,i=1",
            "r=abcdef,s=c2FsdA==,i=4000000000",
            "r=abcdef,s=*,i=4096",
            "m=ext,r=abcdef,s=c2FsdA==,i=4096",
            "",
        ] {
            assert!(exchange.answer(message.as_bytes()).is_err(), "{message}");
        }
    }
}
