"""Every option of every command × values that are wrong, and text that looks like code.

The options are those that the parser knows, so that a new one is swept, too. What takes
time is replaced: a value is refused in one line before it, or it is not refused.
"""

import argparse
import ast
import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxinit
from jaxinit import cli, lab
from jaxinit.cli import main
from jaxinit.cli._terminal import one_line, write_whole

pytestmark = pytest.mark.usefixtures("quick_compiler")

LONG = "9" * 5000  # more digits than Python reads
WRONG = {
    int: [
        "",
        " ",
        "two",
        "1.5",
        "1e3",
        "0x10",
        "nan",
        "-1",
        "²",
        "½",
        LONG,
        f"-{LONG}",
    ],
    float: ["", " ", "x", "1,5", "nan", "inf", "-inf", "-1", "1e400", LONG],
    None: ["", "\0", "\udcff", "x" * 5000],
}
ODD = {  # may be right for some option
    int: ["0", "9" * 30],
    float: ["0", "1e-320", "9" * 300],
    None: [
        *("0", "-1", "nan", "None", "/proc/nowhere", "full", "file", "file/x", "a\nb"),
        *(
            "[/bold]",
            "[red]",
            ":bomb:",
            "ünï²",
            "💥",
            "a=b",
            "=",
            "()",
            "(",
            ": ;",
            "1x",
        ),
    ],
}
OF_MEASURING = {"--json", "--seeds", "--limit", "--steps"}  # refused when it measures
MEASURES = ("check", "structure")


class Accepted(BaseException):
    """What takes time would begin now."""


def accept(*_, **__):
    raise Accepted


COMMANDS = (cli._check, cli._compare, cli._list, cli._recommend, cli._show)
COMMANDS += (cli._structure,)


def options():
    """Yields each command and each of its options that takes a value."""
    commands = cli.Parser().add_subparsers()
    for command in COMMANDS:
        command.add(commands)
    for name, command in commands.choices.items():
        if command.fill is not None:
            command.fill(command)
        for action in command._actions:
            if action.nargs != 0:
                flag = (action.option_strings or [""])[-1]
                yield pytest.param(name, flag, action, id=f"{name} {flag}".strip())


@pytest.fixture(scope="module")
def place(arrays, tmp_path_factory):
    """A directory with data, a model, a file, and a directory that has a file."""
    path = tmp_path_factory.mktemp("place")
    np.savez(path / "data.npz", x=arrays[0], y=arrays[1])
    own = "pair = (lambda k: {}, lambda p, x: x)\n"
    own += "w = __import__('jax').numpy.ones((3, 2))\n"
    own += "linear = (lambda k: {'w': w}, lambda p, x: x @ p['w'])\n"
    (path / "own_of_options.py").write_text(own)
    (path / "file").write_text("kept")
    (path / "full").mkdir()
    (path / "full" / "file").write_text("kept")
    return path


TINY = ["--depth", "2", "--width", "4", "--seeds", "1", "--steps", "2", "--lr", "0.01"]
TINY += ["--batch-size", "8", "--init", "zeros()", "--data", "data.npz"]
RIGHT = {
    "check": ["check", "own_of_options:pair", "--input", "2x3"],
    "compare": ["compare", *TINY, "--out", "new"],
    "list": ["list"],
    "recommend": ["recommend", "relu"],
    "show": ["show", "zeros()", "--shape", "2"],
    "structure": ["structure", "own_of_options:linear", "--input", "2x3"],
}


def words_with(name, flag, action, value):
    words = list(RIGHT[name])
    if not flag:
        words[1] = value
        return words
    if flag in words and not isinstance(action, argparse._AppendAction):
        at = words.index(flag)
        del words[at : at + 2]
    count = action.nargs if isinstance(action.nargs, int) else 1
    if count == 2 and action.dest == "log":
        return [*words, flag, "tensorboard", value]
    return (
        [*words, f"{flag}={value}"] if count == 1 else [*words, flag, *[value] * count]
    )


def outcome(words, capsys):
    """Returns whether words are refused, and what was said."""
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    except Accepted:
        code = None
    out, err = capsys.readouterr()
    if code == 2:
        assert err.count("\n") == 1 and len(err) <= 1001 and err.startswith("jaxinit")
        assert out == "" and "Traceback" not in err
    else:
        assert code in (0, None)
    return code == 2, err


def tree(path):
    """Returns what is in a directory, the cache of modules aside."""
    files = [f for f in path.rglob("*") if "__pycache__" not in f.parts]
    return {f: f.read_bytes() if f.is_file() else None for f in files}


