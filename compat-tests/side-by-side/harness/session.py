"""One work, measured: its brokers started, warmed up, and its contenders run in turn, round after round."""

import os
import time

import machine
from fleet import SYSTEMS
from processes import Failed
from system import RELAXED
from work import CONTENDERS

# A broker counts as warm when a pilot gains less than this over the best one before it.
WARM_GAIN = 1.05
# A relaxed topic must not be flushed for its appends; segments that are rolled over are.
FLUSHES_OF_RELAXED_SHARE_MAX = 0.02
# Kafka's metadata log is counted with the others; an idle controller writes a record to it every 500 ms.
FLUSHES_OF_METADATA_PER_SECOND = 4


class Session:
    """One work on warm brokers."""

    def __init__(self, work, names, profile, fleet, say):
        self.work = work
        self.contenders = [CONTENDERS[name] for name in names]
        self.profile = profile
        self.place = fleet.place
        self.say = say
        self.device = machine.device_of(self.place)
        self.pilots = {}
        self.rounds = 0
        self.systems = {}
        self.kept = {}
        if work.fresh:
            return
        self.systems = {contender.system: fleet.get(contender.system, work.brokers) for contender in self.contenders}
        for contender in self.contenders:
            self._warm_up(contender)

    def _warm_up(self, contender):
        system = self.systems[contender.system]
        topic = self._topic(contender, system)
        rates = [self.profile.least_records / self.profile.pilot_seconds]
        begin = time.monotonic()
        while True:
            load = self.work.load(system, topic, self.profile.pilot_seconds, 0, rates[-1], self.profile.least_records)
            best = max(rates[1:], default=0)
            rates.append(load.pace)
            if len(rates) > self.profile.pilots_max:
                break
            if len(rates) > self.profile.pilots_min and rates[-1] < best * WARM_GAIN:
                break
        self.pilots[contender.name] = rates[1:]
        self._forget(system, topic)
        system.settle(self.profile.settle_seconds)
        shown = " ".join(f"{rate:,.0f}" for rate in rates[1:])
        self.say(f"  {contender.name}: warm after {time.monotonic() - begin:.0f} s, pilots {shown} records/s")

    def _forget(self, system, topic):
        if not self.work.keeps_topic:
            system.delete_topic(topic)

    def round(self, dropped):
        """Measures every contender once; forwards in even rounds, backwards in odd ones."""
        order = self.contenders if self.rounds % 2 == 0 else self.contenders[::-1]
        self.rounds += 1
        measured = {}
        for contender in order:
            if self.work.fresh:
                values = self._observe(contender)
            else:
                values = self._measure(contender, check=self.rounds == 1)
            measured[contender.name] = values
            shown = " ".join(f"{key}={value:g}" for key, value in values.items() if isinstance(value, (int, float)))
            self.say(f"  {'dropped' if dropped else 'counted'} {contender.name}: {shown}")
        return measured

    def _observe(self, contender):
        """A work that starts brokers of its own."""
        os.sync()
        before = machine.probe(self.place)
        system = SYSTEMS[contender.system](self.place, self.work.brokers)
        try:
            values = self.work.observe(system, contender, self.profile)
        finally:
            system.close()
        values.update(before=before, after=machine.probe(self.place))
        return values

    def _topic(self, contender, system):
        """A fresh topic; or the one made and filled before, when the work only reads."""
        if contender.name in self.kept:
            return self.kept[contender.name]
        topic, _ = system.create_topic(contender.config, contender.partitions or self.work.partitions)
        if self.work.keeps_topic:
            self.work.fill(system, topic, self.profile)
            self.kept[contender.name] = topic
        return topic

    def _measure(self, contender, check):
        system = self.systems[contender.system]
        profile = self.profile
        topic = self._topic(contender, system)
        for each in self.systems.values():
            each.settle(self.profile.settle_seconds)
        os.sync()
        self.work.before(system)
        check = check and self.work.counts_flushes
        counted, counted_at = system.flush_counts() if check else None, time.monotonic()
        before = machine.probe(self.place)
        flushes = machine.device_flushes(self.device)
        read = system.device_read_bytes()
        used = {name: each.cpu_seconds() for name, each in self.systems.items()}
        busy, begin = machine.busy_seconds(), time.monotonic()
        rate = max(self.pilots[self.work.paced_by or contender.name])
        warm = min(profile.warm_seconds, self.work.warm_seconds_max)
        load = self.work.load(system, topic, profile.seconds, warm, rate, profile.least_records)
        seconds = time.monotonic() - begin
        busy = machine.busy_seconds() - busy
        own = {name: each.cpu_seconds() - used[name] for name, each in self.systems.items()}
        flushes = None if flushes is None else machine.device_flushes(self.device) - flushes
        memory = system.memory()
        read = system.device_read_bytes() - read
        system.settle(self.profile.settle_seconds)
        # What the broker still had to do for these records belongs to them.
        broker = system.cpu_seconds() - used[contender.system]
        after = machine.probe(self.place)
        if not all(each.alive() for each in self.systems.values()):
            raise Failed("a broker died:\n" + "\n".join(each.tail() for each in self.systems.values()))
        client = load.client.cpu_seconds
        gigabytes = load.sent * 1024 / 1e9
        values = dict(load.values)
        values.update(memory)
        values.update(
            seconds=round(seconds, 2),
            sent=load.sent,
            broker_cpu_s=round(broker, 2),
            broker_cpu_s_per_gb=round(broker / gigabytes, 2),
            client_cpu_s=round(client, 2),
            client_cores=round(client / seconds, 2),
            client_share=round(client / max(client + own[contender.system], 0.01), 3),
            busy_share=round(busy / seconds / machine.CORES, 3),
            foreign_share=round(max(busy - client - sum(own.values()), 0) / seconds / machine.CORES, 3),
            idle_brokers_cores=round((sum(own.values()) - own[contender.system]) / seconds, 3),
            device_flushes=flushes,
            device_read_mb=round(read / 1e6, 1),
            before=before,
            after=after,
        )
        self.work.check(load, values)
        if check:
            values["log_flushes"] = self._check_flushes(contender, system, counted, counted_at, flushes, load)
        self._forget(system, topic)
        return values

    def _check_flushes(self, contender, system, counted, counted_at, device_flushes, load):
        """The row must do what it says: every append of a flushed topic is flushed, those of a relaxed one are not."""
        partitions = contender.partitions or self.work.partitions
        done = counted and [after - before for after, before in zip(system.flush_counts(), counted)]
        seconds = time.monotonic() - counted_at
        if contender.config == RELAXED:
            unrelated = (seconds * FLUSHES_OF_METADATA_PER_SECOND + partitions) * system.count
            if done and sum(done) > unrelated + load.appends * FLUSHES_OF_RELAXED_SHARE_MAX:
                raise Failed(f"{contender.name}: {done} flushes of logs for about {load.appends} appends of a relaxed topic")
        elif device_flushes == 0:
            raise Failed(f"{contender.name}: the device has seen no flush")
        elif done and sum(done) < load.appends:
            raise Failed(f"{contender.name}: {done} flushes of logs for at least {load.appends} appends")
        return done
