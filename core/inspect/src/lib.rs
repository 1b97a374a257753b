//! Reads what strangers wrote: the first bytes of flows (TLS, HTTP, WebSocket, SOCKS, Stratum) and answers of name servers.
//!
//! Everything here works on hostile input, so it runs in the unprivileged `inspect` worker and nowhere else in the product.
//! It keeps bounded beginnings of flows, and says what they say; what follows from it is for `davy-detect` to decide.
//!
//! ```
//! use davy_inspect::{Bounds, Inspector};
//! use davy_model::{Captured, Direction, FlowKey, Said};
//!
//! let mut inspector = Inspector::new(Bounds::default());
//! let bytes = b"GET /shop?card=1 HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec();
//! let said = inspector.read(&Captured::Flow { flow: FlowKey(1), direction: Direction::Sent, offset: 0, bytes });
//! assert!(matches!(&said[..], [Said::Flow(flow)] if flow.request.as_deref() == Some("GET /shop")));
//! ```

mod flow_head;
mod inspector;
mod layers;
mod name_answer;
mod server_name;
pub mod stratum;
mod stream_head;

pub use inspector::{Bounds, Inspector};
pub use layers::{Unwrapped, frames, unwrap};
pub use name_answer::answers;
pub use server_name::server_name;
