"""What the local gateway can do: ``python -m benchmarks.gateway_throughput``.

It must be faster than the clients it is used to measure, so:

throughput  one process feeds one zlib-stream client as many events as it takes; the client, in a
            process of its own, only counts the suffixes that end payloads
idle        hundreds of connected clients that only beat; the memory of the gateway's process once
            all are there, and again and again while they beat; it grows until the gateway's
            memory of 20,000 received payloads is full, and then no more

The figures are this machine's, at this moment; events a second are also given as events per
second of the gateway's processor time, which other work on the machine does not change.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection

import websocket

from shardlib import Intents
from shardlib.testing import LocalGateway

SUFFIX = b"\x00\x00\xff\xff"


def count_events(url: str, token: str, seconds: float, results: Connection) -> None:
    """Be a client that takes what comes for some seconds; report events and bytes."""
    client = websocket.create_connection(f"{url}?v=10&encoding=json&compress=zlib-stream")
    socket = client.sock
    assert socket is not None
    identify(client, token, [0, 1])
    results.send("ready")
    received = events = 0
    begun = time.perf_counter()
    last = b""
    while time.perf_counter() < begun + seconds:
        data = socket.recv(1 << 18)
        received += len(data)
        # A suffix may be cut in two.
        events += (last + data).count(SUFFIX)
        last = data[-3:]
    results.send((events, received, time.perf_counter() - begun))
    client.shutdown()


def stay_idle(url: str, token: str, clients: int, results: Connection) -> None:
    """Be many clients that only beat, at every word that comes."""
    sockets = []
    for _ in range(clients):
        sockets.append(websocket.create_connection(f"{url}?v=10&encoding=json"))
        identify(sockets[-1], token, [1, 2])
    results.send("ready")
    while results.recv() == "beat":
        for client in sockets:
            client.send('{"op":1,"d":null}')
        for client in sockets:
            while '"op":11' not in client.recv():
                pass
        results.send("beaten")
    for client in sockets:
        client.shutdown()


def identify(client: websocket.WebSocket, token: str, shard: list[int]) -> None:
    data = {"token": token, "intents": Intents.all(), "properties": {}, "shard": shard}
    client.send(json.dumps({"op": 2, "d": data}))


def throughput(seconds: float) -> None:
    ours, theirs = multiprocessing.Pipe()
    with LocalGateway() as gateway:
        arguments = (gateway.url, gateway.token, seconds, theirs)
        client = multiprocessing.Process(target=count_events, args=arguments)
        client.start()
        ours.recv()
        used = time.process_time()
        traffic = gateway.traffic(rate=None)
        events, received, took = ours.recv()
        traffic.stop()
        used = time.process_time() - used
        client.join()
    print(
        f"throughput  {events / took:9,.0f} events/s to one zlib-stream client, "
        f"{received / events:.0f} bytes each on the wire"
    )
    print(f"            {events / used:9,.0f} events per second of processor time")


def idle(clients: int, rounds: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    limits = {"identify_interval": 0.0, "session_start_limit": clients + 1}
    # No guilds: what is measured is a connection, not what was said on it.
    with LocalGateway(guilds=0, send_limit=None, **limits) as gateway:  # type: ignore[arg-type]
        before = resident()
        arguments = (gateway.url, gateway.token, clients, theirs)
        client = multiprocessing.Process(target=stay_idle, args=arguments)
        client.start()
        ours.recv()
        gateway.wait_until(lambda: len(gateway.sessions) == clients, timeout=30)
        memory = [resident()]
        for _ in range(rounds):
            ours.send("beat")
            ours.recv()
            memory.append(resident())
        ours.send("end")
        client.join()
    print(
        f"idle        {clients} connections take {(memory[0] - before) / clients:.0f} kB each; "
        f"the process has {memory[0] / 1024:.1f} MB"
    )
    for number in range(0, rounds + 1, 20):
        beats = number * clients
        print(f"            after {beats:6,} heartbeats: {memory[number] / 1024:.1f} MB")


def resident() -> int:
    """Return the memory this process has, in kilobytes."""
    gc.collect()
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize() // 1024
    except FileNotFoundError:
        # Elsewhere: the most it ever had.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description="What the local gateway can do.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the throughput")
    parser.add_argument("--clients", type=int, default=500, help="that are idle")
    parser.add_argument("--rounds", type=int, default=80, help="of heartbeats")
    arguments = parser.parse_args()
    # Fresh processes: forked ones would hold the gateway's sockets.
    multiprocessing.set_start_method("spawn")
    throughput(arguments.seconds)
    idle(arguments.clients, arguments.rounds)


if __name__ == "__main__":
    main()
