#!/usr/bin/env bash
# What psad and portsentry make of the scans that docs/reference/scans.md lists: after how many packets each names the sender. As root.
#
# Debian's packages are unpacked into a temporary folder, and nothing is installed. Everything is played between two network
# namespaces that this script makes and removes. psad is given the lines that the LOG target of iptables would write of the packets that come
# (in a namespace that is not the first the kernel writes none), and asked by `psad -A` after how many of them it sees a
# danger; as a service it looks once in five seconds. portsentry runs as Debian sets it up, in its modes -atcp and -audp.
set -euo pipefail

packages="psad portsentry libdate-calc-perl libbit-vector-perl libunix-syslog-perl libiptables-parse-perl
  libiptables-chainmgr-perl libnet-ip-perl libnetaddr-ip-perl libcarp-clan-perl"
host=davy-peers-h-$$ client=davy-peers-c-$$ work=$(mktemp -d)
root=$work/root
running=
# What portsentry's folders are mounted on, where they are not there.
made_folders=
for folder in /etc/portsentry /var/lib/portsentry; do [ -d "$folder" ] || made_folders="$made_folders $folder"; done

end() {
    [ -z "$running" ] || kill -KILL $running 2>/dev/null || true
    ip netns delete "$host" 2>/dev/null || true
    ip netns delete "$client" 2>/dev/null || true
    rm -rf "$work"
    # shellcheck disable=SC2086
    [ -z "$made_folders" ] || rmdir $made_folders 2>/dev/null || true
}
trap end EXIT

for tool in apt-get dpkg ip nsenter unshare nmap masscan python3 perl; do
    command -v "$tool" >/dev/null || { echo "$tool is missing"; exit 1; }
done
mkdir "$work/packages" "$root"
# shellcheck disable=SC2086
(cd "$work/packages" && apt-get -qq download $packages 2>/dev/null)
for package in "$work"/packages/*.deb; do dpkg -x "$package" "$root"; done
mkdir -p "$root"/var/{log,run,lib}/psad "$work/sbin"
# psad asks whether iptables is there; it is not to be run.
printf '#!/bin/sh\nexit 0\n' >"$work/sbin/iptables"
chmod +x "$work/sbin/iptables"
sed -E -e "s#\\\$INSTALL_ROOT#$root#; s#^INSTALL_ROOT.*#INSTALL_ROOT $root;#; s#^HOSTNAME.*#HOSTNAME host;#" \
    -e "s#^(ip6?tables|[a-z0-9]+)Cmd( +)/.*#\1Cmd\2/bin/true;#" -e 's#^IPTABLES_PREREQ_CHECK.*#IPTABLES_PREREQ_CHECK 0;#' \
    -e "s#^iptablesCmd.*#iptablesCmd $work/sbin/iptables;#" "$root/etc/psad/psad.conf" >"$work/psad.conf"

cat >"$work/log.py" <<'PY'
# Writes of each packet that comes what the LOG target of iptables would.
import signal, socket, sys, time
signal.alarm(60)
taker = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800))
taker.bind((sys.argv[1], 0))
log = open(sys.argv[2], 'w')
FLAGS = [('URG', 32), ('ACK', 16), ('PSH', 8), ('RST', 4), ('SYN', 2), ('FIN', 1)]
while True:
    packet, place = taker.recvfrom(2048)
    if place[2] == 4:
        continue
    word = lambda at: int.from_bytes(packet[at:at + 2], 'big')
    head, protocol, fragment = (packet[0] & 15) * 4, packet[9], word(6)
    line = '%s host kernel: IN=c OUT= MAC=00:11:22:33:44:55:66:77:88:99:aa:bb:08:00 SRC=%s DST=%s LEN=%d TOS=0x00 PREC=0x00 TTL=%d ID=%d ' % (
        time.strftime('%b %d %H:%M:%S'), socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20]), word(2), packet[8], word(4))
    line += ('DF ' if fragment & 0x4000 else '') + ('MF ' if fragment & 0x2000 else '')
    if fragment & 0x1fff:
        line += 'FRAG:%d PROTO=%s ' % (fragment & 0x1fff, 'TCP' if protocol == 6 else protocol)
    elif protocol == 6 and len(packet) >= head + 20:
        flags = ''.join(name + ' ' for name, bit in FLAGS if packet[head + 13] & bit)
        line += 'PROTO=TCP SPT=%d DPT=%d WINDOW=%d RES=0x00 %sURGP=0 ' % (word(head), word(head + 2), word(head + 14), flags)
    elif protocol == 6:
        line += 'PROTO=TCP INCOMPLETE [%d bytes] ' % (len(packet) - head)
    elif protocol == 17:
        line += 'PROTO=UDP SPT=%d DPT=%d LEN=%d ' % (word(head), word(head + 2), word(head + 4))
    elif protocol == 1:
        line += 'PROTO=ICMP TYPE=%d CODE=%d ' % (packet[head], packet[head + 1])
    else:
        line += 'PROTO=%d ' % protocol
    log.write(line + '\n')
    log.flush()
PY

cat >"$work/psad.sh" <<'SH'
# After how many lines of a log psad sees a danger; in a mount namespace of its own, where there is an iptables.
work=$1 root=$1/root log=$2
mkdir "$work/over"
mount -t tmpfs none "$work/over"
mkdir "$work/over/upper" "$work/over/work"
cp "$work/sbin/iptables" "$work/over/upper/"
mount -t overlay overlay -o "lowerdir=/usr/sbin,upperdir=$work/over/upper,workdir=$work/over/work" /usr/sbin
export PERL5LIB=$root/usr/share/perl5:$(echo "$root"/usr/lib/*/perl5/5.*)
sees() {
    head -n "$1" "$log" >"$work/part.log"
    timeout 60 perl "$root/usr/sbin/psad" -A -m "$work/part.log" -c "$work/psad.conf" 2>&1 | grep -q 'DL: [1-5]'
}
all=$(wc -l <"$log")
sees "$all" || { echo never; exit; }
n=1
until sees "$n"; do n=$((n + 1)); done
echo "$n"
SH

