//! The effective policy as text: every setting with its value, its default and what it means.

use std::fmt::Write;

use davy_model::Timestamp;
use toml::Value;

use crate::catalogue::{SECTIONS, Section};
use crate::policy_test::{mode_name, name_of};
use crate::{
    Allow, AllowedBy, BlockedBy, InboundAllow, InboundGroup, OutboundAllow, OutboundGroup, Policy,
    PolicyTest, ScanAllow, ScansIgnore, ServiceAllow, ServiceProfile, TrustAllow, TrustBlock, TrustKey,
    TrustedBy, format_duration, format_size,
};

impl Policy {
    /// The whole policy as TOML, defaults written out, with a comment for each setting. Reading it gives the same policy.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let default = Self::default();
        let mut out = String::new();
        for section in SECTIONS.iter().filter(|s| !s.path.is_empty() && !s.path.starts_with("test.")) {
            match section.path {
                "mining.allow" => entries(&mut out, section, self.mining.allow.iter().map(allow_fields)),
                "trust.allow" => entries(&mut out, section, self.trust.allow.iter().map(trust_allow_fields)),
                "trust.block" => entries(&mut out, section, self.trust.block.iter().map(trust_block_fields)),
                "trust.key" => entries(&mut out, section, self.trust.keys.iter().map(trust_key_fields)),
                "services.profile" => {
                    entries(&mut out, section, self.services.profiles.iter().map(profile_fields))
                }
                "services.allow" => {
                    entries(&mut out, section, self.services.allow.iter().map(service_fields))
                }
                "inbound.group" => entries(&mut out, section, self.inbound.groups.iter().map(group_fields)),
                "inbound.allow" => entries(&mut out, section, self.inbound.allow.iter().map(inbound_fields)),
                "scans.ignore" => entries(&mut out, section, self.scans.ignore.iter().map(scans_fields)),
                "outbound.group" => {
                    entries(&mut out, section, self.outbound.groups.iter().map(destination_fields))
                }
                "outbound.allow" => {
                    entries(&mut out, section, self.outbound.allow.iter().map(outbound_fields))
                }
                "scan.allow" => entries(&mut out, section, self.scan.allow.iter().map(scan_allow_fields)),
                "test" => entries(&mut out, section, self.tests.iter().map(test_fields)),
                _ => self.section(&mut out, section, &default),
            }
        }
        out
    }

    fn section(&self, out: &mut String, section: &Section, default: &Self) {
        let _ = writeln!(out, "# {}\n[{}]", section.doc, section.path);
        for key in section.keys {
            let (Some(now), Some(usual)) =
                (self.value_of(section.path, key.name), default.value_of(section.path, key.name))
            else {
                continue;
            };
            let note = if now == usual { String::new() } else { format!(" Default: {usual}.") };
            let _ = writeln!(out, "# {}{note}\n{} = {now}", key.doc, key.name);
        }
        out.push('\n');
    }

    /// The value of one setting outside the repeated sections.
    fn value_of(&self, section: &str, key: &str) -> Option<Value> {
        let seconds = |d| Value::from(format_duration(d));
        Some(match (section, key) {
            ("scope", "cgroups") => texts(&self.scope.cgroups),
            ("mining", "mode") => mode_name(self.mining.mode).into(),
            ("mining", "actions") => {
                self.mining.actions.iter().map(|a| Value::from(a.name())).collect::<Vec<_>>().into()
            }
            ("mining", "confidence") => self.mining.confidence.into(),
            ("mining", "cut_for") => seconds(self.mining.cut_for),
            ("scans", "ban_for") => seconds(self.scans.ban_for),
            ("mining.pools", "domains") => texts(&self.mining.pools.domains),
            ("mining.pools", "hosts") => texts(&self.mining.pools.hosts),
            ("mining.pools", "cidrs") => texts(&self.mining.pools.cidrs),
            ("pools", "mode") => mode_name(self.pools.mode).into(),
            ("pools", "cut_for") => seconds(self.pools.cut_for),
            ("trust", "mode") => mode_name(self.trust.mode).into(),
            ("trust", "kernel") => self.trust.kernel.into(),
            ("trust", "scripts") => self.trust.scripts.into(),
            ("trust", "modules") => self.trust.modules.into(),
            ("trust", "terminal") => self.trust.terminal.into(),
            ("trust", "sources") => {
                self.trust.sources.iter().map(|s| Value::from(s.name())).collect::<Vec<_>>().into()
            }
            ("trust", "writers_for") => seconds(self.trust.writers_for),
            ("services", "mode") => self.services.mode.name().into(),
            ("scan", "mode") => mode_name(self.scan.mode).into(),
            ("scan", "on") => self.scan.on.iter().map(|t| Value::from(t.name())).collect::<Vec<_>>().into(),
            ("scan", "severity") => name_of(&self.scan.severity).into(),
            ("scan", "actions") => {
                self.scan.actions.iter().map(|a| Value::from(a.name())).collect::<Vec<_>>().into()
            }
            ("scan", "cpu") => i64::from(self.scan.cpu).into(),
            ("scan", "schedule") => self.scan.schedule.map_or_else(|| "off".into(), seconds),
            ("scan", "paths") => texts(&self.scan.paths),
            ("scan", "rules") => texts(&self.scan.rules),
            ("scan", "hashes") => texts(&self.scan.hashes),
            ("inbound", "mode") => mode_name(self.inbound.mode).into(),
            ("scans", "mode") => mode_name(self.scans.mode).into(),
            ("scans", "decoy_ports") => {
                self.scans.decoy_ports.iter().map(|p| Value::from(p.to_string())).collect::<Vec<_>>().into()
            }
            ("outbound", "mode") => mode_name(self.outbound.mode).into(),
            ("outbound", "inside") => shown(&self.outbound.inside),
            ("outbound", "resolvers") => shown(&self.outbound.resolvers),
            ("lateral", "mode") => mode_name(self.lateral.mode).into(),
            ("lateral", "learn_for") => seconds(self.lateral.learn_for),
            ("persistence", "mode") => mode_name(self.persistence.mode).into(),
            ("fileless", "mode") => mode_name(self.fileless.mode).into(),
            ("fileless", "written_memory") => self.fileless.written_memory.into(),
            ("masquerade", "mode") => mode_name(self.masquerade.mode).into(),
            ("campaign", "mode") => mode_name(self.campaign.mode).into(),
            ("tampering", "mode") => mode_name(self.tampering.mode).into(),
            ("sensors", "capture") => format_size(self.sensors.capture.into()).into(),
            ("sensors", "file_events") => self.sensors.file_events.into(),
            ("sensors", "processes") => i64::from(self.sensors.processes).into(),
            ("sensors", "flows") => i64::from(self.sensors.flows).into(),
            ("store", "max_size") => format_size(self.store.max_size).into(),
            ("store", "max_age") => seconds(self.store.max_age),
            ("failsafe", "denials_per_minute") => i64::from(self.failsafe.denials_per_minute).into(),
            ("failsafe", "protect_users") => texts(&self.failsafe.protect_users),
            ("failsafe", "grace") => seconds(self.failsafe.grace),
            ("drill", "every") => self.drill.every.map_or_else(|| "off".into(), seconds),
            _ => return None,
        })
    }
}

