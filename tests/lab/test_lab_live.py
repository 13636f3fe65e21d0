"""The lab while it runs: device and dtype, full disks, progress, logs."""

import dataclasses
import errno
import io
import math
import os
import re
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import refusal
from killed_runs import timeless
from rich.console import Console

import jaxinit
from jaxinit import _check, lab
from jaxinit.cli import main
from jaxinit.cli._live import Screen, show_progress
from jaxinit.lab._show.table import list_columns, markdown
from jaxinit.lab._train import checkpoint
from jaxinit.lab._train.grid import Grid
from jaxinit.lab._tried import _precision as precision
from jaxinit.lab._tried.data import digits
from jaxinit.lab._tried.experiment import assemble
from jaxinit.lab._tried.tasks import memory

pytestmark = pytest.mark.usefixtures("quick_compiler", "short_runs")

INITIALIZERS = ["he_normal()", "zeros()", "normal(stddev=10000.0)"]
SETTINGS = {"depth": 2, "width": 4, "seeds": 2, "steps": 20, "batch_size": 8}
SETTINGS |= {"learning_rates": (0.01, 0.1)}


@pytest.fixture(scope="module")
def words(data_file):
    """The command of the run that `whole` is."""
    found = ["compare", "--data", str(data_file), "--lr", "0.01", "--lr", "0.1"]
    for init in INITIALIZERS:
        found += ["--init", init]
    for name in ("depth", "width", "seeds", "steps", "batch_size"):
        found += [f"--{name.replace('_', '-')}", str(SETTINGS[name])]
    return found


@pytest.fixture(scope="module")
def whole(task):
    return lab.compare(INITIALIZERS, data=task, **SETTINGS)


# Device and dtype.


@pytest.mark.parametrize("model", ["mlp", "transformer", "gru"])
def test_networks_compute_in_the_dtype(model):
    task = digits() if model == "mlp" else memory()
    norm = "layer" if model == "transformer" else "none"
    init = jaxinit.he_normal()
    asked = lab.Settings((init,), "relu", 2, 8, norm, model=model)
    network = assemble(task, asked).network
    x, in_half = (
        jnp.asarray(task.x_train[:2]),
        precision.mix_precision(network, "bfloat16"),
    )
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    with precision.compute_in(None, "bfloat16"):
        text = str(jax.make_jaxpr(in_half.apply)(variables, x))
    found = re.findall(r":(\w+)\[[\d,]*\] = dot_general\[", text)
    assert len(found) >= 2 and set(found) == {"bf16"}


@pytest.mark.slow
def test_parameters_and_losses_stay_float32_beside_16_bits(task, whole):
    found = lab.compare(INITIALIZERS, data=task, dtype="bfloat16", **SETTINGS)
    jax.tree.map(np.testing.assert_array_equal, found.initial, whole.initial)
    leaves = [found.curves, *found.scores, *jax.tree.leaves(found.final)]
    assert {leaf.dtype.name for leaf in leaves} == {"float32"}
    assert (found.curves != whole.curves).any()
    np.testing.assert_allclose(found.curves[0], whole.curves[0], rtol=0.05)
    assert found.to_dict()["settings"]["dtype"] == "bfloat16"
    assert "adam in bfloat16, batch 8" in markdown(found)


def interrupt(patch, after, error=KeyboardInterrupt):
    """Lets a run be interrupted after so many blocks."""
    real = Grid.run

    def interrupted(self):
        for losses in real(self):
            yield losses
            if len(self.losses) == after:
                raise error

    patch.setattr(Grid, "run", interrupted)


