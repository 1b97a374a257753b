//! Prints what the sensors tell, for developers: `cargo run -p davy-kernel --example watch -- [SECONDS]`.

use std::time::{Duration, Instant};

use davy_kernel::{ProbeContext, SensorConfig, Sensors, probe};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(10), |text| text.parse())?;
    let probes = probe(&ProbeContext::default());
    for probe in &probes {
        println!(
            "{:<12} {} {}",
            format!("{:?}", probe.capability),
            if probe.works { "yes" } else { "no " },
            probe.reason
        );
    }
    let sensors = Sensors::start(
        SensorConfig::new(0),
        &probes,
        Box::new(|event| println!("{event:?}")),
        Box::new(|c| println!("{c:?}")),
    )?;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_secs(1));
        let before = Instant::now();
        let batch = sensors.sample()?;
        println!("{} threads used a processor; the sweep took {:?}", batch.threads.len(), before.elapsed());
    }
    println!("lost: {:?}", sensors.drops());
    Ok(())
}
