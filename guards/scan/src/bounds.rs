/// How much of an archive is unpacked. What lies beyond is not looked at, and the report says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Whether archives are opened at all.
    pub archives: bool,
    /// Archives within archives. More is a finding: nobody nests so deep by accident.
    pub depth: usize,
    /// Members of one file, over all its archives.
    pub members: u32,
    /// Bytes unpacked from one file, over all its archives.
    pub bytes: u64,
    /// How many times its own size an archive may unpack to once that is more than [`Bounds::ratio_from`]. More is a finding.
    pub ratio: u64,
    /// Bytes from which on the ratio is looked at: small files of zeros are everyday.
    pub ratio_from: u64,
    /// Bytes of members that may wait in memory to be opened themselves, over all depths.
    pub held: usize,
    /// Memory that a decompressor may ask for, in bytes.
    pub dictionary: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            archives: true,
            depth: 6,
            members: 100_000,
            bytes: 4 << 30,
            ratio: 250,
            ratio_from: 64 << 20,
            held: 48 << 20,
            dictionary: 64 << 20,
        }
    }
}
