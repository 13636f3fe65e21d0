"""The benchmark: every case at toy size, the clock, the ratios. No time is asserted."""

import ast
import dataclasses
import functools
import json
import math
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circles import find_circles, read_imports
from marks import slow_but

import jaxinit

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # bench is no part of the installed package

from bench import suites  # noqa: E402
from bench.__main__ import main  # noqa: E402
from bench.meters import memory  # noqa: E402
from bench.meters.race import Contender, Timing, race  # noqa: E402
from bench.meters.row import compute_ratios  # noqa: E402
from bench.meters.settings import Settings  # noqa: E402
from bench.show import machine, report  # noqa: E402
from bench.weight import limit, peers  # noqa: E402
from bench.weight.families import draw_independent  # noqa: E402

SUITES = tuple(suites.SUITES)
INSTALLED = peers.find_installed()
PNG = b"\x89PNG\r\n\x1a\n"
QUICK = Settings(repeats=1, peers=("jax",), quick=True)


@functools.cache
def toys(suite):
    """Returns the toy cases of a suite."""
    return suites.SUITES[suite].cases(True)


def one(name):
    """Returns the toy case of a weight whose name starts like this."""
    weights = (suite for suite in SUITES if suite != "model")  # which traces its models
    found = (case for suite in weights for case in toys(suite))
    return next(case for case in found if case.name.startswith(name))


class Changed:
    """An initializer whose weights are changed."""

    def __init__(self, init, change):
        self.init, self.change = init, change

    def __getattr__(self, name):
        return getattr(self.init, name)

    def __call__(self, key, shape, dtype):
        return self.change(self.init(key, shape, dtype))


def changed(name, change):
    case = one(name)
    return dataclasses.replace(case, init=Changed(case.init, change))


def raising(weight):
    raise RuntimeError("no such draw\nat all")


# every case


# Those with many cases to compile are for CI.
LONG = {"check", "compile", "draws", "dtypes", "kernels", "lab", "model", "orthogonal"}
COLD = {"cold", "eager"}  # their processes have tests of their own
EVERY = slow_but(set(SUITES) - LONG - COLD, [s for s in SUITES if s not in COLD])


