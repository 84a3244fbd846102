"""Publishes one message with a confirm, or fails: publish.py URL MESSAGE (JSON, body in base64)"""

import base64
import json
import sys

import pika


def main(url, message):
    message = json.loads(message)
    connection = pika.BlockingConnection(pika.URLParameters(url))
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
