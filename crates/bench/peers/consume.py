"""A consumer as one writes it by hand: aio-pika, and aiohttp where each message is posted. Says how long it took, and the processor
time, once so many messages are acknowledged."""

import asyncio
import json
import sys
import time

import aio_pika
import aiohttp


async def main(url, queue_name, total, prefetch, target):
    done, began, cpu = 0, None, None
    ended = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=prefetch)
    async with aiohttp.ClientSession(connector=connector) as session:
        connection = await aio_pika.connect(url)
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=prefetch)
            queue = await channel.get_queue(queue_name, ensure=False)

            async def handle(message):
                nonlocal done, began, cpu
                if began is None:
                    began, cpu = time.monotonic(), time.process_time()
                if target:
                    async with session.post(target, data=message.body) as answer:
                        await answer.read()
                        assert answer.status == 200, answer.status
                await message.ack()
                done += 1
                if done == total:
                    ended.set()

            await queue.consume(handle)
            await ended.wait()
            print(json.dumps({"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}))


arguments = sys.argv[1:]
asyncio.run(main(arguments[0], arguments[1], int(arguments[2]), int(arguments[3]), arguments[4] if len(arguments) > 4 else None))
