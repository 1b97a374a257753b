//! Messages as they are seen on the wire.
#![allow(dead_code, unreachable_pub)]

pub const LOGIN: &str = r#"{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"48edf","pass":"x","agent":"XMRig/6.21","algo":["rx/0","cn/2"]}}
"#;
pub const JOB: &str = r#"{"id":1,"jsonrpc":"2.0","error":null,"result":{"id":"9","job":{"blob":"1010","job_id":"7","target":"b88d0600","algo":"rx/0","height":1,"seed_hash":"ab"},"status":"OK"}}
"#;

/// A WebSocket text frame, masked as a client's is.
pub fn frame(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = vec![0x81];
    let bit = if mask.is_some() { 0x80 } else { 0 };
    if payload.len() < 126 {
        bytes.push(bit | payload.len() as u8);
    } else {
        bytes.push(bit | 126);
        bytes.extend((payload.len() as u16).to_be_bytes());
    }
    bytes.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, k)| b ^ k));
    bytes
}
