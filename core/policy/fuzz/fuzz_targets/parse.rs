//! Reads whatever comes, and reads again what it writes.
#![no_main]

use davy_policy::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Policy::parse("fuzz", text) {
        Ok(policy) => assert_eq!(Policy::parse("written", &policy.to_toml()), Ok(policy)),
        Err(faults) => drop(faults.render(false)),
    }
});
