"""The terminal: what there is, help, one manner for shapes and JSON, and widths."""

import contextlib
import io
import json
import re
import shlex
import sys
import types

import pytest
from commands import refusal, write_models
from reports import layer, module, report
from rich.console import Console

from jaxinit import cli
from jaxinit._table import Column, Table, fold
from jaxinit.cli import main
from jaxinit.lab import command as lab
from jaxinit.lab._result.drift import Best
from jaxinit.lab._result.rates import RateRow
from jaxinit.signal import Finding

pytestmark = pytest.mark.usefixtures("quick_compiler")

COMMANDS = [command for group in cli._GROUPS.values() for command in group]
NAMES = [command.__name__.rpartition("._")[2] for command in COMMANDS]
WIDTHS = (60, 80, 120, 200)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]\d+)?")
MODELS = """
import flax.linen as nn

class Deep(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(11):
            x = x + nn.Dense(16, name=f"a_projection_with_a_long_name_{1024 + i}")(x)
            x = nn.relu(nn.Dense(16)(x))
        return nn.Dense(3)(x)
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    return write_models(MODELS, tmp_path, monkeypatch)


@pytest.fixture
def on_terminal(monkeypatch):
    """Makes the output that of a terminal of some width."""

    def make(width):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))

    return make


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# What there is.


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_jaxinit_alone_says_what_it_can_do(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with contextlib.suppress(SystemExit):
        assert main(words) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert not err and [x for x in lines if x in cli._GROUPS] == list(cli._GROUPS)
    assert [x.split()[0] for x in lines if re.match(r"  \w", x)] == NAMES
    examples = [x.strip()[2:] for x in lines if x.strip().startswith("$ ")]
    assert [shlex.split(x)[:2] for x in examples] == [["jaxinit", x] for x in NAMES]
    assert all(len(x) <= 60 for x in lines if "$" not in x)


@pytest.mark.parametrize("name", NAMES)
def test_help_has_groups_and_examples_that_are_right(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    options, _, examples = capsys.readouterr().out.partition("\nexamples:\n")
    assert end.value.code == 0
    assert re.findall(r"^(?!usage|options)[a-z ]+:$", options, re.M)
    assert all(len(line) <= 60 for line in options.splitlines()[1:])
    calls = re.findall(r"^  jaxinit (?:.*\\\n)*.*", examples, re.M)
    assert len(calls) >= 2
    for call in calls:
        _, *words = shlex.split(call.replace("\\\n", " "))
        assert cli._read(words).name == name


# Shapes and JSON.

SHAPES = ["16x64", "16,64", "16 64", ["16", "64"], ["16,", "64"], ["16", "x", "64"]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_shape_is_spelled_alike_everywhere(shape, models, capsys, monkeypatch):
    words = [shape] if isinstance(shape, str) else shape
    asked = []
    monkeypatch.setattr("jaxinit.cli._structure.structure", lambda m, x, **_: 1 / 0)
    monkeypatch.setattr(
        "jaxinit.cli._structure.explain",
        lambda options, settings, inputs, error: (
            asked.append(inputs) or cli.BadInput("so")
        ),
    )
    for call in ([f"{models}:Deep", "--input", *words], ["--input", *words]):
        refusal(["structure", *dict.fromkeys([*call, f"{models}:Deep"])], capsys)
    assert [x.shape for (x,) in asked] == [(16, 64)] * 2
    for call in (["ones", "--shape", *words], ["--shape", *words, "ones"]):
        assert main(["show", *call, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["shape"] == [16, 64]


def test_shapes_end_where_they_end(models):
    words = ["structure", "--input", "8", "128:int32", "a:b", "--input", "2", "3"]
    assert cli._read(words).inputs == [["8 128:int32"], ["2 3"]]
    words = ["show", "--shape", "2", "-3", "--seed", "1", "ones"]
    assert cli._read(["show", "ones", "--shape", "2", "-3"]).shape == [[2], [-3]]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_json(name, tmp_path):
    needed = {"check": ["--input", "2x3", "m:N"], "structure": ["m:N", "--input", "2"]}
    rest = {"show": ["he_normal()", "--shape", "2"]} | needed
    words = rest.get(name, [])
    assert cli._read([name, *words]).json is None
    assert cli._read([name, "--json", *words]).json == "-"
    file = tmp_path / "a.json"
    assert cli._read([name, *words, "--json", str(file)]).json == file
    with pytest.raises(SystemExit):
        cli._read([name, *words, "--json="])


@pytest.mark.parametrize("words", [["list"], ["show", "ones()", "--shape", "2"]])
def test_json_is_written_beside_the_table(words, tmp_path, capsys):
    file = tmp_path / "numbers.json"
    assert main([*words, "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(f"\nWritten to {file}\n") and "┘" in out and not err
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(file.read_text())
    assert "cannot write" in refusal([*words, "--json", str(tmp_path)], capsys)


# Widths.


def numbers_of(*texts):
    return {number for text in texts for number in NUMBER.findall(text)}


def holds(text, width, *cells):
    """Tells whether a text keeps to a width and has every number of some cells."""
    lines = plain(text).splitlines()
    assert max(map(len, lines)) <= width
    assert not numbers_of(*cells) - numbers_of(*lines)
    assert "…" not in text.replace(" … ", "")
    return lines


SICK = report(
    *(layer(f"Dense_{i}", 1.5e-5 * 0.9**i) for i in range(12)),
    module("a_block_of_many_layers_1024/inner_2048", 1e9),
    layer("a_block_of_many_layers_1024/inner_2048/Dense_10", 123.0, condition="dead"),
    findings=[Finding("dead", ("Dense_0",), "it is so: 0.123.", "use he_normal()")],
)
BEST = Best(-11.25, "inside", 3, 0.000123)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_is_cut(width, models, on_terminal, capsys, monkeypatch):
    on_terminal(width)
    monkeypatch.setattr("jaxinit.signal.check", lambda *_, **__: SICK)
    main(["check", f"{models}:Deep", "--input", "2x3", "--all"])
    table = SICK.table(all_layers=True, width=width).partition("\n\n")[0]
    holds(capsys.readouterr().out, width, table)

    main(["structure", f"{models}:Deep", "--input", "2x16"])
    lines = holds(capsys.readouterr().out, width, "1024 1034 16×3")
    row = re.compile(r"1034/kernel +16×16 +residual +16 → 16")
    assert any(map(row.search, lines)) or width == 60  # where the path is folded
    assert ("A wider table shows" in " ".join(lines)) == (width < 120)
    shown = " ".join(lines)
    assert shown.index("Dense_2/") < shown.index("Dense_10/")

    main(["list"])
    main(["list", "--json"])
    table, _, facts = capsys.readouterr().out.partition("\n[\n")
    texts = [x[k] for x in json.loads("[" + facts) for k in ("name", "law", "variance")]
    holds(table, width, *texts)

    spec = "variance_scaling(1.0, 'fan_in', 'normal')"
    main(["show", spec, "--shape", "1024", "3"])
    out = capsys.readouterr().out
    assert "[1024, 3]" in " ".join(holds(out, width, "1024 3072 0.03125"))


@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_of_a_transfer_is_cut(width):
    sweep = types.SimpleNamespace(varied="width")
    columns = lab.list_columns(types.SimpleNamespace(sweep=sweep))
    name = "completep(alpha=0.5, base_depth=1024)"
    rows = [RateRow(name, 2**i, BEST, 123456.0, 0.25) for i in range(12)]
    screen = Console(file=io.StringIO(), width=width, color_system=None)
    table = Table.of(columns, rows).fit(width)
    screen.print(table.show(width))
    cells = [cell for row in table.rows for cell in row]
    holds(screen.file.getvalue(), width, *cells)
    left_out = bool(table.notes)
    assert left_out == (width < 120)


def test_a_table_without_room_becomes_records():
    columns = [Column("name", left=True, wraps=True), Column("a long heading", str)]
    rows = [("layer_10/kernel_20", "1.25e-07"), ("b", "")]
    screen = Console(file=io.StringIO(), width=24, color_system=None)
    screen.print(Table(columns, rows).show(24))
    assert screen.file.getvalue().splitlines() == [
        *("name            layer_", "                10/", "                kernel_"),
        *(
            "                20",
            "a long heading  1.25e-07",
            "",
            "name            b",
            "",
        ),
    ]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 5, [""]),
        ("  Dense_10", 8, ["  Dense_", "10"]),
        ("normal(stddev=10000.0)", 16, ["normal(stddev=", "10000.0)"]),
        ("one two 3.25", 8, ["one two", "3.25"]),
        ("a" * 9, 5, ["a" * 9]),
    ],
)
def test_text_is_folded_between_numbers(text, width, lines):
    assert fold(text, width).splitlines() == (lines if text else [])
