"""The local gateway's speed and memory: ``python -m benchmarks.gateway_throughput``.

The gateway must be faster than the clients that tests measure with it. The command measures

throughput  the events a second that the gateway sends to one zlib-stream client, which runs in a
            process of its own, and only counts the suffixes that end payloads
idle        the memory of the gateway's process with hundreds of connected clients that only send
            heartbeats; the memory grows until the gateway keeps 20,000 received payloads, and then
            stays constant

The figures depend on the machine, and on the machine's other work. The command also prints the
events for a second of the gateway's processor time, which other work does not change.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import time
from multiprocessing.connection import Connection

import websocket

from benchmarks.client import memory
from shardlib import Intents
from shardlib.testing import LocalGateway

SUFFIX = b"\x00\x00\xff\xff"


def count_events(url: str, token: str, seconds: float, results: Connection) -> None:
    """Run a client, and report the events and the bytes received, and the seconds.

    :param url: the gateway's URL.
    :param token: the gateway's token.
    :param seconds: for how many seconds to receive.
    :param results: the pipe for the report.
    """
    client = websocket.create_connection(f"{url}?v=10&encoding=json&compress=zlib-stream")
    socket = client.sock
    assert socket is not None
    identify(client, token, [0, 1])
    results.send("ready")
    received = events = 0
    started = time.perf_counter()
    last = b""
    while time.perf_counter() < started + seconds:
        data = socket.recv(1 << 18)
        received += len(data)
        # The suffix may be cut between two reads.
        events += (last + data).count(SUFFIX)
        last = data[-3:]
    results.send((events, received, time.perf_counter() - started))
    client.shutdown()


def stay_idle(url: str, token: str, clients: int, results: Connection) -> None:
    """Run many clients, each of which sends one heartbeat for each "beat" in the pipe.

    :param url: the gateway's URL.
    :param token: the gateway's token.
    :param clients: the number of clients.
    :param results: the pipe, which brings each "beat", and takes "beaten" once all heartbeats are
        acknowledged.
    """
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
    """Send Identify.

    :param client: the client.
    :param token: the gateway's token.
    :param shard: ``[shard_id, num_shards]``.
    """
    data = {"token": token, "intents": Intents.all(), "properties": {}, "shard": shard}
    client.send(json.dumps({"op": 2, "d": data}))


def throughput(seconds: float) -> None:
    """Measure the throughput, and print the figures.

    :param seconds: for how many seconds to measure.
    """
    results, client_end = multiprocessing.Pipe()
    with LocalGateway() as gateway:
        arguments = (gateway.url, gateway.token, seconds, client_end)
        client = multiprocessing.Process(target=count_events, args=arguments)
        client.start()
        results.recv()
        processor = time.process_time()
        traffic = gateway.traffic(rate=None)
        events, received, duration = results.recv()
        traffic.stop()
        processor = time.process_time() - processor
        client.join()
    print(
        f"throughput  {events / duration:9,.0f} events/s to one zlib-stream client, "
        f"{received / events:.0f} bytes each on the wire"
    )
    print(f"            {events / processor:9,.0f} events per second of processor time")


def idle(clients: int, rounds: int) -> None:
    """Measure the memory of idle connections, and print the figures.

    :param clients: the number of clients.
    :param rounds: the number of heartbeats that each client sends.
    """
    results, client_end = multiprocessing.Pipe()
    limits = {"identify_interval": 0.0, "session_start_limit": clients + 1}
    # Without guilds, because the sessions would keep the guilds' events, and only the memory of the
    # connections is to be measured.
    with LocalGateway(guilds=0, send_limit=None, **limits) as gateway:  # type: ignore[arg-type]
        gc.collect()
        before = memory()
        arguments = (gateway.url, gateway.token, clients, client_end)
        client = multiprocessing.Process(target=stay_idle, args=arguments)
        client.start()
        results.recv()
        gateway.wait_until(lambda: len(gateway.sessions) == clients, timeout=30)
        gc.collect()
        kilobytes = [memory()]
        for _ in range(rounds):
            results.send("beat")
            results.recv()
            gc.collect()
            kilobytes.append(memory())
        results.send("end")
        client.join()
    print(
        f"idle        {clients} connections take {(kilobytes[0] - before) / clients:.0f} kB each; "
        f"the process has {kilobytes[0] / 1024:.1f} MB"
    )
    for number in range(0, rounds + 1, 20):
        heartbeats = number * clients
        print(f"            after {heartbeats:6,} heartbeats: {kilobytes[number] / 1024:.1f} MB")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The local gateway's speed and memory.")
    parser.add_argument("--seconds", type=float, default=5.0, help="to measure the throughput")
    parser.add_argument("--clients", type=int, default=500, help="number of idle clients")
    parser.add_argument("--rounds", type=int, default=80, help="heartbeats of each idle client")
    arguments = parser.parse_args()
    # A forked client would inherit the gateway's sockets and keep the sockets open.
    multiprocessing.set_start_method("spawn")
    throughput(arguments.seconds)
    idle(arguments.clients, arguments.rounds)


if __name__ == "__main__":
    main()
