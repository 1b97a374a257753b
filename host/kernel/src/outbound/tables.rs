//! Rules into the tables that the programs look them up in.

use davy_model::{CGROUP_PATH_MAX, OutboundModes, OutboundTables, RuleSet, UNIT_NAME_MAX, mapped_octets};
use libbpf_rs::{MapCore, MapFlags, Object};
use zerocopy::IntoBytes;

use super::{mode_number, protocol_number, put_all};
use crate::abi::{ContainerKey, DestinationKey, NameKey, OutboundState, PlaceKey, PortKey, Rules, UnitKey};
use crate::error::{During, Result};
use crate::objects;

/// Fills every table but that of modes.
pub(super) fn fill(object: &Object, tables: &OutboundTables) -> Result<()> {
    let units = tables.units.iter().filter(|(name, _)| name.len() <= UNIT_NAME_MAX);
    let units = units.map(|(name, set)| entry(&UnitKey { name: padded(unit_key(name)) }, set));
    put_all(&objects::map(object, "outbound_units")?, "the table of units", units)?;
    let containers =
        tables.containers.iter().map(|(id, set)| entry(&ContainerKey { id: *id, reserved: 0 }, set));
    put_all(&objects::map(object, "outbound_containers")?, "the table of containers", containers)?;
    let users = tables.users.iter().map(|(uid, set)| entry(uid, set));
    put_all(&objects::map(object, "outbound_users")?, "the table of users", users)?;
    let ports = tables.ports.iter().map(|((protocol, port), set)| {
        entry(&PortKey { port: *port, protocol: protocol_number(*protocol), reserved: 0 }, set)
    });
    put_all(&objects::map(object, "outbound_ports")?, "the table of ports", ports)?;
    let destinations = tables.destinations.iter().map(|(address, bits, set)| {
        entry(&DestinationKey { bits: u32::from(*bits), address: *address }, set)
    });
    put_all(&objects::map(object, "outbound_destinations")?, "the table of destinations", destinations)?;
    let names = tables.names.iter().map(|(name, set)| entry(&name_key(name), set));
    put_all(&objects::map(object, "outbound_names")?, "the table of names", names)?;
    let yes = 1u32.as_bytes().to_vec();
    let resolvers = tables.resolvers.iter().map(|address| (mapped_octets(*address).to_vec(), yes.clone()));
    put_all(&objects::map(object, "outbound_resolvers")?, "the table of name servers", resolvers)?;
    let spared = tables.spared.iter().map(|uid| (uid.as_bytes().to_vec(), yes.clone()));
    put_all(&objects::map(object, "outbound_spared")?, "the table of protected users", spared)
}

/// Replaces what holds where, and has everybody's looked for anew.
pub(super) fn set_modes(
    object: &Object,
    tables: &OutboundTables,
    modes: &OutboundModes,
    epoch: u32,
) -> Result<()> {
    let map = objects::map(object, "outbound_places")?;
    let fits = |path: &str| (2..=CGROUP_PATH_MAX).contains(&path.len());
    let places = modes.places.iter().filter(|(path, _)| fits(path));
    let wanted: Vec<(Vec<u8>, Vec<u8>)> = places
        .map(|(path, mode)| {
            (PlaceKey { path: padded(path) }.as_bytes().to_vec(), mode_number(*mode).as_bytes().to_vec())
        })
        .collect();
    let gone: Vec<Vec<u8>> =
        map.keys().filter(|key| !wanted.iter().any(|(wanted, _)| wanted == key)).collect();
    put_all(&map, "the table of scopes", wanted.into_iter())?;
    for key in gone {
        map.delete(&key).during(|| "forgetting a scope".to_owned())?;
    }
    let state = OutboundState {
        any_unit: rules(&tables.any_unit),
        any_container: rules(&tables.any_container),
        any_user: rules(&tables.any_user),
        any_port: tables.any_port.each_ref().map(rules),
        epoch,
        everywhere: mode_number(modes.at("/")),
        strictest: mode_number(modes.highest()),
        reserved: 0,
    };
    objects::map(object, "outbound_state")?
        .update(&0u32.to_ne_bytes(), state.as_bytes(), MapFlags::ANY)
        .during(|| "setting what holds where".to_owned())
}

pub(super) fn rules(set: &RuleSet) -> Rules {
    Rules { words: set.0 }
}

fn entry(key: &(impl IntoBytes + zerocopy::Immutable), set: &RuleSet) -> (Vec<u8>, Vec<u8>) {
    (key.as_bytes().to_vec(), rules(set).as_bytes().to_vec())
}

/// The name that the programs look up: a template's ends in the sign behind which they cut an instance's.
fn unit_key(unit: &str) -> &str {
    match unit.strip_suffix(".service") {
        Some(template) if template.ends_with('@') => template,
        _ => unit,
    }
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

pub(super) fn name_key(reversed: &[u8]) -> NameKey {
    let mut key = NameKey { bits: 0, reversed: [0; 256] };
    for (to, from) in key.reversed.iter_mut().zip(reversed) {
        *to = *from;
        key.bits += 8;
    }
    key
}
