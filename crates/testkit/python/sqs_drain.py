"""Takes messages off a queue with boto3: sqs_drain.py URL KEY REGION QUEUE COUNT SECONDS.

Prints a line of JSON for each, in the order in which they came, and looks once more after the last one.
"""
import base64
import json
import sys
import time

import boto3

url, key, region, name, count, seconds = sys.argv[1:]
count, deadline = int(count), time.monotonic() + float(seconds)
key, secret, token = key.split(" ")
sqs = boto3.client(
    "sqs",
    endpoint_url=url,
    region_name=region,
    aws_access_key_id=key,
    aws_secret_access_key=secret,
    aws_session_token=token,
)
queue = sqs.get_queue_url(QueueName=name)["QueueUrl"]


def plain(value):
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(type(value))


came = 0
while True:
    answer = sqs.receive_message(
        QueueUrl=queue,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
        WaitTimeSeconds=0 if came >= count else 1,
    )
    messages = answer.get("Messages", [])
    for message in messages:
        print(json.dumps({key: message.get(key) for key in ("MessageId", "Body", "MessageAttributes", "Attributes")}, default=plain))
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        came += 1
    if not messages and came >= count:
        break
    if time.monotonic() > deadline:
        sys.exit(f"only {came} of {count} messages came")