type Fields = Vec<(&'static str, Value)>;

fn entries(out: &mut String, section: &Section, entries: impl Iterator<Item = Fields>) {
    let _ = writeln!(out, "# {}", section.doc);
    for fields in entries {
        let _ = writeln!(out, "[[{}]]", section.path);
        for (name, value) in fields {
            let _ = writeln!(out, "{name} = {value}");
        }
    }
    out.push('\n');
}

fn allow_fields(allow: &Allow) -> Fields {
    let mut fields: Fields = match &allow.by {
        AllowedBy::Content(digest) => vec![("sha256", digest.to_string().into())],
        AllowedBy::Unit { unit, user } => {
            vec![("unit", unit.as_str().into()), ("user", user.as_str().into())]
        }
        AllowedBy::Cgroup { cgroup, user } => {
            vec![("cgroup", cgroup.as_str().into()), ("user", user.as_str().into())]
        }
    };
    fields.push(("reason", allow.reason.as_str().into()));
    fields.extend(allow.until.and_then(moment).map(|date| ("until", date)));
    fields
}

fn trust_allow_fields(allow: &TrustAllow) -> Fields {
    let by = match &allow.by {
        TrustedBy::Content(digest) => ("sha256", digest.to_string().into()),
        TrustedBy::Directory(path) => ("directory", path.as_str().into()),
    };
    let until = allow.until.and_then(moment).map(|date| ("until", date));
    [by, ("reason", allow.reason.as_str().into())].into_iter().chain(until).collect()
}

fn trust_block_fields(block: &TrustBlock) -> Fields {
    let by = match &block.by {
        BlockedBy::Content(digest) => ("sha256", digest.to_string().into()),
        BlockedBy::Signer(name) => ("signer", name.as_str().into()),
    };
    let until = block.until.and_then(moment).map(|date| ("until", date));
    [by, ("reason", block.reason.as_str().into())].into_iter().chain(until).collect()
}

fn trust_key_fields(key: &TrustKey) -> Fields {
    vec![("name", key.name.as_str().into()), ("minisign", key.minisign.as_str().into())]
}

fn profile_fields(profile: &ServiceProfile) -> Fields {
    let mut fields: Fields = vec![("name", profile.name.as_str().into())];
    fields.extend(profile.mode.map(|mode| ("mode", mode.name().into())));
    fields.push(("strict", profile.strict.into()));
    fields
}

fn service_fields(allow: &ServiceAllow) -> Fields {
    let mut fields: Fields =
        vec![("service", allow.service.as_str().into()), ("class", allow.class.name().into())];
    fields.extend(allow.command.as_deref().map(|command| ("command", command.into())));
    fields.push(("reason", allow.reason.as_str().into()));
    fields.extend(allow.until.and_then(moment).map(|date| ("until", date)));
    fields
}

fn group_fields(group: &InboundGroup) -> Fields {
    let mut fields: Fields = vec![("name", group.name.as_str().into())];
    if !group.networks.is_empty() {
        let networks: Vec<_> = group.networks.iter().map(|n| Value::from(n.to_string())).collect();
        fields.push(("networks", networks.into()));
    }
    if !group.files.is_empty() {
        fields.push(("files", texts(&group.files)));
    }
    fields
}

fn inbound_fields(allow: &InboundAllow) -> Fields {
    let mut fields = Fields::new();
    if !allow.ports.is_empty() {
        let ports: Vec<_> = allow.ports.iter().map(|p| Value::from(p.to_string())).collect();
        fields.push(("port", ports.into()));
    }
    fields.extend(allow.service.as_deref().map(|service| ("service", service.into())));
    fields.push(("protocol", allow.protocol.name().into()));
    let from: Vec<_> = allow.from.iter().map(|from| Value::from(from.to_string())).collect();
    fields.push(("from", from.into()));
    fields.push(("reason", allow.reason.as_str().into()));
    fields.extend(allow.until.and_then(moment).map(|date| ("until", date)));
    fields
}

fn scans_fields(ignore: &ScansIgnore) -> Fields {
    let until = ignore.until.and_then(moment).map(|date| ("until", date));
    let fields = [("network", ignore.network.to_string().into()), ("reason", ignore.reason.as_str().into())];
    fields.into_iter().chain(until).collect()
}

fn destination_fields(group: &OutboundGroup) -> Fields {
    vec![("name", group.name.as_str().into()), ("to", shown(&group.to))]
}

fn outbound_fields(allow: &OutboundAllow) -> Fields {
    let mut fields = Fields::new();
    let who = [("service", &allow.service), ("container", &allow.container), ("user", &allow.user)];
    fields.extend(who.into_iter().filter_map(|(name, who)| Some((name, who.as_deref()?.into()))));
    fields.push(("to", shown(&allow.to)));
    if !allow.ports.is_empty() {
        fields.push(("ports", shown(&allow.ports)));
    }
    fields.extend(allow.protocol.map(|protocol| ("protocol", protocol.name().into())));
    fields.push(("reason", allow.reason.as_str().into()));
    fields.extend(allow.until.and_then(moment).map(|date| ("until", date)));
    fields
}

fn scan_allow_fields(allow: &ScanAllow) -> Fields {
    let until = allow.until.and_then(moment).map(|date| ("until", date));
    let fields = [("sha256", allow.sha256.to_string().into()), ("reason", allow.reason.as_str().into())];
    fields.into_iter().chain(until).collect()
}

fn test_fields(test: &PolicyTest) -> Fields {
    let given = &test.given;
    let mut table = toml::Table::new();
    let mut set = |name: &str, value: Value| table.insert(name.to_owned(), value);
    set("finding", name_of(&given.finding).into());
    if !given.path.is_empty() {
        set("path", given.path.as_str().into());
    }
    if let Some(digest) = given.sha256 {
        set("sha256", digest.to_string().into());
    }
    if let Some(user) = &given.user {
        set("user", user.as_str().into());
    }
    if let Some(service) = &given.service {
        set("service", service.as_str().into());
    }
    set("cgroup", given.cgroup.as_str().into());
    match given.confidence {
        Some(confidence) => set("confidence", confidence.into()),
        None => {
            let bits = given.evidence.iter().map(|(s, bits)| (name_of(s), Value::from(f64::from(*bits))));
            set("evidence", Value::Table(bits.collect()))
        }
    };
    vec![
        ("name", test.name.as_str().into()),
        ("given", Value::Table(table)),
        ("expect", test.expect.name().into()),
    ]
}

fn shown<T: ToString>(list: &[T]) -> Value {
    list.iter().map(|one| Value::from(one.to_string())).collect::<Vec<_>>().into()
}

fn texts(list: &[String]) -> Value {
    list.iter().map(|t| Value::from(t.as_str())).collect::<Vec<_>>().into()
}

/// The last day when the entry ends at a midnight, else the moment.
fn moment(end: Timestamp) -> Option<Value> {
    let seconds = end.0.div_euclid(1_000_000);
    let utc = |s| jiff::Timestamp::from_second(s).ok().map(|t| t.to_zoned(jiff::tz::TimeZone::UTC));
    let text = if seconds % 86_400 == 0 {
        utc(seconds - 86_400)?.date().to_string()
    } else {
        format!("{}Z", utc(seconds)?.datetime())
    };
    text.parse().ok().map(Value::Datetime)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_setting_of_the_catalogue_is_written() {
        let default = Policy::default();
        for section in SECTIONS.iter().filter(|s| !s.repeated && !s.path.starts_with("test")) {
            for key in section.keys {
                assert!(
                    default.value_of(section.path, key.name).is_some(),
                    "{}.{} is not written",
                    section.path,
                    key.name
                );
            }
        }
    }

    #[test]
    fn the_default_reads_back() {
        let text = Policy::default().to_toml();
        assert_eq!(
            Policy::parse("default", &text).unwrap_or_else(|f| panic!("{f}\n{text}")),
            Policy::default()
        );
    }
}
