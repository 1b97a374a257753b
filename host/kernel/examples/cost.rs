//! What the sensors cost the processes they watch: `cargo run -p davy-kernel --example cost -- [ROUNDS]`.
//!
//! Rounds without and with sensors take turns. The loops' own CPU time is compared, children included, and the least
//! of each kind counts, so that other work on the machine disturbs little; the sensors' thread is told apart.

use std::hint::black_box;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use davy_kernel::{ProbeContext, SensorConfig, Sensors, probe};
use davy_model::Probe;

type Loop = (&'static str, u32, fn(u32));

const LOOPS: [Loop; 5] = [
    ("exec", 200, exec),
    ("tcp connect", 2_000, tcp_connect),
    ("udp connect", 10_000, udp_connect),
    ("udp send", 10_000, udp_send),
    ("open", 20_000, open),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Called again for one loop, so that its CPU time is its own.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [only, name] = arguments.as_slice()
        && only == "loop"
    {
        return one(name);
    }
    let rounds: u32 = arguments.first().map_or(Ok(7), |text| text.parse())?;
    let probes = probe(&ProbeContext::default());
    println!("{:<12} {:>12} {:>12} {:>7}", "loop", "without", "with", "ratio");
    for (name, times, _) in LOOPS {
        let mut least = [f64::MAX; 2];
        for _ in 0..rounds {
            least[0] = least[0].min(measure(name)?);
            let sensors = start(&probes)?;
            least[1] = least[1].min(measure(name)?);
            drop(sensors);
        }
        let each = least.map(|nanoseconds| nanoseconds / f64::from(times) / 1000.0);
        println!("{name:<12} {:>9.2} us {:>9.2} us {:>7.3}", each[0], each[1], each[1] / each[0]);
    }
    Ok(())
}

fn start(probes: &[Probe]) -> Result<Sensors, davy_kernel::Error> {
    Sensors::start(SensorConfig::new(0), probes, Box::new(|event| drop(black_box(event))), Box::new(drop))
}

/// CPU time of one loop in nanoseconds, in a process of its own.
fn measure(name: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let output = Command::new(std::env::current_exe()?).args(["loop", name]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn one(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let (_, times, run) = LOOPS.into_iter().find(|(known, ..)| *known == name).ok_or("no such loop")?;
    run(times / 10);
    let before = cpu();
    run(times);
    println!("{}", cpu() - before);
    Ok(())
}

/// CPU time of this process and its children that ended, in nanoseconds.
fn cpu() -> u64 {
    let own = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    // Fields 16 and 17, cutime and cstime, in ticks of 10 ms.
    let children = fields.iter().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    (own.tv_sec as u64) * 1_000_000_000 + own.tv_nsec as u64 + children * 10_000_000
}

fn exec(times: u32) {
    for _ in 0..times {
        let _ = Command::new("/bin/true").stdin(Stdio::null()).status();
    }
}

fn tcp_connect(times: u32) {
    let Ok(listener) = TcpListener::bind("127.0.0.1:0") else { return };
    let Ok(address) = listener.local_addr() else { return };
    for _ in 0..times {
        let _client = black_box(TcpStream::connect(address));
        let _server = black_box(listener.accept());
    }
}

fn udp_connect(times: u32) {
    for _ in 0..times {
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = black_box(socket.connect("127.0.0.1:9"));
        }
    }
}

fn udp_send(times: u32) {
    let Ok(server) = UdpSocket::bind("127.0.0.1:0") else { return };
    let Ok(address) = server.local_addr() else { return };
    for _ in 0..times {
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = black_box(socket.send_to(b"x", address));
        }
    }
}

fn open(times: u32) {
    for _ in 0..times {
        let _ = black_box(std::fs::File::open("/dev/null"));
    }
}
