"""Claims of papers: every record is complete, every claim runs, verdicts are right."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from marks import slow_but

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # bench is no part of the installed package

from bench.__main__ import main  # noqa: E402
from bench.claims import CLAIMS, command  # noqa: E402
from bench.claims.claim import (  # noqa: E402
    Claim,
    NotHere,
    between,
    bootstrap,
    geometric_mean,
    near,
    try_claim,
)
from bench.claims.theory import transform_tanh  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compiler", "standard_promotion")

RESULTS = ROOT / "bench" / "results" / "claims"
CHEAP = ["pennington"]  # the others compile more than they measure
VERDICTS = {"reproduced", "not reproduced", "not on this machine"}


def one(measure, **fields):
    texts = dict.fromkeys(("source", "link", "claim", "setup"), "text")
    return Claim(name="one", measure=measure, **{**texts, **fields})


def test_every_record_is_complete():
    assert len(CLAIMS) >= 16
    assert sum(not claim.training for claim in CLAIMS.values()) >= 10
    assert any(claim.training for claim in CLAIMS.values())
    for name, claim in CLAIMS.items():
        assert claim.name == name and re.fullmatch("[a-z0-9-]+", name)
        assert re.search(r"(19|20)\d\d", claim.source), name
        assert claim.link.startswith("https://")
        for text in (claim.claim, claim.setup):
            assert text.endswith(".") and len(text) > 40
        assert "  " not in claim.claim + claim.setup + claim.tried


@pytest.mark.parametrize("name", slow_but(CHEAP, list(CLAIMS)))
def test_every_claim_runs_at_toy_size(name):
    result = try_claim(CLAIMS[name], quick=True)
    assert result["verdict"] in VERDICTS and not result["reason"]
    assert result["quantities"]
    for row in result["quantities"]:
        assert row["what"] and row["expected"] and row["seeds"] >= 1
    json.dumps(result, allow_nan=False)


@pytest.mark.slow
def test_a_claim_at_its_real_size():
    assert try_claim(CLAIMS["pennington"])["verdict"] == "reproduced"


# verdicts


def test_an_interval_must_lie_in_the_range():
    values = np.random.default_rng(1).normal(1, 0.1, 50)
    number, low, high = bootstrap(near("x", values, 1, within=0.1))
    assert low < number < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 50**0.5, rel=0.2)
    cases = {
        "reproduced": [near("x", values, 1, within=0.1), between("x", values, 0.5)],
        "not reproduced": [
            near("x", values, 1, within=0.01),  # it holds one, and is not within
            near("x", values, 2, within=0.1),
            between("x", values, high=1.0),
            between("x", [1.0, math.nan]),
            between("x", 1.0, 0, 2, interval=(math.nan, math.nan)),
        ],
    }
    for verdict, quantities in cases.items():
        for quantity in quantities:
            found = try_claim(one(lambda quick, quantity=quantity: [quantity]))
            assert found["verdict"] == verdict, quantity
    both = [cases["reproduced"][0], cases["not reproduced"][0]]
    assert try_claim(one(lambda quick: both))["verdict"] == "not reproduced"


def test_numbers_without_randomness_are_their_own_interval():
    assert bootstrap(near("x", 3.0, 3, within=0)) == (3, 3, 3)
    assert geometric_mean(np.array([1.0, 4.0])) == 2
    assert near("x", 0.0, 0, within=0.5).expected == "± 0.5"
    assert near("x", 0.0, 4, within=0.5, says="2²").expected == "2² = 4 ± 50 %"
    assert between("x", 0.0, 1, 2, says="so").expected == "above 1 and below 2 (so)"


def test_what_cannot_be_tried_says_why():
    def fail(quick):
        raise NotHere("needs 80 GiB.")

    found = try_claim(one(fail))
    assert (found["verdict"], found["reason"]) == (
        "not on this machine",
        "needs 80 GiB.",
    )


def test_a_transformed_tanh_meets_its_four_conditions():
    f = transform_tanh(1.05)
    u, weight = np.polynomial.hermite_e.hermegauss(80)
    weight /= weight.sum()
    value, slope = np.asarray(f(u)), np.asarray(jax.vmap(jax.grad(f))(u))
    assert weight @ value == pytest.approx(0, abs=1e-5)
    assert weight @ value**2 == pytest.approx(1, abs=1e-5)
    assert weight @ slope**2 == pytest.approx(1.05, abs=1e-5)
    assert weight @ (value * slope * u) == pytest.approx(1, abs=1e-5)


# the command


@pytest.fixture
def few(monkeypatch):
    """Three claims that cost nothing, one of each verdict."""

    def fail(quick):
        raise NotHere("needs a GPU.")

    good = one(lambda quick: [near("a | b", 1.0, 1, within=0.1)])
    bad = one(lambda quick: [near("c", [2.0, 3.0], 1, within=0.1)], tried="a cure.")
    made = {
        "good": replace(good, name="good"),
        "bad": replace(bad, name="bad"),
        "far": one(fail, training=True),
    }
    made["far"] = replace(made["far"], name="far")
    monkeypatch.setattr(command, "CLAIMS", made)


@pytest.mark.usefixtures("few")
def test_the_command_tries_and_keeps(tmp_path, capsys):
    file, out = tmp_path / "new" / "run.json", tmp_path / "page"
    assert main(["claims", "--json", str(file), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 reproduced, 1 not reproduced, 0 not on this machine" in printed
    assert "2.5" in printed and "far" not in printed
    run = json.loads(file.read_text())
    assert [claim["name"] for claim in run["claims"]] == ["good", "bad"]
    assert run["versions"]["jax"] and run["date"] and not run["quick"]
    # Those of another run are kept beside them.
    assert main(["claims", "far", "--out", str(out)]) == 0
    assert "1 not on this machine" in capsys.readouterr().out
    (kept,) = out.glob("*.json")
    claims = json.loads(kept.read_text())["claims"]
    assert [claim["name"] for claim in claims] == ["good", "bad", "far"]
    assert all(claim["run"]["date"] for claim in claims)
    page = (out / "README.md").read_text()
    assert "1 of 3 claims reproduced" in page and "a \\| b" in page
    assert "Also tried: a cure." in page
    assert "**not on this machine**: needs a GPU." in page


@pytest.mark.usefixtures("few")
def test_the_command_lists_and_refuses(tmp_path, capsys):
    assert main(["claims", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("good", "bad", "far"))
    for words, message in {
        ("goot",): "claim 'goot': must be one of 'good', 'bad', 'far'. Did you mean",
        ("--json", str(tmp_path)): f"{tmp_path}: cannot be written: ",
        ("--quick", "--out", "x"): "--quick --out x: toy sizes say nothing",
    }.items():
        assert main(["claims", *words]) == 2
        assert capsys.readouterr().err.startswith(f"bench: {message}")


def test_results_are_those_of_the_claims():
    files = list(RESULTS.glob("*.json"))
    assert files and (RESULTS / "README.md").exists()
    for file in files:
        claims = json.loads(file.read_text())["claims"]
        assert {claim["name"] for claim in claims} <= {*CLAIMS}
        for claim in claims:
            assert claim["verdict"] in VERDICTS
            assert claim["setup"] == CLAIMS[claim["name"]].setup, claim["name"]
        newest = max(claim["run"]["date"] for claim in claims)
        assert file.stem.endswith(newest[: len("2026-11")])
    pages = [
        command.write_page(f.stem, json.loads(f.read_text())) for f in sorted(files)
    ]
    assert (RESULTS / "README.md").read_text().endswith("".join(pages))
