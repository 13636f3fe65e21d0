"""The command line: what it prints, what it writes, and how it says no."""

import dataclasses
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from catalogue import OWN
from commands import refusal, write_models
from marks import slow_but
from processes import DEVICES, python

import jaxinit
from jaxinit.cli import main
from jaxinit.cli._purposes import PURPOSES, group
from jaxinit.signal import Finding, Layer, SignalReport

pytestmark = pytest.mark.usefixtures("quick_compiler")

TINY = ["--depth", "2", "--width", "4", "--seeds", "1", "--steps", "2", "--lr", "0.01"]
TINY += ["--chunk", "1"]  # so that one program trains one initializer, or two
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of two classes, and the words of a run that takes a second on it."""
    path = tmp_path_factory.mktemp("data") / "data.npz"
    y = np.arange(40) % 2
    np.savez(path, x=np.random.default_rng(0).normal(size=(40, 3)) + y[:, None], y=y)
    return str(path)


@pytest.fixture
def compare(data):
    return ["compare", "--data", data, "--batch-size", "8", *TINY]


def only_json(text):
    """Reads JSON, refusing the words NaN and Infinity, which JSON lacks."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def table_of(text):
    """Reads a table of rich: heads, and cells by row, lines of one cell joined."""
    rows, heads, current = [], [], None
    for line in text.splitlines():
        if line[:1] in ("┏", "┡", "├"):
            current = None
        elif line[:1] in ("┃", "│"):
            parts = [part.strip() for part in line[1:-1].split(line[0])]
            into = heads if line[0] == "┃" else rows
            if current is None or parts[0] and line[0] == "│":
                current = parts
                into.append(current)
            else:
                current[:] = [
                    f"{a} {b}".strip() for a, b in zip(current, parts, strict=True)
                ]
    return (heads[0] if heads else []), rows


# compare


def test_compare_prints_a_table_with_a_row_for_each_initializer(compare, capsys):
    words = ["--init", "he_normal()", "--init", "normal(0.5)", "--target-loss", "0.7"]
    assert main([*compare, *words]) == 0
    out, err = capsys.readouterr()
    heads, rows = table_of(out)
    assert heads == [
        *("initializer", "learning rate", "signal last/first", "gradient first/last"),
        *("steps to loss 0.7", "training loss", "test accuracy, % [95 %]"),
        *("test against best", "decades that train", "diverged"),
    ]
    assert {row[0] for row in rows} == {"he_normal()", "normal(stddev=0.5)"}
    for row in rows:
        assert row[1] == "0.01" and row[-1] == "0 %"
        assert re.fullmatch(r"\d+\.\d", row[6])  # one seed: no interval
        assert 0 < float(row[5]) < 10
    assert "data.npz; 2 dense layers of width 4, relu; adam, batch 8, 2 steps" in out
    assert "Computed in" in out and "Add --out DIR for plots" in out
    assert "Traceback" not in err and not err.strip()


@pytest.mark.slow
def test_compare_writes_files_and_prints_only_json(compare, capsys, tmp_path):
    directory = tmp_path / "new" / "run"
    given = [*compare, "--init", "zeros()", "--json", "--out", str(directory)]
    assert main(given) == 0
    out, err = capsys.readouterr()
    found = only_json(out)
    assert found["table"][0]["initializer"] == "zeros()"
    assert found["settings"]["learning_rates"] == [0.01]
    assert found["interrupted"] is False
    assert found == only_json((directory / "results.json").read_text())
    assert f"Written to {directory}: results.json, loss.png" in err
    assert (directory / "loss.png").read_bytes().startswith(PNG)
    page = (directory / "index.html").read_text()
    assert "--init &#39;zeros()&#39; --json" in page


