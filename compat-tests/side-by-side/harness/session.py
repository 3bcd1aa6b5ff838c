"""One work, measured: its brokers started, warmed up, and its contenders run in turn, round after round."""

import os
import time

import machine
from processes import Failed
from systems import RELAXED
from works import CONTENDERS

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
        self.systems = {contender.system: fleet.get(contender.system) for contender in self.contenders}
        for contender in self.contenders:
            self._warm_up(contender)

    def _warm_up(self, contender):
        system = self.systems[contender.system]
        topic, _ = system.create_topic(contender.config, self.work.partitions)
        rates = [self.profile.least_records / self.profile.pilot_seconds]
        begin = time.monotonic()
        while True:
            load = self.work.load(system, topic, self.profile.pilot_seconds, 0, rates[-1], self.profile.least_records)
            best = max(rates[1:], default=0)
            rates.append(load.values["records_per_s"])
            if len(rates) > self.profile.pilots_max:
                break
            if len(rates) > self.profile.pilots_min and rates[-1] < best * WARM_GAIN:
                break
        self.pilots[contender.name] = rates[1:]
        system.delete_topic(topic)
        system.settle(self.profile.settle_seconds)
        shown = " ".join(f"{rate:,.0f}" for rate in rates[1:])
        self.say(f"  {contender.name}: warm after {time.monotonic() - begin:.0f} s, pilots {shown} records/s")

    def round(self, dropped):
        """Measures every contender once; forwards in even rounds, backwards in odd ones."""
        order = self.contenders if self.rounds % 2 == 0 else self.contenders[::-1]
        self.rounds += 1
        measured = {}
        for contender in order:
            measured[contender.name] = values = self._measure(contender, check=dropped or self.rounds == 1)
            shown = " ".join(f"{key}={value:g}" for key, value in values.items() if isinstance(value, (int, float)))
            self.say(f"  {'dropped' if dropped else 'counted'} {contender.name}: {shown}")
        return measured

    def _measure(self, contender, check):
        system = self.systems[contender.system]
        profile = self.profile
        topic, _ = system.create_topic(contender.config, self.work.partitions)
        for each in self.systems.values():
            each.settle(self.profile.settle_seconds)
        os.sync()
        counted, counted_at = system.flush_count() if check else None, time.monotonic()
        before = machine.probe(self.place)
        flushes = machine.device_flushes(self.device)
        used = {name: each.cpu_seconds() for name, each in self.systems.items()}
        busy, begin = machine.busy_seconds(), time.monotonic()
        rate = max(self.pilots[contender.name])
        load = self.work.load(system, topic, profile.seconds, profile.warm_seconds, rate, profile.least_records)
        seconds = time.monotonic() - begin
        busy = machine.busy_seconds() - busy
        own = {name: each.cpu_seconds() - used[name] for name, each in self.systems.items()}
        flushes = None if flushes is None else machine.device_flushes(self.device) - flushes
        memory = system.memory()
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
            before=before,
            after=after,
        )
        if check:
            values["log_flushes"] = self._check_flushes(contender, system, counted, counted_at, flushes, load)
        system.delete_topic(topic)
        return values

    def _check_flushes(self, contender, system, counted, counted_at, device_flushes, load):
        """The row must do what it says: every append of a flushed topic is flushed, those of a relaxed one are not."""
        if contender.config == RELAXED:
            if counted is None:
                return None
            done = system.flush_count() - counted
            unrelated = (time.monotonic() - counted_at) * FLUSHES_OF_METADATA_PER_SECOND
            if done > unrelated + self.work.partitions + load.appends * FLUSHES_OF_RELAXED_SHARE_MAX:
                raise Failed(f"{contender.name}: {done} flushes of logs for about {load.appends} appends of a relaxed topic")
            return done
        if device_flushes == 0:
            raise Failed(f"{contender.name}: the device has seen no flush")
        if counted is None:
            return None
        done = system.flush_count() - counted
        if done < load.appends:
            raise Failed(f"{contender.name}: {done} flushes of logs for at least {load.appends} appends")
        return done

