"""Time to annotate many photos against a server with a fixed latency, compared with the ideal.

    python benchmarks/metadata.py [--photos 1000] [--latency 0.05] [--concurrency 32] [--side 320]
    [--rounds 3]

Photos are decoded, shrunk, encoded again and sent by the real client over real sockets to a server
in another process; every answer is validated and committed to a store. The ideal time is photos /
concurrency × latency.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pairmatch import Profile
from pairmatch.io.store import Store
from pairmatch.metadata import Metadata, annotate
from pairmatch.metadata.openai import OpenAIMetadata
from pairmatch.metadata.schema import json_schema


def answer() -> bytes:
    """An HTTP response of the API with a value for every attribute."""
    properties = json_schema(Metadata)["properties"]
    values = {
        name: attribute.get("enum", ["a few plain words"])[0]
        for name, attribute in properties.items()
    }
    body = {
        "id": "r",
        "object": "response",
        "created_at": 1.0,
        "model": "benchmark",
        "status": "completed",
        "output": [
            {
                "id": "m",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": json.dumps(values), "annotations": []}],
            }
        ],
        "usage": {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100},
    }
    content = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        len(content),
        content,
    )


def serve(latency: float, port) -> None:
    """Answers every request after the latency; sends its port number to `port`."""
    reply = answer()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    line
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                await reader.readexactly(int(length.split(b":")[1]))
                await asyncio.sleep(latency)
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=2**20, backlog=256)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument(
        "--side", type=int, default=320, help="Longest side of the photos, in pixels."
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = "unused"
    receiver, sender = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(arguments.latency, sender), daemon=True
    )
    server.start()
    url = f"http://127.0.0.1:{receiver.recv()}/v1"
    ideal = arguments.photos / arguments.concurrency * arguments.latency
    print(
        f"{arguments.photos} photos of {arguments.side} px, latency "
        f"{arguments.latency * 1000:.0f} ms, {arguments.concurrency} parallel requests"
    )
    print(f"ideal: {ideal:.2f} s; {os.cpu_count()} CPUs, load before {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people = []
        for index in range(arguments.photos):
            noise = np.random.default_rng(index).integers(0, 255, (12, 9, 3), np.uint8)
            path = folder / f"{index}.jpg"
            Image.fromarray(noise).resize((arguments.side * 3 // 4, arguments.side)).save(path)
            people.append(Profile(str(index), (path,)))
        for round_number in range(arguments.rounds):
            generator = OpenAIMetadata(
                model="benchmark", base_url=url, concurrency=arguments.concurrency
            )
            with Store(folder / f"store{round_number}.sqlite") as store:
                start = time.perf_counter()
                cpu_start = time.process_time()
                annotation = annotate(people, generator, store, allow_upload=True)
                seconds = time.perf_counter() - start
                cpu_seconds = time.process_time() - cpu_start
                assert not annotation.refused
                assert store.counts()["metadata"] == arguments.photos
            print(f"{seconds:.2f} s (CPU {cpu_seconds:.2f} s): {seconds / ideal:.2f} x the ideal")
    server.terminate()


if __name__ == "__main__":
    main()
