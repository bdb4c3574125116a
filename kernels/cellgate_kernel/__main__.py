"""`python -m cellgate_kernel --birth-fd N`: a kernel host in a process of its own, started cold."""

from __future__ import annotations

import argparse
import os
import sys

from .host import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cellgate_kernel", description="A kernel behind a link.")
    parser.add_argument("--birth-fd", type=int, required=True, help="descriptor of the socket on which links arrive")
    parser.add_argument("--kernel", default="", help="run this kernelspec, whatever the link's setup says")
    arguments = parser.parse_args()
    if sys.path[:1] == [os.getcwd()]:  # `-m` put it there; user code finds its own working directory instead
        del sys.path[0]
    run(arguments.birth_fd, kernel=arguments.kernel)


if __name__ == "__main__":
    main()