@pytest.mark.slow
def test_compare_says_where_it_wrote(compare, capsys, tmp_path):
    assert main([*compare, "--init", "zeros()", "--out", str(tmp_path)]) == 0
    out, _ = capsys.readouterr()
    plots = ("loss", "signals", "gradients", "updates", "weights", "heatmaps")
    names = ", ".join(f"{name}.png" for name in (*plots, "biases", "bias_maps"))
    assert f"Written to {tmp_path}: results.json, {names}, index.html" in out
    assert "Add --out" not in out


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["--init", "he_norml()"],
            "no initializer 'he_norml'. Did you mean 'he_normal'",
        ),
        (["--init", "he_normal("], "malformed"),
        (["--init", "he_normal(gain=open('x'))"], "there is no initializer 'open'"),
        (["--init", "1 + 1"], "a spec is a call"),
        (["--init", "normal(stddev=-1)"], "stddev must be 0 or above"),
        (["--init", ""], "malformed"),
        (["--init", "delta_orthogonal()"], "needs a kernel of 3, 4 or 5 axes"),
        (["--seeds", "0"], "compare(seeds=0): seeds must be 1 or above."),
        (["--depth", "1"], "compare(depth=1)"),
        (["--batch-size", "41"], "training rows only."),
        (["--lr", "0"], "learning rates must be above 0."),
        (["--lr", "nan"], "compare(learning_rates=nan)"),
        (["--lr", "0.01"], "learning_rates has one twice."),
        (["--activation", "rellu"], "Did you mean 'relu'"),
        (["--norm", "group"], "norm must be one of 'none', 'layer', 'batch', 'post'."),
        (["--optimizer", "adan"], "Did you mean 'adam'"),
        (["--depth", "two"], "argument --depth: invalid int value: 'two'"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["--data", "/nowhere/data.npz"], "cannot read the file: No such file"),
    ],
)
def test_compare_refuses_bad_settings_in_one_line(compare, capsys, words, said):
    assert said in refusal([*compare, *words], capsys)


GOOD = np.arange(60.0).reshape(20, 3)
HALVES = np.arange(20) % 2


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"x": GOOD[:, 0], "y": HALVES}, "x must be [rows, features]"),
        ({"x": GOOD, "y": HALVES[1:]}, "an entry for each of the 20 rows"),
        ({"x": GOOD, "z": HALVES}, "the file lacks y; it has x, z."),
        (
            {"x": np.where(GOOD < 1, np.nan, GOOD), "y": HALVES},
            "x has NaN or infinite entries",
        ),
        ({"x": GOOD, "y": np.array([None, 1] * 10)}, "refused: the file is pickled"),
    ],
    ids=["shape of x", "shape of y", "no y", "NaN", "pickled"],
)
def test_compare_refuses_bad_data_in_one_line(capsys, tmp_path, arrays, said):
    np.savez(tmp_path / "bad.npz", **arrays)
    line = refusal(["compare", "--data", str(tmp_path / "bad.npz")], capsys)
    assert said in line and "compare(data=" in line


