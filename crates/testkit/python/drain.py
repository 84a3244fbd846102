"""Takes all messages off a queue and prints one JSON line for each: drain.py URL QUEUE"""

import base64
import datetime
import decimal
import json
import sys

import pika


def parameters(url):
    """A broker that was killed listens before all its virtual hosts are up again."""
    parameters = pika.URLParameters(url)
    parameters.connection_attempts = 40
    parameters.retry_delay = 0.5
    return parameters

PROPERTIES = (
    "content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to",
    "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)


def typed(value):
    """A header with the name of its type, since JSON has fewer types than AMQP."""
    name = type(value).__name__
    if isinstance(value, (bytes, bytearray)):
        return {"type": "bytes", "value": base64.b64encode(value).decode()}
    if isinstance(value, decimal.Decimal):
        return {"type": name, "value": str(value)}
    if isinstance(value, datetime.datetime):
        return {"type": name, "value": value.isoformat()}
    if isinstance(value, list):
        return {"type": name, "value": [typed(one) for one in value]}
    if isinstance(value, dict):
        return {"type": name, "value": {key: typed(value[key]) for key in sorted(value)}}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"type": "int", "value": int(value)}
    return {"type": name, "value": value}


def main(url, queue):
    connection = pika.BlockingConnection(parameters(url))
    channel = connection.channel()
    last = 0
    while True:
        method, properties, body = channel.basic_get(queue)
        if method is None:
            break
        last = method.delivery_tag
        set_properties = {
            name: getattr(properties, name) for name in PROPERTIES if getattr(properties, name) is not None
        }
        print(json.dumps({
            "body": base64.b64encode(body).decode(),
            "exchange": method.exchange,
            "routing_key": method.routing_key,
            "redelivered": method.redelivered,
            "properties": set_properties,
            "headers": {name: typed(value) for name, value in sorted((properties.headers or {}).items())},
        }))
    if last:
        channel.basic_ack(last, multiple=True)
    connection.close()


main(*sys.argv[1:])