@pytest.mark.slow
def test_a_run_in_float64_goes_on_bit_for_bit(words, tmp_path, capsys, whole):
    words = [*words, "--dtype", "float64", "--out"]
    assert main([*words, str(tmp_path / "straight")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, after=2)
        assert main([*words, str(tmp_path / "halting")]) == 130
    assert main([*words, str(tmp_path / "halting"), "--resume"]) == 0
    one, two = (timeless(tmp_path / name) for name in ("straight", "halting"))
    assert one == two and one["settings"]["dtype"] == "float64"
    loss = one["initializers"][0]["cells"][0]["final_loss"]
    assert loss != float(np.float32(loss))
    assert loss == pytest.approx(whole.scores.loss[0, 0, 0], rel=1e-3)
    assert not jax.config.jax_enable_x64


def test_float64_is_switched_on_by_the_caller(task):
    said = (
        r"compare\(dtype='float64'\): JAX has 64-bit types switched off. Call jax.con"
    )
    with pytest.raises(ValueError, match=said):
        lab.compare(INITIALIZERS, data=task, dtype="float64", **SETTINGS)


@pytest.mark.parametrize(
    "given, said",
    [
        (["--dtype", "int8"], "dtype must be one of 'float32', 'bfloat16', 'float16'"),
        (
            ["--dtype", "bfloat16", "--model", "own.module:Model"],
            "a model of your own computes in the dtype that it is written in. Leave",
        ),
        (["--device", "gpo"], "device must be one of 'cpu', 'gpu', 'tpu'. Did you mea"),
        (["--device", "tpu"], "compare(device='tpu'): there is no tpu; here are cpu"),
    ],
)
def test_devices_and_dtypes_that_are_none(given, said, words, capsys):
    assert said in refusal([*words, *given], capsys)


def test_a_device_is_where_the_training_is(words, monkeypatch, capsys):
    seen = []

    def look(*_):
        seen.append(jnp.zeros(()).device)
        raise KeyboardInterrupt

    monkeypatch.setattr(Grid, "__init__", look)
    first, other = jax.devices("cpu")[:2]
    with jax.default_device(other):
        assert main([*words, "--device", "cpu"]) == 130
        assert main(words) == 130
    assert seen == [first, other]


# Loose ends: tables, errors of users' code, full disks.


@pytest.mark.slow
def test_tables_have_no_columns_without_a_number(whole):
    bare = dataclasses.replace(whole, signals=None)
    heads = [cell.strip() for cell in markdown(bare).splitlines()[2].split(" | ")]
    assert len(heads) == len(list_columns(whole)) - 2
    assert not any(word in markdown(bare) for word in ("signal", "gradient"))
    assert (
        len(set(map(len, (x.split(" | ") for x in markdown(bare).split("\n")[2:5]))))
        == 1
    )


def test_an_error_is_told_in_one_line():
    assert _check.brief(OSError("\n  full \nmore")) == "OSError: full"
    assert _check.brief(KeyError()) == "KeyError: "
    assert len(_check.brief(ValueError("x" * 999))) == 300 + len("ValueError: ")


FULL = "RESOURCE_EXHAUSTED: No space left on device [os_error_code='28']"


def fail_from(number, monkeypatch, error):
    """Lets orbax fail from the given save on."""
    real, count = checkpoint.checkpointer(), iter(range(99))

    class Disk:
        def save(self, *given, **more):
            if next(count) >= number:
                raise error
            real.save(*given, **more)

    monkeypatch.setattr(checkpoint, "checkpointer", Disk)


@pytest.mark.slow
def test_a_full_disk_ends_a_run_with_one_line(words, tmp_path, capsys, monkeypatch):
    words = [*words, "--save-every", "1", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        fail_from(2, patch, ValueError(FULL))
        line = refusal(words, capsys)
    path = tmp_path / "checkpoint" / "3"
    said = f"jaxinit: cannot write {path}: No space left on device. When there is room"
    assert line == f"{said}, --resume goes on."
    assert checkpoint.list_saves(tmp_path / "checkpoint") == [1, 2]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: raised(OSError(errno.ENOSPC, "Full")))
        assert main([*words, "--resume"]) == 2
    said = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'results.json'}: Full. When there is" in said
    assert not (tmp_path / "results.json").exists()
    assert main([*words, "--resume"]) == 0


def raised(error):
    raise error


@pytest.mark.slow
def test_other_failures_of_a_save_are_not_hidden(task, tmp_path, monkeypatch):
    fail_from(0, monkeypatch, ValueError("of orbax"))
    with pytest.raises(ValueError, match="of orbax"):
        lab.compare(INITIALIZERS, data=task, out=tmp_path, save_every=1, **SETTINGS)


def test_output_that_is_full_is_said(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["list", "--json"]) == 2
        monkeypatch.undo()
    said = "jaxinit: cannot write: No space left on device.\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("command", ["list", "compare"])
def test_other_errors_of_the_system_are_tracebacks(command, words, monkeypatch):
    broken = OSError(errno.EIO, "broken disk")
    name = {"list": "describe", "compare": "try_call"}[command]
    monkeypatch.setattr(
        f"jaxinit.cli._{command}.{name}", lambda *_, **__: raised(broken)
    )
    with pytest.raises(OSError, match="broken disk"):
        main(words if command == "compare" else ["list"])


# The terminal.


class Trained:
    """As much of a grid as an observer sees."""

    steps = SETTINGS["steps"]

    def __init__(self, *blocks):
        self.losses = tuple(np.array(block, np.float32).ravel() for block in blocks)


@pytest.fixture
def screen(task):
    parsed = tuple(map(jaxinit.parse, INITIALIZERS))
    return Screen(task, lab.Settings(parsed, **SETTINGS))


