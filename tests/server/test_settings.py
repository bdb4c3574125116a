"""Settings: one table, four sources and a profile; what cannot be is refused with what would pass."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellgate.cli import main
from cellgate.errors import LimitError, UsageError
from cellgate.sandbox.limits import Limits
from cellgate.sessions.limits import NO_MORE_THAN, ServerLimits, SessionLimits
from cellgate.settings import (
    CONFIG_VARIABLE,
    MAX_FILE_BYTES,
    PROFILES,
    SETTINGS,
    SourceKind,
    add_setting_flags,
    gather_settings,
    load_file,
    profiles_as_markdown,
    read_settings,
    readable,
)
from cellgate.wire.local import default_state_dir

TABLES = (Limits, SessionLimits, ServerLimits)
ROWS = [row for table in TABLES for row in table.rows()]
TOKEN = "0123456789abcdef"


def read(*, flags=None, environ=None, file=None):
    return read_settings(flags=flags or {}, environ=environ or {}, file=file or {}, file_name="my.toml")


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_setting_flags(parser)
    return parser.parse_args(words)


def test_without_a_word_every_setting_has_its_default():
    settings = read()
    assert (settings.sandbox, settings.session, settings.server) == (Limits(), SessionLimits(), ServerLimits())
    assert (settings.host, settings.token, settings.allowed_origins) == ("127.0.0.1", None, ())
    assert {source.kind for source in settings.sources.values()} == {SourceKind.DEFAULT}
    assert settings.values().keys() == settings.sources.keys() == SETTINGS.keys()


def test_a_flag_counts_before_the_environment_that_before_the_file_and_that_before_the_profile():
    sources = {"flags": {"pids": "21"}, "environ": {"CELLGATE_PIDS": "22"}, "file": {"pids": 23, "profile": "testing"}}
    for kind, pids, where in [
        ("flags", 21, "--pids"),
        ("environ", 22, "CELLGATE_PIDS"),
        ("file", 23, "my.toml"),
    ]:
        settings = read(**sources)
        assert (settings.sandbox.pids, settings.sources["pids"].where) == (pids, where)
        del sources[kind]
    settings = read(flags={"profile": "testing"})
    assert (settings.sandbox.pids, settings.sources["pids"].where) == (PROFILES["testing"]["pids"], "testing")


def test_what_does_not_count_must_make_sense_all_the_same():
    with pytest.raises(LimitError):
        read(flags={"pids": "64"}, environ={"CELLGATE_PIDS": "0"})


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_passes_its_own_limits(profile):
    settings = read(flags={"profile": profile})
    values = settings.values()
    assert values.items() >= (PROFILES[profile] | {"profile": profile}).items()
    assert all(values[inner] <= values[outer] for inner, outer in NO_MORE_THAN)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_limit_is_a_setting_by_flag_variable_and_file(row):
    number = row.minimum if not any(row.name == outer for _, outer in NO_MORE_THAN) else row.maximum
    number = row.default if any(row.name == inner for inner, _ in NO_MORE_THAN) and number == row.maximum else number
    args = parse(SETTINGS[row.name].flag, str(number))
    for settings in (
        gather_settings(args, {}, is_root=True),
        read(environ={SETTINGS[row.name].variable: str(number)}),
        read(file={row.name: number}),
    ):
        assert settings.values()[row.name] == number


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 2**80, True, "", "ten", "1e9", [], {}], ids=repr)
def test_what_is_no_limit_is_refused_and_its_source_named(row, value):
    with pytest.raises(LimitError) as refused:
        read(file={row.name: value})
    assert refused.value.name == f"{row.name} in my.toml"
    if isinstance(value, str) and value:
        with pytest.raises(LimitError) as refused:
            read(environ={SETTINGS[row.name].variable: value})
        assert refused.value.name == SETTINGS[row.name].variable


@pytest.mark.parametrize("text", ["512M", "512m", "512MB", "512MiB", str(512 << 20)])
def test_a_size_may_be_written_as_people_do(text):
    assert read(flags={"memory_bytes": text}).sandbox.memory_bytes == 512 << 20


@pytest.mark.parametrize(("inner", "outer"), NO_MORE_THAN)
def test_a_limit_above_the_one_it_lies_within_is_refused(inner, outer):
    values = read().values()
    row = next(row for row in ROWS if row.name == outer)
    assert values[inner] > row.minimum
    with pytest.raises(LimitError) as refused:
        read(file={outer: row.minimum})
    assert outer in str(refused.value)


def test_a_name_that_is_no_setting_is_refused_with_the_one_that_was_meant():
    with pytest.raises(UsageError, match="cell_seconds would pass"):
        read(file={"cell_second": 5})
    with pytest.raises(UsageError, match="cellgate settings"):
        read(file={"limits": {"pids": 5}})
    with pytest.raises(UsageError, match="CELLGATE_CELL_SECONDS would pass"):
        read(environ={"CELLGATE_CELL_SECOND": "5"})


def test_variables_of_others_and_empty_ones_say_nothing():
    others = {"CELLGATE_SANDBOX": "x", "CELLGATE_TEST_RUN": "x", CONFIG_VARIABLE: "x", "PIDS": "7", "CELLGATE_PIDS": ""}
    assert read(environ=others) == read()


REFUSED: dict[str, list] = {
    "profile": ["", "prod", 7],
    "driver": ["", "docker run", "fake"],
    "host": ["", "a b", "::1]", "x" * 300, 7, "\n"],
    "port": ["-1", "65536", "http", 1.5, True],
    "state_dir": ["", "relative", "/a\0b", 7],
    "token": ["", "short", "0123456789 abcdef", "ü" * 20, "x" * 513, 1234567890123456],
    "allowed_origins": ["*", "null", "https://a/b", "https://A", "javascript:x", ["x"], [7], ["https://a"] * 101, 7],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_makes_no_setting_is_refused(name, value):
    with pytest.raises(LimitError) as refused:
        read(file={name: value})
    assert "would pass" in str(refused.value)


def test_what_makes_a_setting_is_taken():
    file = {"host": "::1", "port": 0, "state_dir": "~/x", "token": TOKEN, "allowed_origins": ["https://a:8443"]}
    settings = read(file=file)
    assert (settings.host, settings.port, settings.token) == ("::1", 0, TOKEN)
    assert settings.state_dir == Path("~/x").expanduser()
    assert settings.allowed_origins == ("https://a:8443",)
    assert read(flags={"allowed_origins": "https://a, http://[::1]:80"}).allowed_origins == (
        "https://a",
        "http://[::1]:80",
    )


def test_a_token_is_never_shown():
    settings = read(environ={"CELLGATE_TOKEN": TOKEN})
    assert TOKEN not in repr(settings)
    assert settings.values()["token"] == "(set)"
    with pytest.raises(LimitError) as refused:
        read(environ={"CELLGATE_TOKEN": "geheim"})
    assert "geheim" not in str(refused.value)


def test_state_lives_where_the_server_may_read_it():
    assert default_state_dir({}, is_root=True) == Path("/var/lib/cellgate")
    assert default_state_dir({"XDG_STATE_HOME": "/s"}, is_root=False) == Path("/s/cellgate")
    assert default_state_dir({}, is_root=False) == Path("~/.local/state/cellgate").expanduser()


@pytest.mark.parametrize(
    "text", [b"= 5", b"\xff", b"a = 1\na = 2", b"x = " + b"[" * 100_000, b"#" * (MAX_FILE_BYTES + 1)]
)
def test_a_file_that_is_no_toml_is_refused(tmp_path, text):
    path = tmp_path / "my.toml"
    path.write_bytes(text)
    with pytest.raises(UsageError, match="would pass"):
        load_file(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            load_file(path)


def test_the_file_is_named_by_flag_or_variable(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('profile = "testing"\nmemory_bytes = "1G"\n')
    for args, environ in ((parse("--config", str(path)), {}), (parse(), {CONFIG_VARIABLE: str(path)})):
        settings = gather_settings(args, environ, is_root=False)
        assert (settings.profile, settings.sandbox.memory_bytes) == ("testing", 1 << 30)


def test_the_command_prints_each_setting_and_its_source(capsys, monkeypatch):
    monkeypatch.setenv("CELLGATE_PIDS", "77")
    monkeypatch.setenv("CELLGATE_TOKEN", TOKEN)
    assert main(["settings", "--cell-seconds", "60"]) == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line for line in shown.splitlines()}
    assert lines.keys() == {"SETTING", *SETTINGS}
    assert lines["pids"].endswith("CELLGATE_PIDS")
    assert lines["cell_seconds"].endswith("--cell-seconds")
    assert " 512MiB " in lines["memory_bytes"]
    assert TOKEN not in shown


def test_the_command_prints_one_object_for_programs(capsys):
    assert main(["settings", "--json", "--profile", "production"]) == 0
    settings = {row["name"]: row for row in json.loads(capsys.readouterr().out)["settings"]}
    assert settings.keys() == SETTINGS.keys()
    assert settings["profile"]["source"] == {"kind": "flag", "where": "--profile"}
    assert settings["cell_seconds"]["source"] == {"kind": "profile", "where": "production"}


def test_the_command_refuses_with_the_status_of_usage(capsys):
    assert main(["settings", "--pids", "none"]) == 2
    assert "--pids is 'none'" in capsys.readouterr().err


def test_every_setting_has_its_words():
    assert all(row.help and (row.unit or not isinstance(row.default, (int, float))) for row in SETTINGS.values())
    assert all(set(numbers) <= {row.name for row in ROWS} for numbers in PROFILES.values())
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({line.count("|") for line in profiles_as_markdown().splitlines()}) == 1


def test_times_are_shown_as_people_say_them():
    shown = [readable(seconds, "seconds") for seconds in (0.1, 5, 90.0, 120, 1800.0, 43200, 604800)]
    assert shown == ["0.1 s", "5 s", "90 s", "2 min", "30 min", "12 h", "7 d"]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything: st.SearchStrategy = scalars | st.lists(st.text()) | st.just({})


@given(st.dictionaries(st.sampled_from([*SETTINGS, "x"]), anything, max_size=4))
def test_any_file_gives_settings_or_an_error_and_no_third_result(file):
    try:
        settings = read(file=file)
    except (LimitError, UsageError) as error:
        assert str(error)
    else:
        assert settings.values().keys() == SETTINGS.keys()
