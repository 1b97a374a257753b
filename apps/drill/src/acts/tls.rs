//! TLS between an act and the stage's pool. The certificate is made for one stage, and nothing else is trusted.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::lines::Lines;
use super::stratum::PATIENCE;

/// The pool's name, which nobody has (RFC 6761).
const NAME: &str = "pool.davy-drill.invalid";

/// A server, and its certificate for those who are to trust it, in hexadecimal digits.
pub(super) fn server() -> anyhow::Result<(Arc<ServerConfig>, String)> {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).context("make a certificate")?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|why| anyhow::anyhow!("use the new key: {why}"))?;
    let mut digits = String::new();
    for byte in made.cert.der().iter() {
        write!(digits, "{byte:02x}")?;
    }
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok((Arc::new(config), digits))
}

/// The pool's side of a connection.
pub(super) fn answer(socket: TcpStream, config: &Arc<ServerConfig>) -> anyhow::Result<Lines> {
    let connection = ServerConnection::new(Arc::clone(config))?;
    Ok(Lines::over(Box::new(StreamOwned::new(connection, socket.try_clone()?)), socket)?)
}

/// The miner's side: only the pool with this certificate is taken.
pub(super) fn connect(pool: SocketAddr, certificate: &str) -> anyhow::Result<Lines> {
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from(bytes(certificate)?)).context("trust the pool's certificate")?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let socket = TcpStream::connect_timeout(&pool, PATIENCE).context("reach the pool")?;
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(NAME)?)?;
    Ok(Lines::over(Box::new(StreamOwned::new(connection, socket.try_clone()?)), socket)?)
}

fn bytes(digits: &str) -> anyhow::Result<Vec<u8>> {
    ensure!(
        digits.is_ascii() && digits.len().is_multiple_of(2),
        "the pool's certificate is not in hexadecimal digits"
    );
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).context("read the pool's certificate"))
        .collect()
}
