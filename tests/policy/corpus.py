"""What `standard` says of cells that people wrote, and whether it denies any that would run in a sandbox.

    python tests/policy/corpus.py [PACKAGE ...] [--keep DIRECTORY] [--show RULE]

Cells come from notebooks, from examples in documents (`>>>` and `.. code-block:: python`) and from docstrings: of
packages that are installed here, and of source distributions that are fetched by name. Prints how many, what was
denied, word by word, and the kinds of what was warned of. Not part of the suite: it fetches.
"""

from __future__ import annotations

import argparse
import ast
import doctest
import json
import os
import re
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from time import process_time
from urllib.parse import urljoin
from urllib.request import urlopen

from cellgate.policy.judge import judge
from cellgate.policy.policies import STANDARD, STRICT
from cellgate.policy.verdicts import Severity

PACKAGES = [
    *("ipython", "nbformat", "nbconvert", "nbclient", "nbsphinx", "ipywidgets", "bqplot", "papermill", "jupytext"),
    *(
        "pandas",
        "scikit-learn",
        "matplotlib",
        "seaborn",
        "networkx",
        "xarray",
        "statsmodels",
        "sympy",
        "bokeh",
        "altair",
    ),
    *(
        "altair",
        "requests",
        "beautifulsoup4",
        "astropy",
        "pymc",
        "holoviews",
        "dask",
        "folium",
        "plotly",
        "scikit-image",
    ),
]
MAX_FILE_BYTES = 4 << 20
MAX_CELLS_OF_A_PLACE = 1500  # so that one large library is not all there is
_BLOCK = re.compile(
    r"^( *)(?:\.\. (?:code-block|code|ipython)::? *(?:python|ipython)?3?|```\{?python\}?) *\n"
    r"((?:\n|\1 *.*\n)+)",
    re.M,
)


def cells_of_notebook(text: str) -> Iterator[str]:
    try:
        notebook = json.loads(text)
    except ValueError:
        return
    sheets = notebook.get("worksheets", [notebook]) if isinstance(notebook, dict) else []
    if '"language": "python"' not in text:
        return
    for cell in (cell for sheet in sheets for cell in sheet.get("cells", ())):
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", cell.get("input", ""))
            yield "".join(source) if isinstance(source, list) else str(source)


def cells_of_document(text: str) -> Iterator[str]:
    examples = doctest.DocTestParser()
    try:
        code = "".join(example.source for example in examples.get_examples(text))
    except ValueError:
        code = ""
    if code.strip():
        yield code
    for block in _BLOCK.finditer(text):
        body = dedent(block[2].partition("\n```")[0])
        lines = [line for line in body.splitlines() if not re.match(r":\w+:", line)]
        if not any(line.startswith((">>>", "In [")) for line in lines):
            yield "\n".join(lines).strip() + "\n"


def cells_of_module(text: str) -> Iterator[str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            documented = ast.get_docstring(node)
            if documented and ">>>" in documented:
                yield from cells_of_document(documented)


READERS = {".ipynb": cells_of_notebook, ".rst": cells_of_document, ".md": cells_of_document, ".py": cells_of_module}


def texts_below(directory: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(directory.rglob("*")):
        if path.suffix in READERS and path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
            yield path.name, path.read_text(errors="replace")


def texts_of_archive(path: Path) -> Iterator[tuple[str, str]]:
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if Path(name).suffix in READERS:
                    yield name, archive.read(name).decode(errors="replace")
        return
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() and Path(member.name).suffix in READERS else None
            if file is not None and member.size <= MAX_FILE_BYTES:
                yield member.name, file.read().decode(errors="replace")


def fetch(packages: list[str], directory: Path) -> None:
    """A source distribution of each, the last that the index lists which pip takes. Not by pip itself, which builds
    what it downloads. What cannot be had is left out, and said."""
    from pip._internal.models.index import PyPI

    index = os.environ.get("PIP_INDEX_URL", PyPI.simple_url)
    for package in packages:
        if list(directory.glob(f"{package}@*")):
            continue
        try:
            with urlopen(f"{index.rstrip('/')}/{package}/", timeout=60) as page:
                links = re.findall(r'href="([^"#]+\.(?:tar\.gz|zip))[#"]', page.read().decode())
            address = urljoin(page.url, links[-1])
            with (
                urlopen(address, timeout=300) as archive,
                (directory / f"{package}@{Path(address).name}").open("wb") as file,
            ):
                shutil.copyfileobj(archive, file)
        except (OSError, IndexError) as error:
            print(f"{package}: {error}", file=sys.stderr)


def gather(directory: Path) -> dict[str, list[str]]:
    """Cells by where they come from, each once."""
    seen: set[str] = set()
    found: dict[str, list[str]] = {}
    places = {path.name: path for path in sorted(directory.iterdir())}
    site = Path(sysconfig.get_path("purelib"))
    places.update({path.name: path for path in sorted(site.iterdir()) if path.is_dir() and "-info" not in path.name})
    for place, path in places.items():
        cells: list[str] = []
        try:
            for name, text in texts_below(path) if path.is_dir() else texts_of_archive(path):
                cells.extend(READERS[Path(name).suffix](text))
        except (tarfile.TarError, zipfile.BadZipFile, OSError):
            continue
        fresh = [cell for cell in dict.fromkeys(cells) if cell.strip() and cell not in seen]
        seen.update(fresh)
        found[place] = fresh[:MAX_CELLS_OF_A_PLACE]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="What `standard` says of cells that people wrote.")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", default=PACKAGES)
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="where archives are kept for the next time")
    parser.add_argument("--show", metavar="RULE", help="print every cell in which standard finds this rule")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = args.keep or Path(temporary)
        directory.mkdir(exist_ok=True)
        fetch(args.packages, directory)
        places = gather(directory)
    kinds: Counter[str] = Counter()
    denied: list[tuple[str, str, str]] = []
    total = 0
    begin = process_time()
    for place, cells in places.items():
        for cell in cells:
            verdict = judge(cell, "python", STANDARD)
            total += 1
            kinds.update({f"{finding.severity.value} {finding.rule}" for finding in verdict.findings})
            denied.extend(
                (place, finding.rule, cell) for finding in verdict.findings if finding.severity is Severity.DENY
            )
            if args.show in {finding.rule for finding in verdict.findings}:
                print(f"--- {place}\n{cell}\n" + "\n".join(finding.message for finding in verdict.findings))
    seconds = process_time() - begin
    allowed_by_strict = sum(judge(cell, "python", STRICT).allowed for cells in places.values() for cell in cells)
    used = sum(1 for cells in places.values() if cells)
    print(f"{total} cells of {used} places, {seconds / total * 1e3:.2f} ms of CPU each")
    print(f"strict would allow {allowed_by_strict}")
    for kind, count in kinds.most_common():
        print(f"  {count:6} {kind}")
    print(f"standard denies {len({cell for _, _, cell in denied})}")
    for place, rule, cell in denied:
        print(f"--- {place}: {rule}\n{cell[:500]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
