"""Tries to get to a web server round `[outbound]`: begins outside of the service, and does the rest in it."""
import os
import socket
import sys
import time

way, procs, host, source, folder = sys.argv[1:6]


def enter():
    with open(procs, "w") as file:
        file.write("0")


def unconnected():
    made = socket.socket()
    made.settimeout(10)
    made.bind((source, 0))
    return made


def connected():
    made = unconnected()
    made.connect((host, 8080))
    return made


def talk(over):
    over.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while chunk := over.recv(4096):
        answer += chunk
    return answer.endswith(b"hello")


def beside(serve):
    """Somebody outside of the service serves whoever comes to a Unix socket."""
    path = os.path.join(folder, "door-" + way)
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen()
    if os.fork() == 0:
        serve(door.accept()[0])
        os._exit(0)
    enter()
    inside = socket.socket(socket.AF_UNIX)
    inside.connect(path)
    return inside


def relay(inside):
    outside = connected()
    outside.sendall(inside.recv(4096))
    while chunk := outside.recv(4096):
        inside.sendall(chunk)


def passed(make):
    def hand_over(asker):
        made = make()
        socket.send_fds(asker, [b"x"], [made.fileno()])

    inside = beside(hand_over)
    _, descriptors, _, _ = socket.recv_fds(inside, 1, 1)
    got = socket.socket(fileno=descriptors[0])
    got.settimeout(10)
    return got


def tries():
    if way == "inherited open":
        held = connected()
        enter()
        return talk(held)
    if way == "inherited unconnected":
        held = unconnected()
        enter()
        held.connect((host, 8080))
        return talk(held)
    if way == "passed open":
        return talk(passed(connected))
    if way == "passed unconnected":
        got = passed(unconnected)
        got.connect((host, 8080))
        return talk(got)
    if way == "a proxy behind a Unix socket":
        return talk(beside(relay))
    if way == "frames of its own":
        enter()
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind(("lo", 0))
        return raw.send(bytes(60)) == 60
    if way == "a raw socket":
        enter()
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        return raw.sendto(bytes(60), (host, 0)) == 60
    if way == "a datagram":
        enter()
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (host, 9)) == 1
    if way == "a datagram to where its socket leads":
        enter()
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.connect((host, 9))
        return made.send(b"x") == 1
    if way == "open before the policy":
        enter()
        held = connected()
        with open(os.path.join(folder, "open"), "w"):
            pass
        end = time.monotonic() + 20
        while not os.path.exists(os.path.join(folder, "go-on")) and time.monotonic() < end:
            time.sleep(0.02)
        return talk(held)
    raise ValueError(way)


try:
    print("gets through" if tries() else "gets nothing")
except PermissionError:
    print("refused")
