"""How much is measured: the profiles, and the works that each of them runs."""

from dataclasses import dataclass

from rows import ROWS
from works import WORKS


@dataclass
class Profile:
    """How much is measured. Only `full` makes figures worth showing."""

    name: str
    pairs: int
    seconds: float
    warm_seconds: float
    pilot_seconds: float
    pilots_min: int
    pilots_max: int
    # Longest that a broker may go on working after a load before the next measurement starts anyway.
    settle_seconds: float
    # Records that a client sends at least, whatever its rate in the pilot before.
    least_records: int
    # How long a work goes on before it is left for the next run to finish.
    work_seconds_max: float
    # Proves that the instrument works: one round, nothing dropped, noise is no matter, brokers shared by all works.
    trial: bool = False


PROFILES = {
    "full": Profile(
        "full",
        pairs=5,
        seconds=10,
        warm_seconds=10,
        pilot_seconds=5,
        pilots_min=2,
        pilots_max=12,
        settle_seconds=30,
        least_records=20_000,
        work_seconds_max=1500,
    ),
    "short": Profile(
        "short",
        pairs=2,
        seconds=4,
        warm_seconds=3,
        pilot_seconds=3,
        pilots_min=2,
        pilots_max=5,
        settle_seconds=15,
        least_records=20_000,
        work_seconds_max=240,
    ),
    "tiny": Profile(
        "tiny",
        pairs=1,
        seconds=1,
        warm_seconds=0.5,
        pilot_seconds=1,
        pilots_min=1,
        pilots_max=1,
        settle_seconds=2,
        least_records=2_000,
        work_seconds_max=300,
        trial=True,
    ),
}
# The works of the smaller profiles, and their contenders. The short one takes ten minutes for each number of brokers.
CHOSEN = {
    "short": {
        "one-in-flight-256": ["strict", "kafka-flush1", "kafka-default", "relaxed"],
        "batches-librdkafka-p100": ["strict", "kafka-flush1", "kafka-default", "relaxed"],
        "one-in-flight-32-rf3": ["strict", "kafka-flush1", "kafka-default"],
        "batches-librdkafka-p100-rf3": ["strict", "kafka-flush1", "kafka-default", "relaxed"],
    },
    "tiny": {
        "one-in-flight-256": ["strict", "kafka-flush1", "kafka-default"],
        "batches-librdkafka-p1": ["strict", "kafka-flush1"],
        "batches-java-p1": ["strict", "kafka-flush1"],
        "one-in-flight-32-rf3": ["strict", "kafka-flush1"],
    },
}


def choose_profile(options):
    profile = PROFILES["tiny" if options.tiny else "short" if options.short else "full"]
    profile.pairs = options.pairs or profile.pairs
    profile.seconds = options.seconds or profile.seconds
    return profile


def choose_works(options, profile):
    """The works to run, each with the names of its contenders."""
    chosen = CHOSEN.get(profile.name, {})
    if options.works:
        names = options.works.split(",")
        unknown = [name for name in names if name not in WORKS]
    elif options.rows:
        wanted = options.rows.split(",")
        unknown = [number for number in wanted if number not in {row.number for row in ROWS}]
        names = list(dict.fromkeys(row.work for row in ROWS if row.number in wanted))
    else:
        unknown, names = [], list(chosen or WORKS)
    if unknown:
        raise SystemExit(f"no {', '.join(unknown)}; --list shows what there is")
    brokers = options.brokers
    if options.short and not options.works and not options.rows:
        brokers = brokers or 1
    if brokers:
        names = [name for name in names if WORKS[name].brokers == brokers]
    if not names:
        raise SystemExit(f"nothing of that is measured with --brokers {brokers}; --list shows what there is")
    return [(WORKS[name], chosen.get(name, WORKS[name].contenders)) for name in names]
