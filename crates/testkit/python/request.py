"""Sends a request and prints the direct reply to it, or fails: request.py URL QUEUE BODY SECONDS. With 0 seconds it does not wait."""

import sys
import time

import pika


def main(url, queue, body, seconds):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    replies = []
    channel.basic_consume(
        "amq.rabbitmq.reply-to", lambda _channel, _method, _properties, reply: replies.append(reply), auto_ack=True
    )
    channel.basic_publish("", queue, body, pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    end = time.monotonic() + float(seconds)
    while not replies and time.monotonic() < end:
        connection.process_data_events(time_limit=1)
    connection.close()
    if replies:
        print(replies[0].decode())
    elif float(seconds) > 0:
        sys.exit("no reply")


main(*sys.argv[1:])
