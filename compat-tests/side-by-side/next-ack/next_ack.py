"""How long nothing is acknowledged: a librdkafka producer that is told where the brokers are, and nothing else.

    next_ack.py BROKERS TOPIC SECONDS

It sends a record every two milliseconds and prints a line when the first is acknowledged. Whoever started it breaks
something then and sends SIGUSR1; the next line is a report, made when a record was acknowledged that was sent after the
signal. It takes SECONDS at most.
"""

import json
import signal
import sys
import time

from confluent_kafka import Producer

SEND_EVERY_SECONDS = 0.002
RECORD = bytes(100)


class Sends:
    """What became of the records so far."""

    def __init__(self):
        self.told = False
        self.acked = 0
        self.failed = 0
        # The wall clock at the first acknowledgement of a record that was sent after the signal.
        self.acked_unix = None

    def on_signal(self, *_):
        self.told = True

    def on_delivery(self, problem, _):
        if problem:
            self.failed += 1
            return
        self.acked += 1
        if self.acked == 1:
            print("acknowledged", flush=True)

    def on_later_delivery(self, problem, message):
        self.on_delivery(problem, message)
        if not problem and self.acked_unix is None:
            self.acked_unix = time.time()


def main():
    brokers, topic, seconds = sys.argv[1:]
    sends = Sends()
    signal.signal(signal.SIGUSR1, sends.on_signal)
    # What it logs would stand between the lines; nothing else is set.
    producer = Producer({"bootstrap.servers": brokers, "log_level": 0})
    limit = time.monotonic() + float(seconds)
    while sends.acked_unix is None:
        if time.monotonic() > limit:
            raise SystemExit(f"no acknowledgement after the signal within {seconds} s ({sends.acked} in all)")
        producer.produce(topic, RECORD, on_delivery=sends.on_later_delivery if sends.told else sends.on_delivery)
        producer.poll(SEND_EVERY_SECONDS)
    print(json.dumps({"acked_unix": sends.acked_unix, "acked": sends.acked, "failed": sends.failed}))


if __name__ == "__main__":
    main()
