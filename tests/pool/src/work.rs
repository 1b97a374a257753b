use std::str::FromStr;

use sha2::{Digest, Sha256};

/// What a pool asks its miners to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RandomX as Monero uses it, `rx/0`. Spoken in the login/job/submit dialect.
    RandomX,
    /// The second RandomX, `rx/2`. Same dialect.
    RandomXV2,
    /// scrypt with N=1024, r=1, p=1, as Litecoin uses it. Spoken in the mining.subscribe/notify/submit dialect.
    Scrypt,
    /// SHA-256 twice, as Bitcoin uses it. Same dialect as scrypt.
    Sha256d,
}

impl Algorithm {
    /// The name that miners use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RandomX => "rx/0",
            Self::RandomXV2 => "rx/2",
            Self::Scrypt => "scrypt",
            Self::Sha256d => "sha256d",
        }
    }

    /// The proof of an 80-byte header, least significant byte first; `None` where the pool cannot compute it
    /// (RandomX shares carry their own result).
    #[must_use]
    pub fn proof(self, header: &[u8; 80]) -> Option<[u8; 32]> {
        match self {
            Self::RandomX | Self::RandomXV2 => None,
            Self::Sha256d => Some(Sha256::digest(Sha256::digest(header)).into()),
            Self::Scrypt => {
                let mut out = [0_u8; 32];
                let params = scrypt::Params::new(10, 1, 1, 32).ok()?;
                scrypt::scrypt(header, header, &params, &mut out).ok()?;
                Some(out)
            }
        }
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "rx/0" | "randomx" => Ok(Self::RandomX),
            "rx/2" => Ok(Self::RandomXV2),
            "scrypt" => Ok(Self::Scrypt),
            "sha256d" => Ok(Self::Sha256d),
            other => Err(format!("unknown algorithm {other:?}; expected rx/0, rx/2, scrypt or sha256d")),
        }
    }
}

/// How many hashes a share takes on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difficulty(pub u64);

impl Difficulty {
    /// The largest proof that counts, by its 64 most significant bits.
    #[must_use]
    pub const fn bound(self) -> u64 {
        if self.0 <= 1 { u64::MAX } else { u64::MAX / self.0 }
    }

    /// Whether a proof, least significant byte first, counts.
    #[must_use]
    pub fn met_by(self, proof: &[u8; 32]) -> bool {
        let mut top = [0_u8; 8];
        top.copy_from_slice(&proof[24..]);
        u64::from_le_bytes(top) <= self.bound()
    }

    /// The number `mining.set_difficulty` carries. Bitcoin's unit is 2^32 hashes, Litecoin's 2^16.
    #[must_use]
    pub fn announced(self, algorithm: Algorithm) -> f64 {
        let unit = if algorithm == Algorithm::Scrypt { 65536.0 } else { 4_294_967_296.0 };
        self.0 as f64 / unit
    }

    /// The inverse of [`Difficulty::announced`], for miners.
    #[must_use]
    pub fn from_announced(number: f64, algorithm: Algorithm) -> Self {
        let unit = if algorithm == Algorithm::Scrypt { 65536.0 } else { 4_294_967_296.0 };
        Self((number * unit).clamp(1.0, 1e18) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitcoin_genesis_block_meets_its_difficulty() {
        let header = hex::decode(concat!(
            "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f61",
            "7fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"
        ))
        .expect("hex");
        let header: [u8; 80] = header.try_into().expect("80 bytes");
        let proof = Algorithm::Sha256d.proof(&header).expect("computable");
        assert!(Difficulty(1 << 32).met_by(&proof));
        assert!(!Difficulty(1 << 50).met_by(&proof));
    }

    #[test]
    fn litecoin_genesis_block_meets_its_difficulty() {
        let header = hex::decode(concat!(
            "010000000000000000000000000000000000000000000000000000000000000000000000d9ced4ed1130f7b7faad9be25323ffaf",
            "a33232a17c3edf6cfd97bee6bafbdd97b9aa8e4ef0ff0f1ecd513f7c"
        ))
        .expect("hex");
        let header: [u8; 80] = header.try_into().expect("80 bytes");
        let proof = Algorithm::Scrypt.proof(&header).expect("computable");
        assert!(Difficulty(1 << 20).met_by(&proof));
    }

    #[test]
    fn the_announced_number_comes_back() {
        for algorithm in [Algorithm::Scrypt, Algorithm::Sha256d] {
            for hashes in [1_u64, 7_000, 20_000_000] {
                assert_eq!(
                    Difficulty::from_announced(Difficulty(hashes).announced(algorithm), algorithm).0,
                    hashes
                );
            }
        }
    }
}
