"""Takes all messages off a queue, fast, and prints `message id, header run, body` for each: listen.py URL QUEUE"""

import sys

import pika

# Acknowledged together; far more than are needed to keep the connection busy.
STEP = 2000


def main(url, queue):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=2 * STEP)
    write = sys.stdout.buffer.write
    while waiting := channel.queue_declare(queue, passive=True).method.message_count:
        taken = 0
        for method, properties, body in channel.consume(queue):
            write(b"%s\t%d\t%s\n" % (properties.message_id.encode(), properties.headers["run"], body))
            taken += 1
            if taken % STEP == 0 or taken == waiting:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if taken == waiting:
                break
        channel.cancel()  # what was fetched beyond goes back, in order
    connection.close()


main(*sys.argv[1:])
