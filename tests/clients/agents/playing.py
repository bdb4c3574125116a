"""Plays the scenarios of a file, each with an executor of its own, and says which did not hold."""

import sys
import traceback

SCENARIOS = {}


def scenario(name):
    return lambda play: SCENARIOS.setdefault(name, play)


def play_all(give_executor):
    """`give_executor(play, url, token)` makes an executor for one scenario, plays it, and clears up."""
    url, token = sys.argv[1:]
    failed = []
    for name, play in SCENARIOS.items():
        try:
            give_executor(play, url, token)
        except Exception:
            failed.append(name)
            print(f"\n-- {name}\n{traceback.format_exc()}", file=sys.stderr)
    sys.exit(f"{len(failed)} of {len(SCENARIOS)} did not hold: {failed}" if failed else None)


def host_and_port(url):
    host, port = url.partition("://")[2].rsplit(":", 1)
    return host, int(port)


# A picture of one pixel, shown without a library that takes its time to be imported
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURE = f"from IPython.display import display\ndisplay({{'image/png': '{PIXEL}'}}, raw=True)"