@pytest.fixture
def quick(place, monkeypatch):
    """Lets nothing begin that takes time."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.path", [str(place), *sys.path])
    monkeypatch.setattr("jaxinit.lab.training.train", accept)
    monkeypatch.setattr("jaxinit.signal.check", accept)
    monkeypatch.setattr("jaxinit.cli._structure.structure", accept)
    monkeypatch.setattr("jaxinit.cli._json.write", accept)
    monkeypatch.setattr("jaxinit._panels.histogram_and_heatmap", accept)


FEW, ALL = 3, None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("most", [FEW, pytest.param(ALL, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "flag", "action"), list(options()))
def test_wrong_values(name, flag, action, most, place, capsys):
    kind = action.type if action.type in (int, float) else None
    before = tree(place)
    for value in WRONG[kind][:most] + ODD[kind][: 0 if most else None]:
        refused, said = outcome(words_with(name, flag, action, value), capsys)
        if not refused:
            measured = name in MEASURES and flag in OF_MEASURING
            assert value not in WRONG[kind] or measured, value
            for path in sorted(set(tree(place)) - set(before), reverse=True):
                path.rmdir()
        assert tree(place) == before, (value, said)


def test_the_sweep_has_every_option():
    names = {(param.values[0], param.values[1]) for param in options()}
    for name, flag in (("compare", "--out"), ("show", "--shape"), ("show", "")):
        assert (name, flag) in names
    assert len(names) > 35


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["comapre"], "'transfer'). Did you mean 'compare'?"),
        (["compare", "--sedes", "3"], "arguments: --sedes 3. Did you mean '--seeds'"),
        (["compare", "--sedes=3"], "arguments: --sedes=3. Did you mean '--seeds'"),
        (["compare", "--format", "jsn"], "Did you mean 'json'?"),
        (["list", "all"], "jaxinit list: unrecognized arguments: all."),
        (["--frobnicate"], "jaxinit: unrecognized arguments: --frobnicate."),
        (["--json", "list"], "behind the command: jaxinit list --json."),
        (["list", "--json", ""], "argument --json: '' is no path: it is empty."),
        (["show", "\udcff", "--shape", "2"], "jaxinit: the arguments must be UTF-8."),
        (["show", "normal()", "--shape", "2", "--plot", "a.svg"], "must end in .png."),
        (["show", "normal()", "--shape", "2", "--plot", "full"], "must end in .png."),
        (["show", "normal()", "--shape", "2", "--plot", "d.png"], "Is a directory."),
        (["show", "zeros()", "--shape", *["1"] * 33], "on 32 axes or fewer."),
        (["show", "zeros()", "--shape", "0", "9" * 30], "at most 268435456 entries"),
        (["compare", "--out", ""], "argument --out: '' is no path: it is empty."),
        (["compare", "--out", "x" * 999], "is no path: File name too long."),
        (["compare", "--target-loss=-1"], "target_loss must be 0 or above."),
        (["compare", "--init", "a\nb"], "parse('a\\nb')"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_words_that_are_refused(words, said, place, capsys):
    (place / "d.png").mkdir(exist_ok=True)
    refused, line = outcome(words, capsys)
    assert refused and said in line


def test_a_line_is_one_line():
    assert one_line("a\nb\x1b[2J\udcffü💥") == r"a\nb\x1b[2J\udcffü💥"
    assert len(one_line("x" * 9999)) == 1000


def test_show_draws_in_the_dtype_that_it_is_asked_for(capsys):
    words = ["show", "normal()", "--shape", "4", "--dtype", "float64"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "normal() [4] float64, seed 0" in out and not err
    assert not jax.config.jax_enable_x64


def test_a_file_is_written_as_a_whole(tmp_path):
    file = tmp_path / "w.png"
    write_whole(file, b"new")
    assert tree(tmp_path) == {file: b"new"}
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(cli.BadInput, match="cannot write .*dir.png: Is a directory"):
        write_whole(tmp_path / "dir.png", b"new")
    assert set(tree(tmp_path)) == {file, tmp_path / "dir.png"}


# Text is text.


NAMES = ["[/bold].npz", "**/[a-z]ernel", "[red]x[/red]", ":bomb:", "[link=a]", "\\[b]"]


@pytest.fixture(scope="module")
def result(task):
    given = {"depth": 2, "width": 4, "seeds": 1, "steps": 2, "batch_size": 8}
    given |= {"learning_rates": (0.01,), "chunk": 1}  # the programs of test_cli
    return lab.compare(["zeros()"], data=task, **given)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("quick")
def test_names_are_printed_as_they_are(name, result, capsys, monkeypatch):
    spec = dataclasses.make_dataclass("Spec", [], repr=False)
    spec.__repr__ = lambda self: name
    settings = dataclasses.replace(result.settings)
    object.__setattr__(settings, "initializers", (spec(),))
    named = dataclasses.replace(
        result, task=result.task._replace(name=name), settings=settings
    )
    monkeypatch.setattr("jaxinit.lab.training.train", lambda *_, **__: named)
    assert main(["compare", *TINY]) == 0
    out = capsys.readouterr().out
    assert f"{name}; 2 dense layers" in out and f"│ {name} " in out


@pytest.mark.parametrize("name", NAMES)
def test_names_are_listed_as_they_are(name, capsys, monkeypatch):
    entry = dict.fromkeys(("name", "summary", "law", "variance", "reference"), name)
    monkeypatch.setattr("jaxinit.cli._list.describe", lambda _: entry)
    assert main(["list"]) == 0
    assert capsys.readouterr().out.count(f" {name} ") > 5


def test_show_prints_specs_as_they_are(capsys, monkeypatch):
    monkeypatch.setattr("jaxinit.Initializer.__repr__", lambda _: "[/b] :bomb:")
    assert main(["show", "zeros()", "--shape", "2"]) == 0
    assert "[/b] :bomb: [2] float32, seed 0" in capsys.readouterr().out


def test_a_spec_may_begin_with_a_minus(capsys):
    assert main(["show", "-(zeros() + 2)", "--shape", "2"]) == 0
    assert "-(zeros() + 2) [2] float32" in capsys.readouterr().out


def test_no_console_reads_markup():
    """Rich reads markup and names of emoji wherever it is not told not to."""
    consoles = []
    for file in Path(jaxinit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Console":
                consoles.append(
                    {word.arg: ast.unparse(word.value) for word in node.keywords}
                )
    assert len(consoles) >= 2
    for given in consoles:
        assert given["markup"] == given["emoji"] == "False"
