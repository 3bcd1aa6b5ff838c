"""Every work by name."""

from consume import Consume, EndToEnd
from failover import Failover
from fresh import Partitions, Start
from produce import BesideReader, FixedRateJava, JavaBatches, LibrdkafkaBatches, ManyPartitions, OneInFlight, OpenLoop
from work import BOTH, ROCKETMQ, SYNC, TUNED


def on_three(work, contenders):
    """A work on three brokers of each system, with three replicas of each partition."""
    work.brokers, work.contenders = 3, contenders
    work.name, work.title = f"{work.name}-rf3", f"{work.title}, three brokers, three replicas"
    return work


WORKS = {
    work.name: work
    for work in (
        OneInFlight(256, contenders=BOTH + TUNED + ROCKETMQ),
        OneInFlight(32),
        OneInFlight(1),
        OneInFlight(256, acks="1", contenders=BOTH),
        LibrdkafkaBatches(1),
        LibrdkafkaBatches(100),
        LibrdkafkaBatches(1000),
        LibrdkafkaBatches(100, batch_bytes=512 << 10),
        JavaBatches(1),
        JavaBatches(100),
        JavaBatches(1000),
        ManyPartitions(),
        EndToEnd(),
        Consume(cold=False),
        Consume(cold=True),
        *(work(percent) for percent in (25, 50, 75) for work in (OpenLoop, FixedRateJava)),
        BesideReader(50),
        Start("empty"),
        Start("killed"),
        Start("clean", partitions=1000),
        Partitions(1),
        Partitions(1000),
        Partitions(10_000),
        on_three(OneInFlight(32), SYNC + ["kafka-default"] + TUNED),
        on_three(OneInFlight(1), SYNC),
        on_three(LibrdkafkaBatches(1), SYNC),
        on_three(LibrdkafkaBatches(100), BOTH + TUNED),
        on_three(JavaBatches(100), BOTH),
        on_three(EndToEnd(), SYNC),
        Failover(),
    )
}
