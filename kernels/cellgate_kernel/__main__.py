"""`python -m cellgate_kernel`: a kernel host in a process of its own, started cold. Links come by a descriptor
(`--birth-fd`), or, in a container, by connecting to a path (`--listen`)."""

from __future__ import annotations

import argparse
import os
import sys

from .life import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cellgate_kernel", description="A kernel behind a link.")
    links = parser.add_mutually_exclusive_group(required=True)
    links.add_argument("--birth-fd", type=int, help="descriptor of the socket on which links arrive")
    links.add_argument("--listen", metavar="PATH", help="be the program of a container; links are made by connecting")
    parser.add_argument("--template", default="python", help="what to have imported before the first link")
    parser.add_argument("--kernel", default="", help="run this kernelspec, whatever the link's setup says")
    arguments = parser.parse_args()
    if sys.path[:1] == [os.getcwd()]:  # `-m` put it there; user code finds its own working directory instead
        del sys.path[0]
    if arguments.listen:
        from .contained import main as begin

        begin(arguments.listen, arguments.template)
    run(arguments.birth_fd, kernel=arguments.kernel)


if __name__ == "__main__":
    main()
