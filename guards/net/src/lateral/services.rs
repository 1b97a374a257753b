//! The services that lead from host to host, as `content/lateral/services.toml` has them.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What a service is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// People, and intruders, log in or move files by it.
    Login,
    /// Clusters are commanded by it, and watched.
    Control,
    /// Applications use it all day.
    Application,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name for people.
    pub name: String,
    /// Its TCP ports.
    pub ports: Vec<u16>,
    /// The technique that using it is.
    pub technique: String,
    /// What it is used for.
    #[serde(rename = "use")]
    pub used_for: Use,
    /// How much a first connection there speaks for lateral movement, in bits.
    pub weight: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    service: Vec<Service>,
}

/// All services, found by port.
#[derive(Clone, Debug, Default)]
pub struct Services {
    services: Vec<Service>,
    ports: BTreeMap<u16, usize>,
}

impl Services {
    /// Davy's own.
    #[must_use]
    pub fn built_in() -> Self {
        // A test holds that it reads.
        Self::read(include_str!("../../../../content/lateral/services.toml")).unwrap_or_default()
    }

    /// Reads a table of services.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(text: &str) -> Result<Self, String> {
        let File { service: services } = toml::from_str(text).map_err(|e| e.to_string())?;
        let mut ports = BTreeMap::new();
        for (index, service) in services.iter().enumerate() {
            for port in &service.ports {
                if ports.insert(*port, index).is_some() {
                    return Err(format!("port {port} is given twice, the second time for {}", service.name));
                }
            }
        }
        Ok(Self { services, ports })
    }

    /// The service at a port, and its place in the table.
    #[must_use]
    pub fn at(&self, port: u16) -> Option<(usize, &Service)> {
        let index = *self.ports.get(&port)?;
        Some((index, self.services.get(index)?))
    }

    /// The service at a place in the table.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Service> {
        self.services.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_table_reads_and_knows_what_leads_from_host_to_host() {
        let text = include_str!("../../../../content/lateral/services.toml");
        let services = Services::read(text).unwrap_or_else(|fault| panic!("{fault}"));
        for (port, name) in
            [(22, "SSH"), (445, "SMB"), (3389, "RDP"), (2375, "the Docker API"), (6379, "Redis")]
        {
            assert_eq!(services.at(port).map(|(_, s)| s.name.as_str()), Some(name));
        }
        for (_, service) in services.ports.keys().filter_map(|port| services.at(*port)) {
            assert!(
                service.technique.starts_with('T') && (1.0..=3.0).contains(&service.weight),
                "{service:?}"
            );
        }
        for everyday in [80, 443, 53, 25, 9100, 9090, 8080] {
            assert!(services.at(everyday).is_none(), "{everyday}");
        }
    }

    #[test]
    fn a_port_is_one_services() {
        let twice =
            "[[service]]\nname = \"a\"\nports = [1]\ntechnique = \"T1\"\nuse = \"login\"\nweight = 1.0\n"
                .repeat(2);
        assert!(Services::read(&twice).is_err_and(|fault| fault.contains("port 1 is given twice")));
        assert!(Services::read("[[service]]\nname = \"a\"\n").is_err());
    }
}
