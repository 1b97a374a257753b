//! `/proc/PID/fdinfo/N` of a DRM file (Documentation/gpu/drm-usage-stats.rst of the kernel).

use std::collections::BTreeMap;
use std::time::Duration;

/// At most so many engines of one client are read.
const MAX_ENGINES: usize = 64;

/// One DRM client's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Client {
    /// PCI address, or the device node for devices without one.
    pub(super) device: String,
    /// Number of the client, unique within the device.
    pub(super) id: u64,
    /// Nanoseconds an engine worked for it.
    nanos: BTreeMap<String, u64>,
    /// Cycles an engine worked for it, and cycles that engine ran in all.
    cycles: BTreeMap<String, (u64, u64)>,
    /// How many identical engines stand behind one name.
    capacity: BTreeMap<String, u64>,
    /// Bytes in a region, by how exactly they were counted: resident, memory, total.
    regions: BTreeMap<String, [Option<u64>; 3]>,
}

/// Reads one file's counters; `None` when it is not of a driver that tells them.
pub(super) fn parse(text: &str, node: &str) -> Option<Client> {
    let mut client = Client { device: node.to_owned(), ..Client::default() };
    let mut id = None;
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let Some(name) = name.strip_prefix("drm-") else { continue };
        let value = value.trim();
        match name {
            "pdev" if !value.is_empty() && value.len() <= 64 => client.device = value.to_owned(),
            "client-id" => id = value.parse().ok(),
            _ => client.counter(name, value),
        }
    }
    client.id = id?;
    Some(client)
}

impl Client {
    fn counter(&mut self, name: &str, value: &str) {
        let number = || value.split_ascii_whitespace().next().and_then(|w| w.parse::<u64>().ok());
        let Some(number) = number() else { return };
        if self.nanos.len() + self.cycles.len() + self.capacity.len() + self.regions.len() >= MAX_ENGINES {
            return;
        }
        if let Some(engine) = name.strip_prefix("engine-capacity-") {
            self.capacity.insert(engine.to_owned(), number);
        } else if let Some(engine) = name.strip_prefix("engine-") {
            self.nanos.insert(engine.to_owned(), number);
        } else if let Some(engine) = name.strip_prefix("total-cycles-") {
            self.cycles.entry(engine.to_owned()).or_default().1 = number;
        } else if let Some(engine) = name.strip_prefix("cycles-") {
            self.cycles.entry(engine.to_owned()).or_default().0 = number;
        } else {
            let kinds = ["resident-", "memory-", "total-"];
            for (exactness, prefix) in kinds.iter().enumerate() {
                if let Some(region) = name.strip_prefix(prefix) {
                    let bytes = number.saturating_mul(unit(value));
                    self.regions.entry(region.to_owned()).or_default()[exactness] = Some(bytes);
                }
            }
        }
    }

    /// Bytes of the device's own memory; what lies in the host's memory is not counted.
    pub(super) fn memory(&self) -> u64 {
        let own = |region: &str| ["vram", "local", "stolen"].iter().any(|own| region.starts_with(own));
        let regions = self.regions.iter().filter(|(region, _)| own(region));
        let bytes = regions.filter_map(|(_, counts)| counts.iter().copied().flatten().next());
        bytes.fold(0, u64::saturating_add)
    }

    /// For every engine, thousandths of the time since `before` in which it worked for this client.
    pub(super) fn busy_since(&self, before: &Self, elapsed: Duration) -> Vec<(String, u32)> {
        let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let by_time = self.nanos.iter().filter_map(|(engine, now)| {
            let worked = now.saturating_sub(*before.nanos.get(engine)?);
            let capacity = self.capacity.get(engine).copied().unwrap_or(1).max(1);
            Some((engine.clone(), permille(worked, elapsed.saturating_mul(capacity))))
        });
        let by_cycles =
            self.cycles.iter().filter(|(engine, _)| !self.nanos.contains_key(*engine)).filter_map(
                |(engine, (now, total))| {
                    let (earlier, earlier_total) = before.cycles.get(engine)?;
                    let capacity = self.capacity.get(engine).copied().unwrap_or(1).max(1);
                    let whole = total.saturating_sub(*earlier_total).saturating_mul(capacity);
                    Some((engine.clone(), permille(now.saturating_sub(*earlier), whole)))
                },
            );
        by_time.chain(by_cycles).collect()
    }
}

fn permille(part: u64, whole: u64) -> u32 {
    if whole == 0 { 0 } else { (u128::from(part) * 1000 / u128::from(whole)).min(1000) as u32 }
}

fn unit(value: &str) -> u64 {
    match value.split_ascii_whitespace().nth(1) {
        Some("KiB") => 1 << 10,
        Some("MiB") => 1 << 20,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn engines_in_nanoseconds_share_their_capacity() {
        let client = |ns| {
            let text = format!(
                "drm-driver: i915\ndrm-pdev: 0000:00:02.0\ndrm-client-id: 3\ndrm-engine-video: {ns} ns\n\
                 drm-engine-capacity-video: 2\ndrm-total-local0: 9 MiB\ndrm-resident-local0: 5 MiB\ndrm-resident-system0: 77 MiB\n"
            );
            parse(&text, "/dev/dri/card0").unwrap()
        };
        let (before, now) = (client(0), client(1_000_000_000));
        assert_eq!(now.busy_since(&before, Duration::from_secs(1)), vec![("video".to_owned(), 500)]);
        assert_eq!((now.device.as_str(), now.memory()), ("0000:00:02.0", 5 << 20));
        assert_eq!(before.busy_since(&now, Duration::ZERO), vec![("video".to_owned(), 0)]);
    }

    #[test]
    fn engines_in_cycles_are_measured_against_their_total() {
        let client = |cycles, total| {
            let text = format!("drm-client-id: 3\ndrm-cycles-ccs: {cycles}\ndrm-total-cycles-ccs: {total}\n");
            parse(&text, "/dev/dri/renderD128").unwrap()
        };
        let busy = client(900, 2000).busy_since(&client(0, 1000), Duration::from_secs(1));
        assert_eq!(busy, vec![("ccs".to_owned(), 900)]);
    }

    #[test]
    fn a_file_without_a_client_is_none() {
        assert_eq!(parse("pos: 0\nflags: 02\n", "/dev/dri/card0"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(drm-(engine-|cycles-|total-cycles-|client-id|memory-)?[a-z]{0,4}: ?[0-9]{0,25} ?(KiB|ns)?\n){0,80}") {
            if let Some(client) = parse(&text, "x") {
                let _ = client.busy_since(&Client::default(), Duration::from_secs(1));
                let _ = client.busy_since(&client, Duration::ZERO);
                let _ = client.memory();
            }
        }

        #[test]
        fn no_bytes_make_it_panic(text in "\\PC{0,300}") {
            let _ = parse(&text, "x");
        }
    }
}