cat >"$work/portsentry.sh" <<'SH'
# portsentry in both modes, with folders of its own, in a mount and a process namespace of its own.
work=$1
mkdir -p /etc/portsentry /var/lib/portsentry 2>/dev/null
mount --bind "$work/etc" /etc/portsentry
mount --bind "$work/state" /var/lib/portsentry
"$work/root/usr/sbin/portsentry" -atcp
"$work/root/usr/sbin/portsentry" -audp
sleep 60
SH

ip netns add "$host"
ip netns add "$client"
ip -n "$host" link add c type veth peer name eth netns "$client"
ip -n "$host" address add 198.51.100.1/24 dev c
ip -n "$client" address add 198.51.100.2/24 dev eth
ip -n "$host" link set c up
ip -n "$client" link set eth up
ip -n "$host" link set lo up
mac=$(ip -n "$host" -o link show c | sed 's/.*ether \([0-9a-f:]*\).*/\1/' | tr : -)

try() {
    name=$1
    shift
    rm -rf "$work/over" "$work/etc" "$work/state"
    mkdir "$work/state"
    cp -r "$root/etc/portsentry" "$work/etc"
    touch "$work/etc/portsentry.ignore"
    nsenter --net="/run/netns/$host" unshare --mount --pid --fork --kill-child sh "$work/portsentry.sh" "$work" >/dev/null 2>&1 &
    running=$!
    nsenter --net="/run/netns/$host" python3 "$work/log.py" c "$work/log" &
    running="$running $!"
    sleep 2
    nsenter --net="/run/netns/$client" timeout 50 "$@" >/dev/null 2>&1 &
    scan=$! portsentry=never after=0
    # Until it is named, or the scan is half a second over.
    while [ "$after" -lt 25 ]; do
        if grep -qs 198.51.100.2 "$work/state/portsentry.history"; then
            portsentry=$(wc -l <"$work/log")
            break
        fi
        kill -0 "$scan" 2>/dev/null || after=$((after + 1))
        sleep 0.02
    done
    wait "$scan" || true
    sleep 0.2
    kill -KILL $running 2>/dev/null || true
    wait $running 2>/dev/null || true
    running=
    psad=$(unshare --mount bash "$work/psad.sh" "$work" "$work/log")
    printf '| `%s` | %s | %s | of %s packets |\n' "$name" "$psad" "$portsentry" "$(wc -l <"$work/log")"
}

echo '| what comes | psad | portsentry | |'
echo '|---|---|---|---|'
for how in -sS -sT -sF -sX -sN -sM -sA -sW -sU '-sS -f'; do
    # shellcheck disable=SC2086
    try "nmap $how" nmap -n -Pn $how --max-rate 20 --max-retries 0 -p 20-59 198.51.100.1
done
try 'nmap -sO' nmap -n -Pn -sO --max-rate 20 --max-retries 0 -p 100-130 198.51.100.1
try masscan masscan --adapter eth --adapter-ip 198.51.100.2 --router-mac "$mac" --wait 0 -p20-59 --rate 20 198.51.100.1
visits='
import socket, sys
for port in map(int, sys.argv[1:]):
    try: socket.create_connection(("198.51.100.1", port), 1).close()
    except OSError: pass
'
try 'one visit that is refused' python3 -c "$visits" 143
try 'a mail program that finds out its settings' python3 -c "$visits" 143 993 110 995 587 465 25
