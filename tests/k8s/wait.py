"""Waiting for what others do."""

import time

from render import Failed, require


def eventually(what, question, within, every=0.1):
    """What the question answers once that is true, within so many seconds; a refusal is no answer yet."""
    until = time.monotonic() + within
    while True:
        refused = ""
        try:
            answer = question()
        except (Failed, OSError) as failed:
            answer, refused = None, f": {failed}"
        if answer:
            return answer
        require(time.monotonic() < until, f"not within {within} s: {what}{refused}")
        time.sleep(every)
