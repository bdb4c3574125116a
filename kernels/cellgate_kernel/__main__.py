"""`python -m cellgate_kernel --birth-fd N`: a kernel host in a process of its own, started cold."""

from __future__ import annotations

import argparse

from .host import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cellgate_kernel", description="A kernel behind a link.")
    parser.add_argument("--birth-fd", type=int, required=True, help="descriptor of the socket on which links arrive")
    run(parser.parse_args().birth_fd)


if __name__ == "__main__":
    main()
