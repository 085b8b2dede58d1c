//! First words on a new connection: which versions the broker speaks, then authentication.
//!
//! Runs before any request of a caller, one message at a time, within the connect timeout.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::codec::{
    self, ApiVersionsRequestData, Request, SaslAuthenticateRequestData, SaslHandshakeRequestData, text,
};
use crate::config::ScramSha512;
use crate::error::{Error, KafkaError, Result, code};
use crate::scram::{self, Exchange};
use crate::transport::{Address, Stream};

/// Handshake answers are small; an unauthenticated peer gets no more memory than this.
const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Versions of each request that a broker speaks.
#[derive(Debug, Default, Clone)]
pub(crate) struct Versions(HashMap<i16, (i16, i16)>);

impl Versions {
    #[cfg(test)]
    pub(crate) fn of(ranges: impl IntoIterator<Item = (i16, (i16, i16))>) -> Self {
        Self(ranges.into_iter().collect())
    }

    /// The highest version of `R` that both sides speak.
    pub(crate) fn pick<R: Request>(&self) -> Result<i16> {
        let unsupported = Error::Unsupported { api: R::NAME };
        let (min, max) = *self.0.get(&R::API).ok_or_else(|| unsupported.clone())?;
        let highest = max.min(R::VERSIONS.1);
        if highest < min.max(R::VERSIONS.0) { Err(unsupported) } else { Ok(highest) }
    }

    /// `(api key, lowest, highest)` in order of key.
    pub(crate) fn list(&self) -> Vec<(i16, i16, i16)> {
        let mut list: Vec<_> = self.0.iter().map(|(&api, &(min, max))| (api, min, max)).collect();
        list.sort_unstable();
        list
    }
}

/// What the handshake found out.
pub(crate) struct Greeting {
    pub(crate) versions: Versions,
    /// How long the broker honours this authentication, if it limits it.
    pub(crate) session_lifetime: Option<Duration>,
}

/// Negotiates versions and authenticates.
pub(crate) async fn greet(
    stream: &mut dyn Stream,
    address: &Address,
    client_id: &str,
    sasl: Option<&ScramSha512>,
) -> Result<Greeting> {
    let mut talk = Talk { stream, address, client_id, next_id: 0 };
    let versions = talk.versions().await?;
    let session_lifetime = match sasl {
        Some(credentials) => talk.authenticate(credentials, &versions).await?,
        None => None,
    };
    Ok(Greeting { versions, session_lifetime })
}

struct Talk<'a> {
    stream: &'a mut dyn Stream,
    address: &'a Address,
    client_id: &'a str,
    next_id: i32,
}

impl Talk<'_> {
    async fn versions(&mut self) -> Result<Versions> {
        let request = ApiVersionsRequestData {
            client_software_name: text("sluice"),
            client_software_version: text(env!("CARGO_PKG_VERSION")),
            ..Default::default()
        };
        // An older broker answers version 3 with error 35 in version 0's form; version 0 then tells what it speaks.
        for version in [3, 0] {
            let payload = self.exchange(&request, version).await?;
            let error = payload.get(4..6).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
            if version > 0 && error == Some(code::UNSUPPORTED_VERSION) {
                continue;
            }
            let response = codec::decode_payload::<ApiVersionsRequestData>(payload, version)?;
            KafkaError::check(response.error_code, None)?;
            let ranges = response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
            return Ok(Versions(ranges.collect()));
        }
        Err(Error::Unsupported { api: ApiVersionsRequestData::NAME })
    }

    async fn authenticate(&mut self, credentials: &ScramSha512, versions: &Versions) -> Result<Option<Duration>> {
        let request = SaslHandshakeRequestData { mechanism: text(scram::MECHANISM), ..Default::default() };
        let response = self.call(&request, versions).await?;
        if response.error_code != 0 {
            let offered: Vec<_> = response.mechanisms.iter().map(|name| name.as_str()).collect();
            return Err(self.refused(format!("broker offers {} only", offered.join(", "))));
        }
        let exchange = Exchange::start(credentials, nonce()?);
        let (server_first, _) = self.sasl_step(exchange.first_message(), versions).await?;
        let (answer, expected) = exchange.answer(&server_first).map_err(|reason| self.refused(reason))?;
        let (server_final, lifetime_ms) = self.sasl_step(answer, versions).await?;
        expected.verify(&server_final).map_err(|reason| self.refused(reason))?;
        Ok(u64::try_from(lifetime_ms).ok().filter(|&ms| ms > 0).map(Duration::from_millis))
    }

    async fn sasl_step(&mut self, message: String, versions: &Versions) -> Result<(Bytes, i64)> {
        let request = SaslAuthenticateRequestData { auth_bytes: message.into(), ..Default::default() };
        let response = self.call(&request, versions).await?;
        match KafkaError::check(response.error_code, response.error_message.map(|text| text.to_string())) {
            Ok(()) => Ok((response.auth_bytes, response.session_lifetime_ms)),
            Err(error) => Err(self.refused(error.message.unwrap_or(error.name))),
        }
    }

    fn refused(&self, reason: String) -> Error {
        Error::Authentication { address: self.address.to_string(), reason }
    }

    async fn call<R: Request>(&mut self, request: &R, versions: &Versions) -> Result<R::Response> {
        let version = versions.pick::<R>()?;
        let payload = self.exchange(request, version).await?;
        codec::decode_payload::<R>(payload, version)
    }

    async fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Result<Bytes> {
        let id = self.next_id;
        self.next_id += 1;
        let frame = codec::encode_frame(request, version, id, self.client_id)?;
        let lost = |error: std::io::Error| Error::Disconnected {
            address: self.address.to_string(),
            reason: format!("{} at handshake: {error}", R::NAME),
        };
        self.stream.write_all(&frame).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;
        let length = self.stream.read_u32().await.map_err(lost)? as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Error::Protocol(format!("handshake answer of {length} bytes")));
        }
        let mut payload = BytesMut::zeroed(length);
        self.stream.read_exact(&mut payload).await.map_err(lost)?;
        match codec::correlation_id(&payload) {
            Some(found) if found == id => Ok(payload.freeze()),
            _ => Err(Error::Protocol("handshake answer to another request".to_owned())),
        }
    }
}

fn nonce() -> Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::InvalidRequest(format!("no randomness for a nonce: {error}")))?;
    Ok(BASE64.encode(bytes))
}
