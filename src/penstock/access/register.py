"""The books of all limits: who may use how much. One process owns them and grants leases to workers, which spend without asking.

A lease is booked as if all of it were spent at its end, so that no interval can ever hold more than the limit, whatever the workers do
with it or whenever they die; what they give back is taken out again. On top of what a request needs, at most 2 % of a limit is out in
leases, all workers together: so much earlier than at the limit may a request be refused.
"""

from collections.abc import Iterable

import msgspec

from penstock.access.limits import RESOURCES, SEATS, Window

LEASED_SHARE = 50  # 1/50 of a limit
OLDEST = -1  # in place of a slot


class Want(msgspec.Struct, frozen=True, array_like=True):
    """One thing that a request needs: `need` units of `resource` of `scope` (`key:...` or `tenant:...`), whose limit is `limit`."""

    scope: str
    resource: int
    limit: int
    need: int


class Return(msgspec.Struct, frozen=True, array_like=True):
    """`amount` of what was booked in `slot` was not used. Negative: so much more was used, which is booked whatever the limit.

    Who does not know the slot names `OLDEST`: it is taken from what is free again first, so that nothing is ever free too early.
    """

    scope: str
    resource: int
    slot: int
    amount: int


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """The answer to one Want: the need is granted, and `extra` units beside it, to be spent within the resource's `lease_s` of the asking.

    All are booked in `slot`. `remaining` is left of the limit, all of which is free again in `reset_s` seconds.
    """

    extra: int
    slot: int
    remaining: int
    reset_s: float


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """No: the want number `index` does not fit for another `wait` seconds (infinite: never), `remaining` being left.

    The whole limit is free again in `reset_s` seconds.
    """

    index: int
    wait: float
    remaining: int
    reset_s: float


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A change of the books, as kept on disk: `amount` more in `slot`; of seats, `worker` holds `amount` in all."""

    scope: str
    resource: int
    slot: int
    amount: int
    worker: str = ""


class _Seats:
    __slots__ = ("held", "total")

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.total = 0

    def hold(self, worker: str, amount: int) -> None:
        self.total += amount - self.held.pop(worker, 0)
        if amount:
            self.held[worker] = amount


class Register:
    """The books. Every change is added to `entries`, for the owner to write down before anybody hears of it."""

    __slots__ = ("_extras", "_seats", "_sweeping", "_windows", "entries")

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], Window] = {}
        self._seats: dict[str, _Seats] = {}
        self._extras: dict[tuple[str, int], dict[str, tuple[int, float]]] = {}
        self._sweeping: list[tuple[str, int]] = []
        self.entries: list[Entry] = []

    def sweep(self, now: float, count: int = 2000) -> None:
        """Forget what no longer counts, of the next `count` limits: called from time to time, so that no call takes long."""
        if not self._sweeping:
            self._sweeping = list(self._windows)
        for key in self._sweeping[:count]:
            window = self._windows.get(key)
            if window is not None:
                window.advance(now)
                if not window.slots:
                    del self._windows[key]
                    self._extras.pop(key, None)
        del self._sweeping[:count]

    def grant(self, worker: str, wants: Iterable[Want], now: float) -> list[Lease] | Refusal:
        """All wants, each with a lease, or none of them: then the one that must wait longest is told."""
        asked = list(wants)
        refusals = [refusal for i, want in enumerate(asked) if (refusal := self._refusal(i, want, now)) is not None]
        if refusals:
            return max(refusals, key=lambda refusal: refusal.wait)
        return [self._lease(worker, want, now) for want in asked]

    def take_back(self, worker: str, returned: Return, now: float) -> None:
        """Book a Return."""
        if returned.resource == SEATS:
            seats = self._seats.setdefault(returned.scope, _Seats())
            self._hold(returned.scope, worker, max(0, seats.held.get(worker, 0) - returned.amount))
            return
        window = self._windows.get((returned.scope, returned.resource))
        if window is None:
            window = self._windows[returned.scope, returned.resource] = Window(RESOURCES[returned.resource], 0)
        window.advance(now)
        if returned.amount > 0 and returned.slot == OLDEST:
            changes = window.take_oldest(returned.amount)
        else:
            slot = returned.slot if returned.amount > 0 else window.slot_at(now)
            changes = [(slot, window.book(slot, -returned.amount))]
        self.entries += [Entry(returned.scope, returned.resource, slot, booked) for slot, booked in changes if booked]

    def holds(self, worker: str, seats: dict[str, int]) -> None:
        """What `worker` says that it holds in seats, on joining again; it is believed."""
        for scope, book in self._seats.items():
            if worker in book.held and scope not in seats:
                self._hold(scope, worker, 0)
        for scope, amount in seats.items():
            self._hold(scope, worker, amount)

    def leave(self, worker: str) -> None:
        """`worker` is dead: its seats are free; what it had leased stays booked as spent."""
        for scope, book in self._seats.items():
            if worker in book.held:
                self._hold(scope, worker, 0)
        for extras in self._extras.values():
            extras.pop(worker, None)

    def workers(self) -> set[str]:
        """All who hold seats."""
        return {worker for book in self._seats.values() for worker in book.held}

    def used(self, scope: str, resource: int, now: float) -> int:
        """What is booked now."""
        if resource == SEATS:
            book = self._seats.get(scope)
            return 0 if book is None else book.total
        window = self._windows.get((scope, resource))
        if window is None:
            return 0
        window.advance(now)
        return window.used

    def restore(self, entry: Entry) -> None:
        """Replay an entry read from disk."""
        if entry.resource == SEATS:
            self._seats.setdefault(entry.scope, _Seats()).hold(entry.worker, entry.amount)
            return
        key = (entry.scope, entry.resource)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window(RESOURCES[entry.resource], 0)
        window.book(entry.slot, entry.amount)

    def dump(self, now: float) -> list[Entry]:
        """All that still counts, as entries; what no longer does is forgotten."""
        entries: list[Entry] = []
        for (scope, resource), window in list(self._windows.items()):
            window.advance(now)
            if not window.slots:
                del self._windows[scope, resource]
                self._extras.pop((scope, resource), None)
            entries.extend(Entry(scope, resource, slot, n) for slot, n in window.slots.items() if n)
        for scope, seats in list(self._seats.items()):
            if not seats.held:
                del self._seats[scope]
            entries.extend(Entry(scope, SEATS, 0, n, worker) for worker, n in seats.held.items())
        return entries

    def _refusal(self, index: int, want: Want, now: float) -> Refusal | None:
        if want.resource == SEATS:
            book = self._seats.get(want.scope)
            total = 0 if book is None else book.total
            if total + want.need <= want.limit:
                return None
            wait = 1.0 if want.need <= want.limit else float("inf")
            return Refusal(index, wait, max(0, want.limit - total), 1.0)
        window = self._windows.get((want.scope, want.resource))
        if window is None:
            window = self._windows[want.scope, want.resource] = Window(RESOURCES[want.resource], want.limit)
        window.limit = want.limit
        wait = window.wait(want.need, now)
        if wait == 0.0:
            return None
        return Refusal(index, wait, window.remaining, max(0.0, window.free_at(max(window.slots, default=0)) - now))

    def _lease(self, worker: str, want: Want, now: float) -> Lease:
        expires = now + RESOURCES[want.resource].lease_s
        if want.resource == SEATS:
            book = self._seats.setdefault(want.scope, _Seats())
            left = want.limit - book.total - want.need
            extra = self._extra(worker, want, left, now, expires)
            self._hold(want.scope, worker, book.held.get(worker, 0) + want.need + extra)
            return Lease(extra, 0, left - extra, 1.0)
        window = self._windows[want.scope, want.resource]
        slot = window.slot_at(now)
        extra = self._extra(worker, want, window.remaining - want.need, now, expires)
        booked = window.book(slot, want.need + extra)
        if booked:
            self.entries.append(Entry(want.scope, want.resource, slot, booked))
        return Lease(extra, slot, window.remaining, window.free_at(slot) - now)

    def _extra(self, worker: str, want: Want, left: int, now: float, expires: float) -> int:
        most = want.limit // LEASED_SHARE
        if most == 0:
            return 0
        out = self._extras.setdefault((want.scope, want.resource), {})
        for other in [w for w, (_, until) in out.items() if until <= now or w == worker]:
            del out[other]
        free = most - sum(amount for amount, _ in out.values())
        extra = max(0, min(-(-free // 2), left))  # half, so that the next worker has something too
        if extra:
            out[worker] = (extra, expires)
        return extra

    def _hold(self, scope: str, worker: str, amount: int) -> None:
        self._seats.setdefault(scope, _Seats()).hold(worker, amount)
        self.entries.append(Entry(scope, SEATS, 0, amount, worker))
