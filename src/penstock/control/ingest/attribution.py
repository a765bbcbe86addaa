"""What journal records mean for experiments: whose unit an exchange is, and what an observation says of which exchange.

Memory alone: what the tables knew stands in `Touched`, and whoever stores something overrides what is done beside.
"""

import msgspec

from penstock.control.experiments.store import OpenExperiment, UnitKey
from penstock.control.ingest.touched import Known, Touched, clean, is_of_user, unit_key
from penstock.control.watch.drift_store import key_of
from penstock.core.exchange import Exchange, Observation
from penstock.experiments.fold import UnitRecord
from penstock.experiments.metrics import is_number_refused, told
from penstock.experiments.pairs import treatment_of, vote_of_judge, vote_on

BITS = {"success": 1, "rating": 2, "reports": 4, "conversion": 8, "preference": 16}


class _Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an observation counts for: a unit of an experiment."""

    experiment: OpenExperiment
    key: UnitKey
    record: UnitRecord


class Attribution:
    """Records, folded into the statistics of their experiments in the order in which they are handed in."""

    def __init__(self) -> None:
        self.touched = Touched()
        self.changed_units: set[UnitKey] = set()
        self.told_of: dict[str, int] = {}  # exchanges that have a row: what has been told of them now
        self.settled: dict[tuple[str, str], str] = {}  # observations that waited, and their state now
        self.counts: dict[str, int] = {}  # what does not count, by reason

    def count(self, reason: str) -> None:
        """One more record, or part of one, that does not count, or counts by an exception."""
        self.counts[reason] = self.counts.get(reason, 0) + 1

    # -- exchanges ---------------------------------------------------------------------------------------------------

    def exchange(self, exchange: Exchange, raw: bytes, sequence: int) -> None:
        """Take an exchange in; `raw` is its payload in the journal, `sequence` its ingest sequence number."""
        touched = self.touched
        if exchange.id in touched.known:
            self.count("repeated_exchange")
            return
        unit = unit_key(exchange.tenant, exchange.unit or exchange.id)
        known = Known(
            tenant=exchange.tenant,
            experiment=exchange.experiment,
            epoch=exchange.epoch,
            unit=unit,
            group=key_of(exchange),
            place=(exchange.route, exchange.version),
            stored=False,
        )
        touched.known[exchange.id] = known
        self.tally(exchange, sequence)
        if exchange.pair is not None:
            touched.shown[exchange.id] = exchange
        if exchange.experiment and exchange.epoch > 0 and not self._expose(exchange, unit, sequence):
            known.epoch = 0
        for observation in touched.waiting.pop(exchange.id, ()):
            self.settled[observation.tenant, clean(observation.id)] = self._attribute(observation, known, sequence)
        self.keep_exchange(exchange, known, raw, sequence)

    def _expose(self, exchange: Exchange, unit: str, sequence: int) -> bool:
        """Count the exchange for its arm; False if it is not to be counted."""
        touched = self.touched
        one = touched.experiments.get(exchange.experiment)
        arm, paired = treatment_of(exchange), exchange.pair is not None
        if one is None or not one.folding.knows(exchange.epoch, arm) or one.folding.design.paired is not paired:
            self.count("unknown_experiment")
            return False
        key = (exchange.experiment, exchange.epoch, unit)
        record = touched.units.get(key)
        if record is None:
            record = touched.units[key] = UnitRecord(
                arm=arm,
                first_at=exchange.at,
                values={},
                bad=dict(touched.bad_earlier(exchange.experiment, unit)),
                past=touched.past.get((exchange.experiment, unit), 0),
            )
            touched.remember_user(key)
        elif record.arm != arm:
            self.count("arm_changed")
            return False
        self.changed_units.add(key)
        if paired:
            one.folding.paired(record, exchange, sequence)
        else:
            one.folding.exposed(record, exchange, sequence)
        return True

    # -- observations ------------------------------------------------------------------------------------------------

    def observation(self, observation: Observation, raw: bytes, sequence: int) -> None:
        """Take an observation in; one of an exchange that has not come waits for it."""
        name = (observation.tenant, clean(observation.id))
        if name in self.touched.heard:
            self.count("repeated_observation")
            return
        self.touched.heard.add(name)
        if is_number_refused(observation):
            self.count("refused_number")
        known = self.touched.known.get(observation.request) if observation.request else None
        if not observation.request:
            state = "kept"
            if is_of_user(observation):
                self.tally_of_user(observation)
                state = self._attribute_to_user(observation, sequence)
        elif known is None:
            state = "pending"
            self.touched.waiting.setdefault(observation.request, []).append(observation)
        else:
            state = self._attribute(observation, known, sequence)
        self.keep_observation(observation, state, raw, sequence)

    def _attribute(self, observation: Observation, known: Known, sequence: int) -> str:
        """What is told of a request counts for its unit, where it has one; the observation's state."""
        if known.tenant != observation.tenant:
            self.count("foreign")
            return "foreign"
        subject = self._subject(known)
        self.tally_told(observation, known)
        for metric, numerator in told(observation):
            if not self._first_word(metric, observation, known):
                continue
            self.tally_word(observation, known, metric, numerator, sequence)
            if subject is not None and not subject.experiment.folding.design.paired:
                self.changed_units.add(subject.key)
                subject.experiment.folding.told(subject.record, known.epoch, metric, numerator, sequence)
        if subject is None:
            return "attributed"
        if observation.kind == "preference":
            self._prefer(subject, observation, known, sequence)
        if observation.kind == "event":
            if subject.experiment.folding.design.paired:
                self._judge(subject, observation, sequence)
            else:
                self._happened(subject, observation, sequence)
        return "attributed"

    def _subject(self, known: Known) -> _Subject | None:
        one = self.touched.experiments.get(known.experiment) if known.epoch > 0 else None
        key = (known.experiment, known.epoch, known.unit)
        record = self.touched.units.get(key)
        return None if one is None or record is None else _Subject(experiment=one, key=key, record=record)

    def _first_word(self, metric: str, observation: Observation, known: Known) -> bool:
        """Whether nothing has been told of this before; if so, it has been now."""
        if known.told & BITS[metric]:
            self.count("repeated_word")
            return False
        known.told |= BITS[metric]
        if known.stored:
            self.told_of[observation.request] = known.told
        return True

    def _judge(self, subject: _Subject, observation: Observation, sequence: int) -> None:
        """Count which of two answers an evaluator's judge preferred."""
        folding = subject.experiment.folding
        vote = vote_of_judge(folding.design, observation)
        if vote:
            self.changed_units.add(subject.key)
            folding.voted(subject.record, subject.key[1], "judged", vote, sequence)

    def _prefer(self, subject: _Subject, observation: Observation, known: Known, sequence: int) -> None:
        """Count which of two answers was preferred: once a request, and of a unit the first that is no tie."""
        exchange = self.touched.shown.get(observation.request)
        vote = vote_on(exchange, observation) if exchange is not None else ""
        if not vote:
            self.count("unknown_choice")
        elif self._first_word("preference", observation, known):
            self.changed_units.add(subject.key)
            subject.experiment.folding.voted(subject.record, known.epoch, "preference", vote, sequence)

    def _happened(self, subject: _Subject, observation: Observation, sequence: int) -> None:
        """Count an event for the metrics of one experiment that are read from it."""
        folding = subject.experiment.folding
        if folding.hears(observation):
            self.changed_units.add(subject.key)
            reason = folding.happened(subject.record, subject.key[1], observation, sequence)
            if reason:
                self.count(reason)

    def _attribute_to_user(self, observation: Observation, sequence: int) -> str:
        """What is told of a user, not of a request: it counts in each experiment that this user has been part of."""
        found = False
        for key in self.touched.places_of(unit_key(observation.tenant, observation.user)):
            one, record = self.touched.experiments.get(key[0]), self.touched.units[key]
            if one is None or one.unit != "user" or observation.at < record.first_at:
                continue
            if observation.name == "conversion":
                found = True
                self.changed_units.add(key)
                one.folding.told(record, key[1], "conversion", 1, sequence)
            if one.folding.hears(observation):
                found = True
                self._happened(_Subject(experiment=one, key=key, record=record), observation, sequence)
        return "attributed" if found else "kept"

    # -- what is done beside: nothing, where records are only folded --------------------------------------------------

    def tally(self, exchange: Exchange, sequence: int) -> None:
        """An exchange has come, for the first time."""

    def tally_of_user(self, observation: Observation) -> None:
        """Something was told of a user."""

    def tally_told(self, observation: Observation, known: Known) -> None:
        """Something was told of a request."""

    def tally_word(self, observation: Observation, known: Known, metric: str, numerator: int, sequence: int) -> None:
        """What was told of a request counts in `metric`, for the first time."""

    def keep_exchange(self, exchange: Exchange, known: Known, raw: bytes, sequence: int) -> None:
        """An exchange is to be stored."""

    def keep_observation(self, observation: Observation, state: str, raw: bytes, sequence: int) -> None:
        """An observation is to be stored in `state`."""