NAN, LARGE = math.nan, 10.0
FIRST = [[[0.5, NAN], [0.6, 0.4]], [[0.7, 0.69], [0.7, 0.69]], [[NAN, 9], [9, NAN]]]
SECOND = [[[0.4, 0.1], [0.5, 0.1]], [[0.7, 0.6], [0.7, 0.5]], [[9, LARGE], [9, 9]]]


def seen(screen, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(screen)
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_the_leading_initializers_are_shown(screen, width):
    (bar,) = seen(screen, width)
    assert bar.startswith("drawing and compiling ") and "0/20 steps 0:00:0" in bar
    screen.observe(Trained(FIRST))
    bar, *_ = seen(screen, width)
    assert bar.startswith("training ━") and "5/20 steps 0:00:0" in bar
    screen.observe(Trained(FIRST, SECOND))
    bar, *table = seen(screen, width)
    assert "10/20 steps" in bar and re.search(r"[\d.,]+ steps/s, 0:00:\d\d left", bar)
    assert [re.split(" {2,}", line) for line in table] == [
        ["leading", "training loss", "learning rate", "diverged"],
        ["he_normal()", "0.45", "0.01", "25 %"],  # 0.1 had a cell that was lost once
        ["zeros()", "0.55", "0.1", "0 %"],
        ["normal(stddev=10000.0)", "–", "0.01", "100 %"],
    ]
    screen.observe(Trained(FIRST, SECOND, SECOND, SECOND))
    assert seen(screen, width)[0].startswith("evaluating ━")


def test_a_few_lead_and_the_others_are_counted(task):
    parsed = tuple(jaxinit.normal(1.0 + i) for i in range(7))
    one = {"depth": 2, "seeds": 1, "steps": 20, "learning_rates": (0.1,)}
    screen = Screen(task, lab.Settings(parsed, **one))
    screen.observe(Trained(np.arange(7) / 10))
    *_, last, more = seen(screen, 80)
    assert last.startswith("normal(stddev=5.0) ") and more == "and 2 more"


SHOW, HIDE = "\x1b[?25h", "\x1b[?25l"  # the cursor


def on_a_terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def test_a_terminal_is_left_clean(words, capsys, monkeypatch):
    on_a_terminal(monkeypatch)
    interrupt(monkeypatch, after=2)
    assert main(words) == 130
    said = capsys.readouterr().err
    assert "training" in said and "10/20 steps" in said and "zeros()" in said
    *_, after = said.split(SHOW)
    assert HIDE in said and HIDE not in after
    # What was drawn is erased, line by line; then comes the message.
    assert re.fullmatch(r"[\r\n]*(\x1b\[1A|\x1b\[2K|\r)+jaxinit: int.*steps.\n", after)


def test_no_one_looks(words, capsys, monkeypatch):
    monkeypatch.setattr("jaxinit.cli._live.Screen", None)  # a screen: a TypeError
    assert main(words) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name, value", [("--quiet", None), ("TERM", "dumb")])
def test_quiet(capsys, monkeypatch, name, value):
    on_a_terminal(monkeypatch)
    settings = lab.Settings((jaxinit.zeros(),))
    if value is not None:
        monkeypatch.setenv(name, value)
    with show_progress(None, settings, quiet=value is None) as observers:
        assert observers == []
    assert capsys.readouterr().err == ""


# Logs.


def crc(data):
    """Computes CRC-32C bit by bit, masked as in records of TensorFlow."""
    found = 0xFFFFFFFF
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    found ^= 0xFFFFFFFF
    return ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF


def scalars(path):
    """Reads an event file: values by tag and step, and what was said beside."""
    from tensorboardX.proto.event_pb2 import Event

    data, found, start = path.read_bytes(), [], 0
    while start < len(data):
        head = data[start : start + 8]
        size, check = *struct.unpack("<Q", head), data[start + 8 : start + 12]
        body = data[start + 12 : start + 12 + size]
        end = data[start + 12 + size : start + 16 + size]
        assert (crc(head), crc(body)) == struct.unpack("<II", check + end)
        found.append(Event.FromString(body))
        start += 16 + size
    first, begun, *events = found
    assert first.file_version == "brain.Event:2"
    assert begun.session_log.status == begun.session_log.START
    return [(v.tag, e.step, v.simple_value) for e in events for v in e.summary.value]


RUNS = [
    f"{name}/lr {rate}"
    for name in ("00 he_normal()", "01 zeros()", "02 normal(stddev=10000.0)")
    for rate in (0.01, 0.1)
]


def files(path):
    return sorted(path.rglob("*tfevents*"))


def logged(path):
    """Reads all runs of a directory."""
    names = [str(file.parent.relative_to(path)) for file in files(path)]
    assert names == RUNS
    return [scalars(file) for file in files(path)]


@pytest.fixture(scope="module")
def log(task, whole, tmp_path_factory):
    pytest.importorskip("tensorboardX")
    path = tmp_path_factory.mktemp("log")
    found = lab.compare(INITIALIZERS, data=task, log=("tensorboard", path), **SETTINGS)
    np.testing.assert_array_equal(found.curves, whole.curves)
    return path


@pytest.mark.slow
def test_logs_have_means_over_seeds(log, whole):
    wide = [a.astype(float).mean(1) for a in (whole.curves, *whole.scores)]
    curves, loss, test = (mean.astype(np.float32) for mean in wide)
    for i, run in enumerate(logged(log)):
        init, rate = divmod(i, 2)
        lost = whole.diverged[init, :, rate].mean()
        end = [("final/training_loss", 20, loss[init, rate])]
        end += [("final/test_accuracy", 20, test[init, rate])]
        end += [("final/diverged", 20, lost)]
        steps = zip(whole.steps, curves[init, rate], strict=True)
        assert run == [*(("training/loss", *pair) for pair in steps), *end]


@pytest.mark.slow
def test_a_resumed_run_logs_each_step_once(log, words, tmp_path, capsys):
    asked = ["--log", "tensorboard", str(tmp_path / "log"), "--out", str(tmp_path)]
    words = [*words, "--save-every", "2", *asked]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        interrupt(patch, after=3, error=ZeroDivisionError)  # two blocks are saved
        main(words)
    assert [step for _, step, _ in logged(tmp_path / "log")[0]] == [5, 10, 15]
    assert "directory has" in refusal(words, capsys)
    assert main([*words, "--resume"]) == 0
    assert logged(tmp_path / "log") == logged(log)


@pytest.mark.slow
def test_logs_are_not_lost_by_mistake(log, words, task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxinit.lab.training.train", None)  # training: a TypeError
    line = refusal([*words, "--log", "tensorboard", str(log)], capsys)
    assert f"compare(log={str(log)!r}): the directory has logs; resume=True" in line
    words = [*words, "--out", str(tmp_path), "--resume", "--seeds", "1"]
    line = refusal([*words, "--log", "tensorboard", str(log)], capsys)
    assert "the directory has logs of another run; overwrite=True (--overw" in line
    assert len(logged(log)) == 6


@pytest.mark.slow
def test_overwriting_removes_our_logs_only(task, tmp_path):
    pytest.importorskip("tensorboardX")
    others = [tmp_path / path for path in ("other", f"{RUNS[1]}")]
    for path in others:
        path.mkdir(parents=True)
        (path / "events.out.tfevents.1.host").write_text("mine")
    given = SETTINGS | {"data": task, "log": ("tensorboard", str(tmp_path))}
    for rates in ((0.01, 0.1), (0.01, 0.2)):
        given |= {"learning_rates": rates, "overwrite": True}
        lab.compare(INITIALIZERS, **given)
    names = {str(file.parent.relative_to(tmp_path)) for file in files(tmp_path)}
    expected = {run.replace("lr 0.1", "lr 0.2") for run in RUNS}
    assert names == expected | {"other", RUNS[1]} and len(files(tmp_path)) == 8
    assert not (tmp_path / RUNS[3]).exists()


def test_a_missing_library_is_found_before_training(words, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr("jaxinit.lab.training.train", None)
    line = refusal([*words, "--log", "tensorboard", "nowhere"], capsys)
    cure = "Run: pip install 'jaxinit[tensorboard]'"
    assert line == f"jaxinit: tensorboardX is missing. {cure}"


@pytest.mark.parametrize(
    "given, kind, said",
    [
        (("tensorbord", "runs"), ValueError, "one of 'tensorboard'. Did you mean 'te"),
        ("runs", TypeError, "must be a kind and a directory, such as \\('tensorboard"),
        (("tensorboard", 5), TypeError, "the directory of a log must be a path"),
    ],
)
def test_logs_that_are_none(given, kind, said, task):
    with pytest.raises(kind, match=rf"^compare\(log=.*{said}"):
        lab.compare(INITIALIZERS, data=task, log=given, **SETTINGS)


def test_long_runs_are_written_on_the_way(log, task, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxinit.lab._show.log._SECONDS", 0)
    sizes = []
    given = {"log": ("tensorboard", tmp_path), **SETTINGS}
    given |= {"progress": lambda *_: sizes.append(files(tmp_path)[0].stat().st_size)}
    lab.compare(INITIALIZERS, data=task, **given)
    assert sizes == sorted(set(sizes)) and sizes[0] > 0
