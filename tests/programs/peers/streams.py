#!/usr/bin/env python3
"""streams.py serve PORT | run HOST PORT CONNECTIONS SIZE: the same as threads.py, in asyncio."""
import asyncio
import hashlib
import sys


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(port):
    server = await asyncio.start_server(echo, None, port)
    await server.serve_forever()


async def write(writer, data):
    for at in range(0, len(data), 65536):
        writer.write(data[at:at + 65536])
        await writer.drain()
    writer.write_eof()


async def talk(host, port, data, n, got):
    reader, writer = await asyncio.open_connection(host, port)
    writing = asyncio.create_task(write(writer, data))
    while piece := await reader.read(65536):
        got[n] += piece
        print("at", sum(map(len, got)), flush=True)
    await writing
    writer.close()
    await writer.wait_closed()


async def run(host, port, connections, size):
    data = hashlib.shake_128(b"payload").digest(connections * size)
    got = [b""] * connections
    await asyncio.gather(*(talk(host, port, data[n * size:(n + 1) * size], n, got) for n in range(connections)))
    print("hash", hashlib.sha256(b"".join(got)).hexdigest(), flush=True)


if sys.argv[1] == "serve":
    asyncio.run(serve(int(sys.argv[2])))
else:
    asyncio.run(run(sys.argv[2], *map(int, sys.argv[3:6])))
