//! A channel to a guest itself: requests and replies inside TLS, which the host only carries.

use std::{
    fmt,
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    path::Path,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use caveau_channel::{OwnerEnd, OwnerKey};
use caveau_evidence::{Evidence, Tee, Use, report_data};
use caveau_fragment::PrivateKey;
use caveau_protocol::{
    AgentReply, AgentRequest, Frame, Hello, Nonce, ReplyEnvelope, RequestEnvelope, VERSION, read_frame, write_frame,
};

use crate::{commands::attest::of_report, files};

/// How long a connection may take, and how long the guest may be silent.
const CONNECT: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(120);

/// Where REPORT_DATA lies in a report (SEV-SNP ABI specification, "ATTESTATION_REPORT").
const REPORT_DATA: std::ops::Range<usize> = 0x50..0x90;

/// `HOST:PORT`, or `PORT` on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let port: u16 = port.parse().ok().filter(|port| *port != 0).with_context(|| {
            format!(
                "invalid address {text:?}: expected HOST:PORT, or PORT on this machine, with a port from 1 to 65535"
            )
        })?;
        ensure!(!host.is_empty(), "invalid address {text:?}: there is no host before the colon");
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(formatter, "[{}]:{}", self.host, self.port),
            false => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

/// An owner's private key from PEM.
///
/// # Errors
/// Where the file holds none.
pub(crate) fn read_key(file: &Path) -> Result<OwnerKey> {
    let text = files::read_text(file, files::MAX_DOCUMENT)?;
    let key = PrivateKey::from_pem(&text).with_context(|| format!("failed to use {}", file.display()))?;
    OwnerKey::from_der(key.to_pkcs8()).with_context(|| format!("failed to use {}", file.display()))
}

/// An established channel.
pub(crate) struct Channel {
    end: OwnerEnd<TcpStream>,
    address: Address,
    last: u64,
}

impl Channel {
    /// Connects, and shakes hands with whoever is there.
    ///
    /// # Errors
    /// Where nobody is, or no guest.
    pub(crate) fn connect(address: &Address, key: Option<&OwnerKey>) -> Result<Self> {
        let addresses: Vec<SocketAddr> = (address.host.as_str(), address.port)
            .to_socket_addrs()
            .with_context(|| format!("failed to look up {address}"))?
            .collect();
        let mut outcome = Err(anyhow!("{address} has no address"));
        for candidate in addresses {
            outcome = TcpStream::connect_timeout(&candidate, CONNECT).map_err(anyhow::Error::from);
            if outcome.is_ok() {
                break;
            }
        }
        let stream = outcome.with_context(|| {
            format!("failed to connect to {address}: is the group running, started with --owner-port?")
        })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let end =
            OwnerEnd::connect(key, stream).with_context(|| format!("there is no guest's channel at {address}"))?;
        Ok(Self { end, address: address.clone(), last: 0 })
    }

    /// Asks for one step.
    ///
    /// # Errors
    /// The guest's refusal ([`caveau_protocol::AgentError`]), or what became of the channel.
    pub(crate) fn call(&mut self, request: AgentRequest, body: &[u8]) -> Result<(AgentReply, Vec<u8>)> {
        self.last += 1;
        let id = self.last;
        let lost = || format!("the channel to {} broke off", self.address);
        write_frame(&mut self.end, &Frame::new(&RequestEnvelope { version: VERSION, id, request }, body.to_vec())?)
            .with_context(lost)?;
        let frame = read_frame(&mut self.end).with_context(lost)?.with_context(lost)?;
        let reply: ReplyEnvelope = frame.header()?;
        ensure!(reply.version == VERSION, "the guest speaks version {}, not {VERSION}", reply.version);
        ensure!(reply.id == id, "the guest answered another question than was asked");
        Ok((reply.result?, frame.body))
    }

    /// Evidence whose report is made for this very session, and for a nonce.
    ///
    /// # Errors
    /// Where there is none, or the report is that of another session: then somebody stands between.
    pub(crate) fn attest(&mut self, nonce: &Nonce) -> Result<Evidence> {
        let tee = match self.call(AgentRequest::Hello, &[])? {
            // What it says of itself chooses the verifier; the verifier is what believes.
            (AgentReply::Hello(Hello { tee, .. }), _) => match tee.as_str() {
                "snp" => Tee::Snp,
                "emulated-snp" => Tee::EmulatedSnp,
                other => bail!("the guest names a TEE that is not known here: {other:?}"),
            },
            (other, _) => return Err(unexpected(&other)),
        };
        let report = match self.call(AgentRequest::Attest { nonce: nonce.clone() }, &[])? {
            (AgentReply::Report(report), _) => report,
            (other, _) => return Err(unexpected(&other)),
        };
        let evidence = of_report(tee, &report)?;
        let exporter = self.end.exporter(nonce.as_bytes())?;
        let expected = report_data(Use::OwnerChannel, nonce.as_bytes(), &exporter);
        ensure!(
            evidence.report.get(REPORT_DATA) == Some(&expected.0[..]),
            "the report is not for this session: whoever answers at {} is not the guest that made it",
            self.address
        );
        Ok(Evidence { runtime_data: exporter.to_vec(), ..evidence })
    }
}

/// A reply of another kind than was asked for.
pub(crate) fn unexpected(reply: &AgentReply) -> anyhow::Error {
    let text: String = serde_json::to_string(reply).unwrap_or_default().chars().take(200).collect();
    anyhow!("the guest answered something else than was asked: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for (text, shown) in
            [("7443", "127.0.0.1:7443"), ("db.example.org:7443", "db.example.org:7443"), ("[::1]:7443", "[::1]:7443")]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for bad in ["", ":", "host:", ":7443", "host:0", "host:65536", "host"] {
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid address {bad:?}")), "{error}");
        }
    }

    #[test]
    fn nobody_there_is_told_with_what_to_do() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
        drop(listener);
        let error = Channel::connect(&address, None).err().unwrap();
        assert!(format!("{error:#}").contains("--owner-port"), "{error:#}");
    }
}
