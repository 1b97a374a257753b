use crate::case::Load;

/// Honest programs that work hard or talk much, as servers and their people run them.
#[must_use]
pub const fn everyday() -> &'static [Load] {
    EVERYDAY
}

/// Every script goes on until it is stopped; one that ends by itself has failed.
const EVERYDAY: &[Load] = &[
    Load {
        name: "openssl speed",
        programs: &["openssl"],
        script: "while openssl speed -seconds 3 -multi 2 sha256 aes-256-cbc rsa2048; do :; done",
    },
    Load {
        name: "xz -T2",
        programs: &["xz", "tar"],
        script: "tar cf - /usr/lib 2>/dev/null | head -c 100000000 > data
            while xz -T2 -6 -c data > /dev/null; do :; done",
    },
    Load {
        name: "gcc build",
        programs: &["gcc"],
        script: r#"for i in $(seq 40); do
                { echo '#include <math.h>'; for j in $(seq 60); do
                    echo "double f${i}_$j(double x,int n){double s=0;for(int k=0;k<n;k++)s+=sin(x*k)*$j;return s;}"
                done; } > $i.c
            done
            while :; do ls *.c | xargs -P 2 -n 1 gcc -O2 -c || exit 1; done"#,
    },
    Load {
        name: "rustc build",
        programs: &["rustc"],
        script: r#"{ for j in $(seq 300); do
                echo "pub fn f$j(v:&[u64])->Vec<String>{v.iter().map(|x|format!(\"{x:?}-$j\")).collect()}"
            done; } > lib.rs
            while rustc --crate-type lib -O --edition 2021 lib.rs -o out.rlib; do :; done"#,
    },
    Load {
        name: "sysbench cpu",
        programs: &["sysbench"],
        script: "while sysbench cpu --threads=2 --time=60 run; do :; done",
    },
    Load {
        name: "sysbench memory",
        programs: &["sysbench"],
        script: "while sysbench memory --threads=2 --memory-total-size=1T --time=60 run; do :; done",
    },
    Load { name: "stress-ng cpu", programs: &["stress-ng"], script: "exec stress-ng --cpu 2" },
    Load { name: "stress-ng matrix", programs: &["stress-ng"], script: "exec stress-ng --matrix 2" },
    Load { name: "stress-ng hash", programs: &["stress-ng"], script: "exec stress-ng --hash 2" },
    Load { name: "stress-ng vm", programs: &["stress-ng"], script: "exec stress-ng --vm 2 --vm-bytes 256M --vm-keep" },
    Load { name: "stress-ng cache", programs: &["stress-ng"], script: "exec stress-ng --cache 1 --memcpy 1" },
    Load {
        name: "x264 encode",
        programs: &["ffmpeg"],
        script: "while ffmpeg -nostdin -v error -f lavfi -i testsrc2=size=1280x720:rate=30 -t 60 -c:v libx264 \
            -threads 2 -f null -; do :; done",
    },
    Load {
        name: "numpy linear algebra",
        // Debian's own, which its package python3-numpy belongs to.
        programs: &["/usr/bin/python3"],
        script: "exec /usr/bin/python3 -c '
import numpy
a = numpy.random.rand(700, 700)
while True:
    q, r = numpy.linalg.qr(a)
    numpy.linalg.svd(a @ q)
'",
    },
    Load {
        name: "pgbench",
        programs: &["initdb", "pgbench", "runuser"],
        script: r#"chmod 755 . && mkdir pg && chown postgres pg || exit 1
            as() { runuser -u postgres -- "$@"; }
            as initdb -D "$WORK/pg/data" -A trust --no-sync || exit 1
            as postgres -D "$WORK/pg/data" -k "$WORK/pg" -c listen_addresses= -c fsync=off &
            for i in $(seq 50); do as pgbench -h "$WORK/pg" -i -s 2 postgres && break; sleep 0.2; done
            while as pgbench -h "$WORK/pg" -c 4 -j 2 -T 60 postgres; do :; done"#,
    },
    Load {
        name: "john",
        programs: &["john", "openssl"],
        script: r#"for i in $(seq 20); do
                echo "u$i:$(openssl passwd -1 -salt "salt$i" "$(openssl rand -hex 12)"):1:1::/:/bin/sh"
            done > hashes
            exec env HOME="$WORK" john --format=md5crypt --fork=2 --incremental hashes"#,
    },
    Load {
        name: "Java loop",
        programs: &["javac", "java"],
        script: r#"cat > Loop.java <<'END'
public class Loop {
    public static void main(String[] a) throws Exception {
        Runnable r = () -> { double s = 0; long x = 1;
            while (true) { x ^= x << 13; x ^= x >>> 7; x ^= x << 17; s += Math.sqrt((double) (x & 0xffff));
                if (s > 1e18) System.out.println(s); } };
        Thread t = new Thread(r); t.start(); r.run();
    }
}
END
            javac Loop.java && exec java -Xmx256m Loop"#,
    },
    Load {
        name: "Node loop",
        programs: &["node"],
        script: "exec node -e '
let s = 0, m = new Map();
for (let i = 0; ; i++) { s = (s * 31 + i) % 1000003; if (i % 7 == 0) m.set(s % 50000, JSON.stringify({i, s})); }
'",
    },
    Load {
        name: "gpg key work",
        programs: &["gpg"],
        script: r#"export GNUPGHOME="$WORK/g"; mkdir -m 700 g
            i=0
            while i=$((i+1)); gpg --batch --quiet --passphrase '' --quick-generate-key "user$i@example.org" rsa4096; do
                head -c 3000000 /dev/zero | gpg --batch --quiet --passphrase '' -u "user$i@example.org" -s -o /dev/null \
                    --yes || exit 1
            done"#,
    },
    Load {
        name: "zstd backup",
        programs: &["zstd", "tar"],
        script: "while tar cf - --one-file-system /usr 2>/dev/null | zstd -q -T2 -12 -c > /dev/null; do :; done",
    },
    Load {
        name: "SSH sessions",
        programs: &["sshd", "ssh", "ssh-keygen", "unshare", "ip"],
        script: r#"mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f key
            cp key.pub authorized; export WORK
            exec unshare --net bash -c '
                ip link set lo up
                $(command -v sshd) -D -e -p 2222 -o ListenAddress=127.0.0.1 -h "$WORK/host" -f /dev/null -o UsePAM=no \
                    -o PidFile=none -o StrictModes=no -o AuthorizedKeysFile="$WORK/authorized" -o PermitRootLogin=yes &
                sleep 1
                go() { ssh -p 2222 -i "$WORK/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
                    root@127.0.0.1 "$@"; }
                (while sleep 0.7; do echo "echo line \$RANDOM"; done) | go bash &
                (while sleep 4; do echo uptime; done) | go bash &
                while go "head -c 200000000 /dev/zero" > /dev/null; do sleep 1; done'"#,
    },
    Load {
        name: "chat over WebSocket",
        programs: &[],
        script: r#""$POOL" guest --room "$CHAT" --websocket --for 300s &
            exec "$POOL" guest --room "$CHAT" --websocket --for 300s"#,
    },
];
