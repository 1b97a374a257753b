"""Answers questions for the addresses of names (RFC 1035)."""
import socket
import struct

NAMES = {
    b"deb.example.org": "198.51.100.80",
    b"ntp.example.org": "198.51.100.123",
    b"app.example.org": "10.0.3.10",
    b"backup.example.org": "10.0.3.30",
}

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("198.51.100.53", 53))
while True:
    question, client = server.recvfrom(512)
    labels, place = [], 12
    while question[place]:
        labels.append(question[place + 1:place + 1 + question[place]])
        place += 1 + question[place]
    end = place + 5
    address = NAMES.get(b".".join(labels).lower())
    wanted = question[place + 1:place + 3] == b"\x00\x01"
    found = address is not None and wanted
    flags = 0x8180 if address else 0x8183
    answer = question[:2] + struct.pack(">HHHHH", flags, 1, int(found), 0, 0) + question[12:end]
    if found:
        answer += struct.pack(">HHHIH", 0xC00C, 1, 1, 300, 4) + socket.inet_aton(address)
    server.sendto(answer, client)
