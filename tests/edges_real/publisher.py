"""An engine that publishes KV events as vLLM does, driven by a trace of real requests.

The two sockets, the frames, the numbering, the buffer and the order of things are those of vLLM's
`ZmqEventPublisher`: one thread, which looks for a question before each batch; answers come from a
buffer of the last batches. Both generations of its MessagePack, with pyzmq and msgpack.

What is published is first written to `--truth`, one line per batch: number, then `+hash` for a
block stored and `-hash` for one removed. So a test knows what there was, however this ends.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections import OrderedDict, deque

import msgpack
import zmq

END = (-1).to_bytes(8, "big", signed=True)


def hash_of(block, as_bytes):
    digest = hashlib.sha256(str(block).encode()).digest()
    return digest if as_bytes else int.from_bytes(digest[-8:], "big")


def low(hash_):
    return int.from_bytes(hash_[-8:], "big") if isinstance(hash_, bytes) else hash_


class Engine:
    """A cache of `capacity` blocks: what a request needs is stored, the oldest is removed."""

    def __init__(self, capacity, as_bytes, schema):
        self.held = OrderedDict()
        self.capacity = capacity
        self.as_bytes = as_bytes
        self.schema = schema

    def request(self, blocks):
        events, parent, run, run_parent = [], None, [], None
        for block in blocks:
            if block in self.held:
                self.held.move_to_end(block)
                if run:
                    events.append(self.stored(run, run_parent))
                    run = []
            else:
                if not run:
                    run_parent = parent
                run.append(block)
                self.held[block] = None
            parent = block
        if run:
            events.append(self.stored(run, run_parent))
        removed = []
        while len(self.held) > self.capacity:
            removed.append(self.held.popitem(last=False)[0])
        if removed:
            events.append(self.removed(removed))
        return events

    def stored(self, blocks, parent):
        hashes = [hash_of(block, self.as_bytes) for block in blocks]
        parent = None if parent is None else hash_of(parent, self.as_bytes)
        tokens = [token for block in blocks for token in range(block * 4, block * 4 + 4)]
        if self.schema == "arrays":
            return ["BlockStored", hashes, parent, tokens, 4, None, "GPU", None]
        return {"type": "BlockStored", "block_hashes": hashes, "parent_block_hash": parent,
                "token_ids": tokens, "block_size": 4, "lora_id": None, "medium": "GPU",
                "lora_name": None}

    def removed(self, blocks):
        hashes = [hash_of(block, self.as_bytes) for block in blocks]
        if self.schema == "arrays":
            return ["BlockRemoved", hashes, "GPU"]
        return {"type": "BlockRemoved", "block_hashes": hashes, "medium": "GPU"}


def truth(events):
    for event in events:
        kind, hashes = ((event[0], event[1]) if isinstance(event, list)
                        else (event["type"], event["block_hashes"]))
        sign = "+" if kind == "BlockStored" else "-"
        for hash_ in hashes:
            yield f"{sign}{low(hash_)}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trace", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--publish", default="tcp://127.0.0.1:*")
    parser.add_argument("--replay", default="tcp://127.0.0.1:*")
    parser.add_argument("--no-replay", action="store_true")
    parser.add_argument("--topic", default="kv")
    parser.add_argument("--buffer", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--count", type=int, default=1 << 60)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--capacity", type=int, default=500)
    parser.add_argument("--schema", choices=["arrays", "maps"], default="maps")
    parser.add_argument("--bytes", action="store_true")
    parser.add_argument("--drop", type=int, default=0, help="one in so many is not sent live")
    parser.add_argument("--never", type=int, default=0, help="one in so many is not sent at all")
    parser.add_argument("--wait", action="store_true", help="for a line of input to begin")
    options = parser.parse_args()

    context = zmq.Context()
    publisher = context.socket(zmq.PUB)
    publisher.set_hwm(100_000)
    publisher.setsockopt(zmq.LINGER, 0)
    # Who was killed has left its address behind for a moment.
    bind(publisher, options.publish)
    replay = context.socket(zmq.ROUTER)
    replay.setsockopt(zmq.LINGER, 0)
    bind(replay, options.replay)
    print(publisher.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"),
          replay.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"), flush=True)
    if options.wait:
        sys.stdin.readline()

    requests = [json.loads(line)["hash_ids"] for line in open(options.trace)]
    engine = Engine(options.capacity, options.bytes, options.schema)
    buffer = deque(maxlen=options.buffer)
    record = os.open(options.truth, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    topic = options.topic.encode()
    begin, seq, request = time.monotonic(), 0, options.first
    done = False
    while True:
        if replay.poll(0):
            service(replay, buffer, options.no_replay)
        if seq >= options.count:
            if not done:
                done = True
                print("done", flush=True)
            replay.poll(50)
            continue
        events = engine.request(requests[request % len(requests)])
        request += 1
        if not events:
            continue
        batch = [time.time(), events, 0]
        payload = msgpack.packb(batch)
        number = seq.to_bytes(8, "big")
        never = options.never and seq % options.never == options.never - 1
        line = f"{seq} {'never ' if never else ''}{' '.join(truth(events))}\n"
        os.write(record, line.encode())
        if not never:
            if not (options.drop and seq % options.drop == options.drop // 2):
                publisher.send_multipart((topic, number, payload))
            buffer.append((number, payload))
        seq += 1
        ahead = begin + seq / options.rate - time.monotonic()
        if ahead > 0:
            replay.poll(ahead * 1000)


def bind(socket, address):
    for _ in range(200):
        try:
            socket.bind(address)
            return
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
            time.sleep(0.02)
    raise SystemExit(f"{address} is in use")


def service(replay, buffer, deaf):
    frames = replay.recv_multipart()
    if deaf or len(frames) != 3:
        return
    client, _, start = frames
    start = int.from_bytes(start, "big")
    for number, payload in buffer:
        if int.from_bytes(number, "big") >= start:
            replay.send_multipart((client, b"", number, payload))
    replay.send_multipart((client, b"", END, b""))


main()
