//! Names of addresses, as name servers answered them.

use std::net::IpAddr;

use davy_model::{NameAnswer, Timestamp};

use crate::Detector;

impl Detector {
    /// The name that was last resolved to an address.
    #[must_use]
    pub fn name_of(&self, address: IpAddr) -> Option<&str> {
        self.names.get(&address).map(String::as_str)
    }

    /// An answer is read in the worker and comes after the beginning of the flow that it led to.
    pub(crate) fn name_answered(&mut self, time: Timestamp, answer: &NameAnswer) {
        self.names.insert(answer.address, answer.name.clone());
        for key in self.flows.name_newest(time, answer) {
            self.weigh_list(time, key);
        }
    }
}