def test_compare_refuses_a_file_of_another_kind_in_one_line(capsys, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not an archive")
    assert "compare(data=" in refusal(["compare", "--data", str(path)], capsys)


def test_compare_refuses_a_directory_that_cannot_be_before_training(compare, capsys):
    line = refusal([*compare, "--out", f"{__file__}/run"], capsys)
    assert f"cannot write to {__file__}/run: Not a directory." in line


@pytest.mark.parametrize("words", [["frobnicate"], ["show"], ["show", "zeros()"]])
def test_incomplete_commands_are_refused_in_one_line(capsys, words):
    refusal(words, capsys)


def wait_for(text, descriptor, seconds):
    """Reads from a descriptor until a text has come by; returns all that came."""
    found, end = b"", time.monotonic() + seconds
    while text not in found:
        ready, _, _ = select.select([descriptor], [], [], end - time.monotonic())
        assert ready, f"no {text!r} within {seconds} s, but {found!r}"
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # how Linux says that the other end of a terminal is closed
            piece = b""
        assert piece, f"no {text!r}, but {found!r}"
        found += piece
    return found


@pytest.mark.slow
def test_an_interrupted_run_keeps_its_results(compare, tmp_path):
    words = [*compare, "--init", "zeros()", "--out", str(tmp_path)]
    words[words.index("--steps") + 1] = "100000"
    # A terminal, because the bar, which tells when training has begun, needs one.
    ours, theirs = pty.openpty()
    process = python(
        *["-m", "jaxinit", *words],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | DEVICES | {"TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(theirs)
    try:
        wait_for(b"training", ours, 90)
        process.send_signal(signal.SIGINT)
        wait_for("stopping after this block…".encode(), ours, 5)
        said = wait_for(f"is in {tmp_path}".encode(), ours, 60)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"interrupted after" in said and b"Traceback" not in said
    found = only_json((tmp_path / "results.json").read_text())
    assert found["interrupted"] is True
    assert 0 < found["steps_done"] < 100000
    assert found["steps_done"] == found["block_end_steps"][-1]
    assert "Interrupted: " in (tmp_path / "index.html").read_text()


def test_an_interrupt_before_there_is_a_result_is_said(monkeypatch, compare, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxinit.lab._train.grid.Grid.__init__", interrupt)
    assert main(compare) == 130
    assert "interrupted before there was a result." in capsys.readouterr().err


# list


OURS = sorted(OWN)


def test_list_describes_every_builder(capsys):
    assert main(["list", "--json"]) == 0
    found = {entry["name"]: entry for entry in only_json(capsys.readouterr().out)}
    assert len(OURS) > 15 and set(OURS) <= set(found)
    for name in OURS:
        assert list(found[name]) == [
            *("name", "purpose", "summary", "law", "variance", "reference")
        ]
        empty = [key for key, text in found[name].items() if not text.strip()]
        assert not empty, f"{name} lacks {empty}"
        assert re.search(r"\b(19|20)\d\d\b", found[name]["reference"]), name


def test_list_prints_a_table_with_a_row_for_each_builder(capsys):
    assert main(["list"]) == 0
    heads, rows = table_of(capsys.readouterr().out)
    assert heads == ["name", "summary", "law", "variance", "reference"]
    assert set(OURS) <= {row[0] for row in rows}


def test_list_groups_the_builders_by_purpose(capsys):
    groups = group(OURS)
    assert list(groups) == [purpose.title for purpose in PURPOSES]  # none is "Your own"
    assert sorted(sum(groups.values(), [])) == OURS
    named = [name for purpose in PURPOSES for name in purpose.names.split()]
    assert len(set(named)) == len(named)
    assert not [name for name in named if name[-1] != "." and name not in OURS]
    assert group(["mine", "ones"]) == {
        PURPOSES[0].title: ["ones"],
        "Your own": ["mine"],
    }
    assert main(["list", "--json"]) == 0
    found = {x["name"]: x["purpose"] for x in only_json(capsys.readouterr().out)}
    assert all(found[name] == title for title in groups for name in groups[title])
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line in groups] == list(groups)


@pytest.mark.parametrize("words", slow_but([["list"]], [["list"], ["list", "--json"]]))
@pytest.mark.slow
def test_a_reader_that_stops_early_sees_no_traceback(words):
    run = [sys.executable, "-m", "jaxinit", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(run, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


# show


@pytest.mark.parametrize("words", ["8 4", "8x4", "8,4"])
def test_show_reads_a_shape_in_every_usual_form(capsys, words):
    assert main(["show", "he_normal()", "--json", "--shape", *words.split()]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [8, 4]


@pytest.mark.parametrize(
    "spec, shape, dtype",
    [
        ("he_normal()", (64, 32), None),
        ("sparse(0.5)", (10, 20), "bfloat16"),
        ("constant(3)", (2, 3), "int32"),
        ("normal(0.5)", (30, 7), "complex64"),
        ("zeros", (0, 4), None),
    ],
)
def test_show_agrees_with_numpy_on_the_weight(capsys, spec, shape, dtype):
    words = ["show", spec, "--seed", "3", "--json", "--shape", *map(str, shape)]
    assert main(words + (["--dtype", dtype] if dtype else [])) == 0
    found = only_json(capsys.readouterr().out)
    init = jaxinit.parse(spec)
    weight = np.asarray(init(jax.random.key(3), shape, dtype))
    wide = weight.astype(complex if dtype == "complex64" else np.float64)
    size = np.abs(wide) if dtype == "complex64" else wide
    moments = init.moments(shape)
    assert found["spec"] == repr(init) and found["shape"] == list(shape)
    assert found["mean by law"] == moments.mean
    assert found["standard deviation by law"] == pytest.approx(moments.variance**0.5)
    assert found["entries"] == weight.size
    assert found["zeros"] == np.count_nonzero(wide == 0)
    assert found["distinct values"] == len(set(wide.ravel().tolist()))
    names = ("mean", "standard deviation", "smallest", "largest")
    if not weight.size:
        assert [found[name] for name in names] == [None] * 4
        return
    values = wide.mean().real, wide.std(), size.min(), size.max()
    for name, value in zip(names, values, strict=True):
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-8), name


def test_show_refuses_a_weight_that_overflows_its_dtype(capsys):
    words = ["show", "constant(1e6)", "--shape", "2", "--dtype", "float16", "--json"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "float16" in err


def test_show_prints_a_table_and_writes_a_plot(capsys, tmp_path):
    plot = tmp_path / "weight.png"
    words = ["show", "he_normal()", "--shape", "8", "4", "--plot", str(plot)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "he_normal() [8, 4] float32, seed 0" in out and not err
    _, rows = table_of(out)
    assert ["entries", "32"] in rows
    assert ["standard deviation by law", "0.5"] in rows
    assert plot.read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    "words, said",
    [
        (["he_norml()", "--shape", "2", "3"], "Did you mean 'he_normal'"),
        (["he_normal(", "--shape", "2", "3"], "malformed"),
        (["he_normal()", "--shape", "5"], "needs two axes"),
        (["he_normal()", "--shape", "2", "x"], "invalid int value: 'x'"),
        (["he_normal()", "--shape", "2x"], "invalid int value: '2x'"),
        (["zeros()", "--shape", "2", "-3"], "sizes must be 0 or above."),
        (["zeros()", "--shape", "2", "--dtype", "float33"], "must be a number type"),
        (["normal()", "--shape", "2", "--dtype", "int8"], "a float or complex dtype"),
        (
            ["normal()", "--shape", "2", "--seed", str(2**32)],
            "--seed must lie",
        ),
        (["normal()", "--shape", "2", "--seed", "-1"], "--seed must lie between 0"),
        (["normal()", "--shape", "100000", "100000"], "a shape of at most 268435456"),
        (
            ["normal()", "--shape", "2", "--plot", f"{__file__}/w.png"],
            "Not a directory",
        ),
        (["normal()", "--shape", "0", "--plot", "w.png"], "needs a real weight"),
        (
            ["normal()", "--shape", "2", "--dtype", "complex64", "--plot", "w.png"],
            "a plot needs a real weight with entries.",
        ),
    ],
)
def test_show_refuses_bad_input_in_one_line(capsys, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    assert said in refusal(["show", *words], capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "word",
    [*("64x", "x64", "64,", "64xx32", "", " ", "x", "1e3", "64.0", "64X32", "64 × 32")]
    + ["64×32", "(64,32)", "64;32", "None", "64x" + 5000 * "3"],
)
def test_show_says_how_a_shape_is_spelled(capsys, word):
    said = refusal(["show", "he_normal()", "--shape", word], capsys)
    assert f"argument --shape: invalid int value: {word[:40]!r}"[:-1] in said
    assert "sizes of 0 or above with x between them, such as 512x256." in said
    assert len(said) < 220


# check

MODELS = """
import jax
from flax import linen as nn, nnx
from jax.numpy import tanh

class Net(nn.Module):
    width: int
    kernel: object = None
    name_of: str = ""
    @nn.compact
    def __call__(self, x, y=None, train=True):
        return nn.Dense(self.width)(x)

class Live(nnx.Module):
    def __init__(self, width=2, *, rngs):
        self.dense = nnx.Linear(3, width, rngs=rngs)
    def __call__(self, x):
        return self.dense(x)

def factory(r):
    return Live(rngs=r)

def build(width=4):
    return Net(width)

def broken():
    raise RuntimeError("\\n  first line\\nsecond line")

built = Net(3)
pair = (
    lambda key: {"w": jax.random.normal(key, (3, 3))},
    lambda params, x: tanh(x @ params["w"]),
)
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A directory with a module of models, whose name no other test has."""
    name = write_models(MODELS, tmp_path, monkeypatch)
    (tmp_path / f"{name}_failing.py").write_text("import torchvision_of_nowhere")
    (tmp_path / f"{name}_leaving.py").write_text("raise SystemExit('bye')")
    return name


def report_of(condition):
    """A report of one layer, healthy or not."""
    side = {"std": np.array([1.0, 2.0]), "sample": np.ones((2, 4)) * [1, 2, 3, 4]}
    side |= {"distance": np.array([0.5, 0.5])}
    one = Layer("a", "dense", (2, 3), 3, None, side, side, {}, condition)
    wrong = Finding(condition, ("a",), "it is so.", "use he_normal()")
    findings = () if condition == "healthy" else (wrong,)
    return SignalReport((one,), findings, 2, {}, np.zeros(2), 100.0)


@pytest.fixture
def asked(monkeypatch):
    """Takes the place of `jaxinit.signal.check`; keeps what it was asked for."""
    calls = []

    def fake(model, x, **given):
        calls.append({"model": model, "x": x, **given})
        return report_of(fake.condition)

    fake.condition, fake.calls = "healthy", calls
    monkeypatch.setattr("jaxinit.signal.check", fake)
    return fake


@pytest.mark.parametrize("condition, code", [("healthy", 0), ("vanishing", 1)])
def test_check_prints_a_report_and_its_code_is_the_health(
    models, asked, capsys, condition, code
):
    asked.condition = condition
    assert main(["check", f"{models}:pair", "--input", "2x3"]) == code
    out, err = capsys.readouterr()
    assert out == report_of(condition).table() + "\n" and not err


def test_check_passes_its_options_on(models, asked):
    words = ["--input", "4x3", "--input", "2:int8", "--vocabulary", "7"]
    words += ["--set", "width=5", "--set", "kernel=he_normal(gain=2.0)"]
    words += ["--set", "name_of=he_normal", "--call", "train=False", "--limit", "9"]
    assert main(["check", f"{models}:Net", *words, "--seeds", "3", "--seed", "1"]) == 0
    (call,) = asked.calls
    assert call["model"].width == 5 and call["model"].name_of == "he_normal"
    assert call["model"].kernel == jaxinit.he_normal(gain=2.0)
    numbers, tokens = call["x"]
    assert numbers.shape == (4, 3) and numbers.dtype == np.float32
    assert tokens.shape == (2,) and tokens.dtype == np.int8
    assert call["seeds"] == 3 and call["limit"] == 9.0
    assert call["arguments"] == {"train": False}
    assert set(call) == {"model", "x", "key", "seeds", "arguments", "limit"}
    noise, key = jax.random.split(jax.random.key(1))
    assert call["key"] == key


@pytest.mark.parametrize(
    "words, holds",
    [
        (["50x20"], lambda x: abs(x.mean()) < 0.2 and abs(x.std() - 1) < 0.1),
        (["9:bfloat16"], lambda x: x.dtype == "bfloat16"),
        (["9:complex64"], lambda x: abs(x.imag).max() > 0),
        (["99:bool"], lambda x: 20 < x.sum() < 80),
        (
            ["99", "--dtype", "uint8", "--vocabulary", "3"],
            lambda x: x.dtype == np.uint8 and set(x.tolist()) == {0, 1, 2},
        ),
    ],
)
def test_check_draws_inputs(models, asked, words, holds):
    assert main(["check", f"{models}:pair", "--input", *words]) == 0
    ((x,),) = [call["x"] for call in asked.calls]
    assert holds(np.asarray(x))


@pytest.mark.parametrize(
    "name, words, kind",
    [
        ("Net", ["--set", "width=3"], "Net"),
        ("built", [], "Net"),
        ("build", [], "Net"),
        ("build", ["--set", "width=7"], "Net"),
        ("pair", [], "tuple"),
        ("Live", [], "Live"),
        ("Live", ["--set", "width=7"], "Live"),
        ("factory", [], "Live"),
    ],
)
def test_check_takes_every_kind_of_model(models, asked, name, words, kind):
    from flax import nnx

    assert main(["check", f"{models}:{name}", "--input", "2x3", *words]) == 0
    found = asked.calls[0]["model"]
    if kind == "Live":
        found = found(nnx.Rngs(0))
        assert found.dense.out_features == (7 if words else 2)
    elif kind == "Net":
        width = {"built": 3, "build": 7 if words else 4, "Net": 3}[name]
        assert found.width == width
    assert type(found).__name__ == kind


def test_check_runs_the_real_thing(models, capsys):
    words = ["--input", "4x3", "--seeds", "2", "--set", "width=4", "--json", "-"]
    assert main(["check", f"{models}:Net", *words]) == 0
    out, err = capsys.readouterr()
    found = only_json(out)
    assert found["layers"][0]["path"] == "Dense_0" and not err


def test_check_writes_files(models, asked, capsys, tmp_path):
    words = ["--json", "report.json", "--plot", "report.svg"]
    assert main(["check", f"{models}:pair", "--input", "2x3", *words]) == 0
    written = "Written to report.json\nWritten to report.svg\n"
    out, err = capsys.readouterr()
    assert out.endswith(written) and not err
    found = only_json((tmp_path / "report.json").read_text())
    assert found == report_of("healthy").to_dict()
    assert (tmp_path / "report.svg").read_text().startswith("<?xml")


def test_check_prints_only_json_if_asked_to(models, asked, capsys):
    words = ["--json", "-", "--plot", "report.png"]
    assert main(["check", f"{models}:pair", "--input", "2x3", *words]) == 0
    out, err = capsys.readouterr()
    assert only_json(out) == report_of("healthy").to_dict()
    assert err == "Written to report.png\n"


def test_check_prints_a_row_for_each_layer_if_asked_to(models, capsys, monkeypatch):
    one = report_of("healthy")
    many = dataclasses.replace(one, layers=one.layers * 9)
    monkeypatch.setattr("jaxinit.signal.check", lambda *_, **__: many)
    for words, count in ((["--all"], 9), ([], 3)):
        assert main(["check", f"{models}:pair", "--input", "2x3", *words]) == 0
        assert capsys.readouterr().out.count(" healthy\n") == count


def on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_check_has_colors_on_a_terminal(models, asked, capsys, monkeypatch):
    on_a_terminal(monkeypatch)
    assert main(["check", f"{models}:pair", "--input", "2x3"]) == 0
    assert capsys.readouterr().out.startswith("\x1b[32mhealthy, 1 layer, 2 seeds")


def test_check_needs_no_rich_on_a_terminal(models, asked, capsys, monkeypatch, without):
    on_a_terminal(monkeypatch)
    without("rich")
    assert main(["check", f"{models}:pair", "--input", "2x3"]) == 0
    assert capsys.readouterr().out == report_of("healthy").table() + "\n"


@pytest.mark.parametrize(
    "model, words, said",
    [
        ("{}", [], "{}: must be MODULE:OBJECT, such as package.module:Model."),
        ("{}:", [], "must be MODULE:OBJECT"),
        ("{}/x:Net", [], "must be MODULE:OBJECT"),
        ("{}_x:Net", [], "there is no module {}_x, neither here nor installed."),
        ("{}.inner:Net", [], "there is no module {}.inner"),
        ("{}.py:Net", [], "neither here nor installed. Write {}:Net."),
        ("{}_failing:Net", [], "importing {}_failing failed: ModuleNotFoundError: No"),
        ("{}_leaving:Net", [], "importing {}_leaving failed: SystemExit: bye"),
        ("{}:Nett", [], "{}:Nett: {} has no Nett. Did you mean 'Net'"),
        ("{}:Net.depth", [], "{}.Net has no depth."),
        ("{}:Net", [], "failed: TypeError: Net.__init__() missing 1 required"),
        ("{}:broken", [], "{}:broken failed: RuntimeError: first line"),
        ("{}:built", ["--set", "width=3"], "is built already: --set needs a class or"),
        ("{}:pair", ["--set", "width=3"], "is built already: --set needs a class or"),
        ("{}:build", ["--set", "depth=3"], "unexpected keyword argument 'depth'"),
        ("{}:build", ["--set", "width"], "--set width: must be NAME=VALUE, such as"),
        ("{}:build", ["--call", "2=3"], "--call 2=3: must be NAME=VALUE"),
        ("{}:build", ["--set", "a=1", "--set", "a=2"], "--set a=2: a is given twice."),
        ("{}:build", ["--set", "width=he_norml()"], "Did you mean 'he_normal'"),
        ("{}:pair", ["--input", "2by3"], "--input 2by3: a shape is sizes of 1 or abo"),
        ("{}:pair", ["--input", "2x0"], "with x between them, such as 32x784."),
        ("{}:pair", ["--input", ""], "a shape is sizes"),
        ("{}:pair", ["--input", "99999x99999"], "an input has at most 268435456 entr"),
        ("{}:pair", ["--input", "2:float33"], "--input 2:float33: dtype must be a nu"),
        ("{}:pair", ["--dtype", "float33"], "--dtype float33: dtype must be a number"),
        ("{}:pair", ["--dtype", "int32"], "say how many there are, as --vocabulary 1"),
        ("{}:pair", ["--vocabulary", "9"], "goes with inputs of integers: add --dtype"),
        (
            "{}:pair",
            ["--dtype", "int8", "--vocabulary", "999"],
            "--vocabulary 999: must lie between 1 and 127, the largest int8.",
        ),
        ("{}:pair", ["--seed", "-1"], "--seed must lie between 0"),
        ("{}:pair", ["--plot", "a.jpg"], "the file must end in .png, .svg, .pdf."),
        ("{}:pair", ["--plot", "no/a.png"], "cannot write to no: No such file or"),
        ("{}:pair", ["--json", "no/a.json"], "cannot write to no: No such file or"),
        ("{}:pair", ["--seeds", "two"], "argument --seeds: invalid int value: 'two'"),
    ],
)
def test_check_refuses_bad_input_in_one_line(models, capsys, model, words, said):
    line = refusal(["check", model.format(models), "--input", "2x3", *words], capsys)
    assert said.replace("{}", models) in line


def test_check_needs_an_input(models, capsys):
    said = "the following arguments are required: --input"
    assert said in refusal(["check", f"{models}:pair"], capsys)


@pytest.mark.parametrize(
    "error, said",
    [
        (TypeError("no\n\nmore"), "{}:pair failed: TypeError: no"),
        (ValueError("check(seeds=0): seeds must be 1 or above."), "jaxinit: check(see"),
        (ValueError("x" * 900), "x..."),
        (ZeroDivisionError(), "{}:pair failed: ZeroDivisionError: "),
    ],
    ids=repr,
)
def test_a_model_that_fails_prints_its_own_error_in_one_line(
    models, capsys, monkeypatch, error, said
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("jaxinit.signal.check", fail)
    line = refusal(["check", f"{models}:pair", "--input", "2x3"], capsys)
    assert said.format(models) in line and len(line) < 400


def test_check_says_where_it_cannot_write(models, asked, capsys, tmp_path):
    (tmp_path / "report.json").mkdir()
    words = ["check", f"{models}:pair", "--input", "2x3", "--json", "report.json"]
    code = main(words)
    assert code == 2
    said = "jaxinit: cannot write report.json: Is a directory.\n"
    assert capsys.readouterr().err == said


# The rest.


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert re.fullmatch(r"jaxinit \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.fixture
def without(monkeypatch):
    """Takes a package away, as if it were not installed."""

    class Absent:
        def __init__(self, package):
            self.package = package

        def find_spec(self, name, path=None, target=None):
            if name == self.package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def take(package):
        loaded = [n for n in sys.modules if n.partition(".")[0] == package]
        ours = [
            "jaxinit._panels",
            *(f"jaxinit.signal._report.{n}" for n in ("console", "plot")),
        ]
        names = ("files", "_show.figure", "_show.plots", "_show.table")
        ours += [f"jaxinit.lab.{n}" for n in names]
        ours += ["jaxinit.cli._live"]
        for name in [*loaded, *ours]:
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])

    return take


@pytest.mark.parametrize(
    "words", [["list"], ["show", "zeros()", "--shape", "2"], ["compare"]], ids=" ".join
)
def test_a_missing_extra_is_answered_with_the_command_to_install_it(
    capsys, without, words
):
    without("rich")
    line = refusal(words, capsys)
    assert line == "jaxinit: rich is missing. Run: pip install 'jaxinit[lab]'"


def test_a_missing_plot_library_is_found_before_training(
    compare, capsys, monkeypatch, without, tmp_path
):
    without("matplotlib")
    monkeypatch.setattr("jaxinit.lab.training.train", None)  # training: a TypeError
    line = refusal([*compare, "--out", str(tmp_path)], capsys)
    assert line == "jaxinit: matplotlib is missing. Run: pip install 'jaxinit[lab]'"


def test_a_missing_module_of_ours_is_a_traceback(monkeypatch):
    """Only what an extra would bring is the user's to install."""

    def broken(given):
        raise ModuleNotFoundError("No module named 'x'", name="x")

    monkeypatch.setattr("jaxinit.cli._list.run", broken)
    with pytest.raises(ModuleNotFoundError, match="No module named 'x'"):
        main(["list"])
