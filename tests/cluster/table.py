"""The manager's table over time: which row was active when. It is read from the manager's file, which is there while no manager is."""

import json
import threading
import time

from render import Failed, require

EVERY = 0.05


class Table:
    """Each change of each row, with the time at which it was seen."""

    def __init__(self, path):
        self.path, self.changes, self.now = path, [], {}
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def close(self):
        self.ended.set()
        self.thread.join()

    def watch(self):
        while not self.ended.wait(EVERY):
            try:
                rows = json.loads(self.path.read_text())["rows"]
            except (FileNotFoundError, json.JSONDecodeError):
                continue
            now = {(row["host_name"].split(".")[0], row["ip"]): row["state"] for row in rows}
            at = time.monotonic()
            with self.lock:
                for key in now | self.now:
                    if now.get(key) != self.now.get(key):
                        self.changes.append((at, key, now.get(key)))
                self.now = now

    def rows(self):
        with self.lock:
            return dict(self.now)

    def history(self):
        with self.lock:
            return list(self.changes)

    def state(self, key):
        return self.rows().get(key)

    def became(self, key, state, since):
        """When that row was first seen so, at that time or later; None if it was not."""
        if not self.history():
            return None
        for at, one, now in self.history():
            if one == key and now == state and at >= since:
                return at
        return None

    def wait(self, key, state, since, within):
        """When the row became that, no later than so long after `since`."""
        while (at := self.became(key, state, since)) is None:
            if time.monotonic() > since + within:
                raise Failed(f"{'/'.join(key)} did not become {state} within {within} s: {self.told(since)}")
            time.sleep(EVERY)
        require(at - since <= within, f"{'/'.join(key)} became {state} after {at - since:.1f} s, not within {within} s")
        return at

    def told(self, since):
        words = [f"{at - since:.2f} s {host}/{ip} {state}" for at, (host, ip), state in self.history() if at >= since - 0.5]
        rows = [f"{host}/{ip} {state}" for (host, ip), state in sorted(self.rows().items())]
        return f"changes: {'; '.join(words) or 'none'}; rows: {'; '.join(rows)}"

    def overlaps(self, until=None):
        """The longest time that each host had two active rows at once."""
        until = until or time.monotonic()
        states, begun, longest = {}, {}, {}
        for at, (host, ip), state in [*self.history(), (until, (None, None), None)]:
            states[host, ip] = state
            for each in {one for one, _ in states if one}:
                active = sum(1 for (one, _), now in states.items() if one == each and now == "active")
                if active > 1:
                    begun.setdefault(each, at)
                elif each in begun:
                    longest[each] = max(longest.get(each, 0), at - begun.pop(each))
        for each, at in begun.items():
            longest[each] = max(longest.get(each, 0), until - at)
        return longest

    def no_twins(self, bound=10):
        for host, seconds in self.overlaps().items():
            require(seconds <= bound, f"{host} had two active rows for {seconds:.1f} s")