@pytest.mark.parametrize("suite", EVERY)
def test_every_case_runs_at_toy_size(suite, tmp_path, capsys):
    file = tmp_path / "result.json"
    assert main([suite, "--quick", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    assert not err
    result = report.read(file)
    settings = {"repeats": 2, "peers": list(INSTALLED), "quick": True}
    assert result["settings"] == settings
    rows = result["suites"].pop(suite)
    assert not result["suites"]
    assert [row["case"] for row in rows] == [case.name for case in toys(suite)]
    for row, case in zip(rows, toys(suite), strict=True):
        check_row(row, case, suite)
        assert row["case"] in out


def check_row(row, case, suite):
    assert set(row) == {
        *("case", "shape", "dtype", "bytes", "verified", "found", "times"),
        *("compile_s", "ratios", "limit", "gb_per_s", "memory", "left_out"),
    }
    assert row["verified"] is True and row["found"]
    assert row["shape"] == list(case.shape) and row["dtype"] == case.dtype
    assert row["bytes"] == case.bytes and row["memory"] is None
    assert not row["left_out"]
    ours = {"ours"}
    if suite == "compile":
        wanted = {"jax"}
    elif suite == "kernels":
        wanted = set(case.impls)
        assert set(row["compile_s"]) == ours | wanted
        assert row["limit"]["share"] > 0 and row["gb_per_s"] > 0
        ours |= {"limit"}
    elif suite == "check":
        wanted = {"loop", "eager"}
        assert not row["compile_s"]
    elif suite == "lab":
        wanted = {"loop", "usual"}
        assert not row["compile_s"]
    elif suite == "composed":
        wanted = case.ways.keys() - ours
        assert not row["compile_s"]
    elif suite == "step":
        wanted = {"optax"}
        assert not row["compile_s"]
    elif suite == "model":
        wanted = {"jit", "plan"}
        wanted |= {"torch", "torch laws"} if "torch" in INSTALLED else set()
        wanted |= {"eager"} if case.constructor else set()
        assert set(row["compile_s"]) == ours
    else:
        wanted = {name for name in case.peers if name.partition(" ")[0] in INSTALLED}
        ours |= {"ours eager"} if case.eager else set()
        assert set(row["compile_s"]) == {"ours"} | wanted & {"jax"}
        assert row["limit"]["share"] > 0
        assert (row["gb_per_s"] is None) == (row["limit"]["kind"] == "product")
        ours |= {"limit"}
    assert set(row["times"]) == ours | wanted and set(row["ratios"]) == wanted
    for time in row["times"].values():
        assert len(time["seconds"]) == 2 and min(time["seconds"]) > 0
        assert time["median_s"] == statistics.median(time["seconds"])


@pytest.mark.slow
def test_the_suites_measure_what_was_promised():
    promised = {
        "draws": {"uniform 4096×4096", "normal 3×3", "he_normal 1000×1000"},
        "dtypes": {"normal 4096×4096 bfloat16", "normal 4096×4096 complex64"},
        "orthogonal": {"orthogonal 4096×512", "delta_orthogonal 3×3×512×512"},
        "sparse": {"sparse(0.1) 4096×4096", "sparse(0.9) 4096×4096"},
        "compile": {"normal 512×512", "he_normal 3×3×64×64"},
        "check": {"check 50 layers 32×256×256"},
        "cold": {"check ResNet-18", "check 40 layers, norm", "check transformer"},
        "eager": {"he_normal, 20 shapes", "ResNet-50 NNX", "ViT-B NNX"},
        "composed": {"he_normal * 0.5 4096×4096", "pissa 64 of 4096×4096"},
        "lab": {f"96 cells 8×4×3, 100 steps, {when}" for when in ("warm", "cold")},
        "model": {"GPT-2 small, stock", "ResNet-50 NNX, stock", "ViT-B NNX, stock"},
        "kernels": {"random.normal 8192×8192", "moments 1024×1024"},
        "step": {"adamw 96×512×512"},
    }
    for suite, made in suites.SUITES.items():
        full = made.cases(False)
        assert [case.name for case in full] == [case.name for case in toys(suite)]
        assert promised[suite] <= {case.name for case in full}
        for case in full:
            size = "×".join(map(str, case.shape))
            assert size in case.name or suite in (*COLD, "model")  # many arrays


# the clock


class Time:
    """A clock that only work moves, and a log of that work."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def contender(self, name, *seconds):
        durations = iter(seconds)

        def prepare(call):
            self.now += 1000  # untimed
            return call

        def run(call):
            self.log.append((name, call))
            self.now += next(durations)

        return Contender(run, prepare, lambda array: None)


def test_contenders_take_turns_and_are_timed_alone():
    time = Time()
    both = {"a": time.contender("a", 9, 1, 2, 6), "b": time.contender("b", 9, 5, 5, 8)}
    found = race(both, 3, least=0, pause=0, clock=time)
    assert [name for name, _ in time.log] == ["a", "b"] * 4
    assert found["a"].seconds == (1, 2, 6) and found["b"].seconds == (5, 5, 8)
    assert found["a"].median == 2 and found["a"].spread == 2.5
    assert Timing((3.0,)).spread == 0


def test_short_calls_are_repeated_each_with_a_key_of_its_own():
    time = Time()
    found = race(
        {"a": time.contender("a", *[0.25] * 9)}, 2, least=1, pause=0, clock=time
    )
    assert found["a"] == Timing((0.25, 0.25), calls=4)
    numbers = [number for _, number in time.log[1:]]
    assert len(set(numbers)) == len(numbers) == 8


def test_without_warming_up_each_turn_is_one_call():
    time = Time()
    race({"a": time.contender("a", 1, 1)}, 2, warm=False, pause=0, clock=time)
    assert len(time.log) == 2


def test_compilation_is_timed_apart_and_once():
    traces = []
    jitted = jax.jit(lambda key: traces.append(key) or jax.random.uniform(key))
    contender = Contender(jitted, jitted=True)
    assert contender.compile(iter((3.0, 5.0)).__next__) == 2
    contender.once()
    assert len(traces) == 1
    assert Contender(len).compile() is None


# verification


WRONG = [
    ("normal 4096×4096", lambda w: -w, "256 of 256 entries differ from"),
    ("uniform 4096×4096 float64", lambda w: w * (1 + 1e-15), "entries differ from"),
    ("normal 4096×4096 bfloat16", lambda w: w * 2, "JAX's float32 values, rounded"),
    ("normal 4096×4096 complex64", lambda w: w * 1.5, "the variance is off by"),
    ("he_normal 4096×4096 complex64", lambda w: w + 1, "the mean is off by"),
    ("orthogonal 4096×512", lambda w: w.at[0].mul(2), "max |QᵀQ-I| is"),
    ("orthogonal 512×4096", lambda w: w * 1.001, "max |QᵀQ-I| is"),
    ("orthogonal 1024×1024 qr", lambda w: -w, "entries differ from JAX's jitted"),
    ("delta_orthogonal", lambda w: w.at[0, 0].set(1), "beside the middle one"),
    ("sparse(0.1)", lambda w: w.at[:3, 0].set(0), "have not 2 zeros"),
    ("sparse(0.9)", lambda w: jnp.sort(w, axis=0), "share of zeros in a row"),
    ("normal 4096×4096", lambda w: w[1:], "the weight is float32[15, 16]"),
    ("normal 4096×4096", raising, "RuntimeError: no such draw"),
    (
        "normal 4096×4096",
        lambda w: w if isinstance(w, jax.core.Tracer) else -w,
        "the eager call gives other values than jax.jit",
    ),
]


SOON = [*WRONG[:3], *WRONG[11:]]  # what draws matrices takes long to compile


@pytest.mark.parametrize(("name", "change", "found"), slow_but(SOON, WRONG, rows=True))
def test_a_wrong_draw_is_reported_and_not_timed(name, change, found):
    case = changed(name, change)
    settings = Settings(repeats=1, peers=(), quick=True)
    row = suites.draws.measure(case, settings)
    assert row["verified"] is False and found in row["found"]
    assert not row["times"] and not row["ratios"] and row["limit"] is None


def flawed(law, change):
    """Returns a case of our programs, of which those in change give other values."""
    case = one(f"random.{law}")

    def run(key, *rest, impl=None):
        return change.get(impl, lambda w: w)(case.run(key, *rest, impl=impl))

    return dataclasses.replace(case, run=run)


def test_a_wrong_program_is_left_out_with_the_reason():
    case = flawed(
        "normal",
        {"fused": lambda w: w * 1.1, "pallas": raising, "paired": lambda w: w + 9},
    )
    row = suites.kernels.measure(case, QUICK)
    assert row["verified"] and set(row["times"]) == {"ours", "jax", "limit"}
    reasons = ["gives other values", "no such draw", "the mean is off by"]
    for reason, found in zip(reasons, row["left_out"].values(), strict=True):
        assert found.startswith(reason)


@pytest.mark.parametrize(
    ("case", "found"),
    [
        (flawed("uniform", {None: lambda w: -w}), "256 of 256 entries differ from"),
        (
            dataclasses.replace(one("moments"), run=lambda x, *_, impl: jnp.zeros(6)),
            "the moments are [0. 0. 0. 0. 0. 0.], not [",
        ),
    ],
)
def test_a_wrong_first_program_has_no_times(case, found):
    row = suites.kernels.measure(case, QUICK)
    assert row["verified"] is False and row["found"].startswith(found)
    assert not row["times"] and row["limit"] is None


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="kernels are compiled")
def test_kernels_are_not_interpreted_at_full_size():
    row = suites.kernels.measure(
        one("random.uniform"), dataclasses.replace(QUICK, quick=False)
    )
    assert row["left_out"] == {"pallas": "is interpreted on a CPU"}
    assert set(row["times"]) == {"ours", "jax", "fused", "paired", "limit"}


def test_a_compiled_draw_of_another_shape_is_reported():
    case = changed("normal 512×512", lambda w: w[1:])
    row = suites.compile.measure(case, QUICK)
    assert row["verified"] is False and row["found"] == "float32[15, 16]"


def test_a_failure_shows_in_table_and_exit_code(monkeypatch, capsys, tmp_path):
    bad = changed("normal 4096×4096", lambda w: -w)
    wrong = SimpleNamespace(
        QUESTION="wrong", cases=lambda quick: [bad], measure=suites.draws.measure
    )
    monkeypatch.setitem(suites.SUITES, "wrong", wrong)
    file = tmp_path / "x.json"
    given = ["wrong", "--quick", "--peers", "none", "--json", str(file)]
    assert main(given) == 1
    out, err = capsys.readouterr()
    assert "FAILED: 256 of 256 entries differ from" in " ".join(out.split())
    assert err == "bench: not verified: normal 4096×4096\n"
    assert not report.read(file)["suites"]["wrong"][0]["verified"]


# ratios and limits


def test_ratios_are_of_like_with_like():
    medians = {"ours": 2.0, "ours eager": 5.0, "limit": 1.0}
    medians |= {"jax": 8.0, "jax eager": 10.0, "torch": 1.0}
    assert compute_ratios(medians) == {"jax": 4.0, "jax eager": 2.0, "torch": 0.5}


def test_shares_of_the_limit():
    fill = limit.limit_draw(one("normal 4096×4096"))
    timings = {"limit": Timing((1.0,)), "ours": Timing((4.0,))}
    found = {"kind": "fill", "seconds": 1.0, "gflops": None, "share": 0.25}
    assert fill.rate(timings) == found
    product = limit.limit_draw(one("orthogonal 4096×4096"))
    found = product.rate(timings)
    assert found["seconds"] == pytest.approx(2 / 3) and found["kind"] == "product"
    assert found["gflops"] == pytest.approx(2 * 16**3 / 1e9)
    assert limit.haar_flops(6, 6) == pytest.approx(4 / 3 * 6**3)
    assert limit.haar_flops(9, 2) == limit.haar_flops(2, 9) == 2 * 9 * 4 - 16 / 3


# peers


PEERED = ["uniform", "normal", "he_normal", "variance_scaling"]


@pytest.mark.parametrize("peer", INSTALLED)
@pytest.mark.parametrize("name", slow_but(["he_normal"], PEERED))
def test_peers_draw_our_law(name, peer):
    case = draw_independent(name, (128, 128))
    if peer not in case.peers:
        assert (name, peer) == ("he_normal", "numpy")
        return
    w = np.asarray(case.peers[peer](case).once(), float)
    law = case.init.moments(w.shape)
    squares = (w - law.mean) ** 2
    assert abs(w.mean() - law.mean) < 5 * math.sqrt(law.variance / w.size)
    assert abs(squares.mean() - law.variance) < 5 * squares.std() / math.sqrt(w.size)
    if case.law == "truncated_normal":
        assert abs(w).max() <= 2.001 * peers.find_stddev(case)


def test_a_peer_that_cannot_is_left_out_with_the_reason():
    def absent(case):
        raise NotImplementedError("no such law\nhere")

    other = Contender(lambda _: np.zeros(3), int, lambda array: None)
    wide = Contender(lambda _: np.zeros((16, 16)), int, lambda array: None)
    made = {"torch": absent, "keras": lambda case: other, "numpy": lambda case: wide}
    case = dataclasses.replace(one("normal 4096×4096"), peers=made, eager=False)
    row = suites.draws.measure(case, dataclasses.replace(QUICK, peers=tuple(made)))
    assert row["verified"] and set(row["times"]) == {"ours", "limit"}
    reasons = ["no such law", "gives the shape [3]", "gives the dtype float64"]
    assert row["left_out"] == dict(zip(made, reasons, strict=True))
    assert "left out: torch: no such law" in report.build_table("x", "y", [row]).caption


def test_peers_without_jax():
    case = dataclasses.replace(
        one("sparse(0.1)"), peers=peers.choose_peers("jax", eager=True)
    )
    row = suites.draws.measure(case, QUICK)
    reason = "jax has no such initializer"
    assert row["left_out"] == {"jax": reason, "jax eager": reason}


# memory and machine


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own():
    found = memory.measure_in_child("dtypes", "uniform 4096×4096 bfloat16")
    assert found["peak_bytes"] - found["extra_bytes"] == 2 * 2**24
    assert found["peak_bytes"] > 2**24
    assert memory.measure_in_child("dtypes", "no such case") is None


def test_the_machine_is_described():
    found = machine.describe()
    assert set(found) == {"date", "commit", "machine", "device", "versions"}
    assert {"python", "jax", "jaxlib", "numpy"} <= set(found["versions"])
    assert found["machine"]["cores"] >= 1 and found["device"]["platform"]


# the command line


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["drawz"], f"suite 'drawz': must be one of {str(SUITES)[1:-1]}. Did you mean"),
        (["sparse", "--only", "x"], "--only 'x': no case of sparse has it."),
        (["--repeats", "0"], "--repeats 0: must be 1 or above."),
        (["--peers", "torhc"], "--peers 'torhc': must be one of 'jax', 'torch', "),
        (["--peers", "numpy"], "--peers numpy: is not installed. Run: pip install"),
        (["--json", "{}"], "--json {}: is a directory. Name a file."),
        (["--json", "{}/file/x"], "--json {}/file/x: cannot be written: "),
        (["--plots", "{}/file"], "--plots {}/file: cannot be written: "),
        (["--read", "{}/none"], "--read {}/none: No such file or directory."),
        (["--read", "{}/file"], "--read {}/file: is not JSON."),
        (["--read", "{}/other"], "--read {}/other: is not a result of this benchmark."),
        (["--read", "{}/old"], "--read {}/old: has format 0, this benchmark 1."),
        (["--read", "{}/x", "--quick"], "--read {}/x --quick: --read measures nothing"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    given, message, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").write_text("text")
    (tmp_path / "other").write_text("{}")
    old = dict.fromkeys(("settings", "machine", "device", "versions", "suites"))
    (tmp_path / "old").write_text(json.dumps({"format": 0, **old}))
    monkeypatch.setattr(peers, "find_installed", lambda: ("jax",))
    assert main([word.replace("{}", str(tmp_path)) for word in given]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("bench: " + message.replace("{}", str(tmp_path)))
    assert err.count("\n") == 1 and not out


def test_the_parser_says_one_line_too(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--repeats", "x"])
    _, err = capsys.readouterr()
    assert err == "bench: argument --repeats: invalid int value: 'x'\n"


@pytest.fixture
def small(monkeypatch):
    """Two suites: one case that works, and an interrupt."""

    def interrupt(case, settings):
        raise KeyboardInterrupt

    case = one("normal 1×1")

    def suite(question, measure):
        return SimpleNamespace(
            QUESTION=question, cases=lambda quick: [case], measure=measure
        )

    made = {
        "good": suite("works", suites.draws.measure),
        "ended": suite("is interrupted", interrupt),
    }
    monkeypatch.setattr(suites, "SUITES", made)


@pytest.mark.usefixtures("small")
def test_an_interrupt_keeps_the_suites_before_it(tmp_path, capsys):
    file = tmp_path / "new" / "result.json"
    assert main(["--quick", "--peers", "jax", "--json", str(file)]) == 130
    assert set(report.read(file)["suites"]) == {"good"}
    assert capsys.readouterr().err.startswith("bench: interrupted")


@pytest.mark.usefixtures("small")
def test_plots_and_tables_are_made_from_the_file(tmp_path, capsys):
    file = tmp_path / "result.json"
    given = ["good", "--quick", "--repeats", "1", "--peers", "jax", "--json", str(file)]
    assert main(given) == 0
    first = capsys.readouterr().out
    assert main(["--read", str(file), "--plots", str(tmp_path / "plots")]) == 0
    again = capsys.readouterr().out
    assert again.startswith(first) and "Written to" in again and "good.png" in again
    assert (tmp_path / "plots" / "good.png").read_bytes().startswith(PNG)
    assert "Toy sizes" in again and "Median of 1" in again
    durations = [report.spell_duration(s) for s in (2.5, 0.25, 1.234e-5, 5e-9)]
    assert durations == ["2.5 s", "250 ms", "12.3 µs", "5 ns"]


# the room


# From the ground up: a module imports from its own room and from those before it.
ROOMS = (
    "models",
    "meters",
    "weight",
    "suites",
    "show",
    "apart",
    "claims",
    "__main__",
)


def upwards(imports):
    """Yields each import of a room that comes later."""
    for module, others in imports.items():
        for other in others:
            here, there = ((*name.split("."), "")[1] for name in (module, other))
            if here != there and ROOMS.index(there) > ROOMS.index(here):
                yield module, other


def test_imports_go_one_way_without_circles():
    imports = read_imports(ROOT, "bench")
    assert {module.split(".")[1] for module in imports if module != "bench"} == {*ROOMS}
    assert not list(upwards(imports)) and not imports["bench"]
    assert not find_circles(ROOT, "bench")
    assert not imports["bench.meters.memory"]
    assert (
        "bench.suites" in imports["bench.apart.child"]
    )  # that imports are read at all


def test_the_test_of_imports_can_fail(tmp_path):
    wrong = {"bench.meters.row": {"bench.meters.race", "bench.show.report"}}
    assert list(upwards(wrong)) == [("bench.meters.row", "bench.show.report")]
    sources = {
        "__init__": "from house import cellar",
        "cellar": "import house.attic.roof",
        "stairs": "def f():\n    from house import stairs",
        "attic/__init__": "",
        "attic/roof": "def f():\n    from ..cellar import wine",
        "attic/window": "from . import glass, roof",
        "attic/glass": "if TYPE_CHECKING:\n    from .window import View",
    }
    for name, source in sources.items():
        file = tmp_path / "house" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    attic = [f"house.attic.{name}" for name in ("glass", "roof", "window")]
    assert read_imports(tmp_path, "house")["house.attic.window"] == {*attic[:2]}
    assert find_circles(tmp_path, "house") == [
        ["house.attic.glass", "house.attic.window"],
        ["house.attic.roof", "house.cellar"],
        ["house.stairs"],
    ]


def test_each_suite_is_the_file_of_its_name():
    files = {path.stem for path in (ROOT / "bench" / "suites").glob("*.py")}
    assert files - {"__init__"} == {*SUITES}
    for name, suite in suites.SUITES.items():
        assert suite.__name__ == f"bench.suites.{name}" and suite.QUESTION


def test_bench_uses_the_public_door():
    for path in (ROOT / "bench").rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 400
        assert path.stem == "__init__" or len(text.splitlines()) >= 25, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, node.name
        assert "jaxinit._" not in text and "jax._src" not in text
    assert not hasattr(jaxinit, "bench")


def test_a_room_shows_few_names():
    for room in (ROOT / "bench", *(ROOT / "bench").glob("*/")):
        names = {path.stem for path in room.iterdir() if path.stem[0] not in "_."}
        assert len(names) <= 8 or room.name == "suites"


def test_results_are_named_by_machine_month_and_suites():
    files = set((ROOT / "bench" / "results").glob("*/*.json"))
    assert len(files) == len(list((ROOT / "bench" / "results").rglob("*.json"))) > 0
    files -= set((ROOT / "bench" / "results" / "claims").iterdir())  # test_claims.py
    for file in files:
        result = report.read(file)
        assert file.parent.name.endswith(result["date"][: len("2026-11")])
        assert file.stem == "-".join(result["suites"])
