"""Publishes one message with a confirm, or fails: publish.py URL MESSAGE (JSON, body in base64)"""

import base64
import json
import sys

import pika


def parameters(url):
    """A broker that was killed listens before all its virtual hosts are up again."""
    parameters = pika.URLParameters(url)
    parameters.connection_attempts = 40
    parameters.retry_delay = 0.5
    return parameters


def main(url, message):
    message = json.loads(message)
    connection = pika.BlockingConnection(parameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(
        message["exchange"],
        message["routing_key"],
        base64.b64decode(message["body"]),
        pika.BasicProperties(**(message["properties"] or {})),
        mandatory=True,
    )
    connection.close()


main(*sys.argv[1:])
