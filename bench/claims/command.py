"""The command: ``python -m bench claims [NAME ...] [--training] [--out DIR]``.

Without names it tries all claims that train nothing. With ``--out`` the results go to
``DIR/MACHINE.json``, beside those of earlier runs there, and ``DIR/README.md`` is the
page of them.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.claims import CLAIMS
from bench.claims.claim import Claim, Result, try_claim
from bench.show import machine
from jaxinit.cli import BadInput, Parser

_WIDTH = 160  # columns of a table that no terminal limits
_COLORS = {"reproduced": "green", "not reproduced": "red"}


def main(arguments: Sequence[str]) -> int:
    """Tries claims and prints what came of them.

    Args:
      arguments: the words after ``python -m bench claims``.

    Returns:
      0, also where claims are not reproduced: that is a result.

    Raises:
      BadInput: if a name is unknown, or a file cannot be written.
    """
    options = _build_parser().parse_args(arguments)
    chosen = _choose(options, CLAIMS)
    console = _open_console()
    if options.list:
        console.print(_list_claims(chosen))
        return 0
    if options.quick and options.out is not None:
        rule = "toy sizes say nothing. Leave one of the two out."
        raise BadInput(f"--quick --out {options.out}: {rule}")
    for path in (options.json, options.out and options.out / "README.md"):
        _check_writable(path)
    described, results = machine.describe(), []
    for claim in chosen:
        print(f"bench claims: {claim.name} ...", file=sys.stderr)
        results.append(try_claim(claim, options.quick))
        run = {"quick": options.quick, **described, "claims": results}
        if options.json is not None:  # after each claim: an interrupt loses one
            _write(options.json, run)
        if options.out is not None:
            _keep(options.out, run)
    console.print(build_table(results))
    counts = {verdict: 0 for verdict in (*_COLORS, "not on this machine")}
    for result in results:
        counts[result["verdict"]] += 1
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="bench claims", description="Try claims of papers.")
    add = parser.add_argument
    add("names", metavar="NAME", nargs="*", help="which to try")
    add("--training", action="store_true", help="try those that train networks too")
    add("--list", action="store_true", help="say what they are, and try none")
    add("--json", metavar="FILE", type=Path, help="write the results there")
    add("--out", metavar="DIR", type=Path, help="add the results to a page there")
    add("--quick", action="store_true", help="toy sizes: the verdicts mean nothing")
    return parser


def _choose(options: argparse.Namespace, known: dict[str, Claim]) -> list[Claim]:
    for name in options.names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            rule = f"must be one of {', '.join(map(repr, known))}."
            raise BadInput(f"claim {name!r}: {rule}{hint}")
    if options.names:
        return [known[name] for name in dict.fromkeys(options.names)]
    every = options.training or options.list
    return [claim for claim in known.values() if every or not claim.training]


def _check_writable(path: Path | None) -> None:
    """Checks before minutes of work that their result can be written."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}.") from error


def _write(path: Path, run: dict[str, Any]) -> None:
    text = json.dumps(run, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", "utf-8")


def _keep(directory: Path, run: dict[str, Any]) -> None:
    """Adds results to those of the same machine, and writes the page of all."""
    cpu, cores = run["machine"]["cpu"].lower(), run["machine"]["cores"]
    vendor = next((word for word in ("amd", "intel") if word in cpu), "other")
    name = f"{run['device']['platform']}-{cores}-{vendor}-{run['date'][:7]}"
    path = directory / f"{name}.json"
    # Each claim keeps where and when it was tried.
    stamp = {
        key: run[key] for key in ("date", "commit", "machine", "device", "versions")
    }
    newest = {result["name"]: {**result, "run": stamp} for result in run["claims"]}
    kept = json.loads(path.read_text("utf-8"))["claims"] if path.exists() else []
    by_name = {result["name"]: result for result in kept} | newest
    ordered = [by_name[claim] for claim in CLAIMS if claim in by_name]
    _write(path, {"claims": ordered})
    pages = sorted(directory.glob("*.json"))
    texts = [
        write_page(page.stem, json.loads(page.read_text("utf-8"))) for page in pages
    ]
    (directory / "README.md").write_text(_HEAD + "".join(texts), "utf-8")


_HEAD = """# Claims of papers, tried

What papers on initialization claim, as commands: `python -m bench claims NAME` tries
one, `python -m bench claims --training --out bench/results/claims` tries all and writes
this page. A claim is *reproduced* if the 95 % bootstrap interval over seeds of each of
its numbers lies in the range beside it; one that is not is shown all the same.
"""


def write_page(name: str, run: dict[str, Any]) -> str:
    """Returns the results of a machine as Markdown."""
    claims = run["claims"]
    last = max((claim["run"] for claim in claims), key=lambda run: run["date"])
    where, versions = last["machine"], last["versions"]
    shown = ("python", "jax", "flax", "jaxinit")
    used = ", ".join(f"{key} {versions[key]}" for key in shown if key in versions)
    good = sum(claim["verdict"] == "reproduced" for claim in claims)
    tried = {claim["name"] for claim in claims}
    left = [f"`{name}`" for name in CLAIMS if name not in tried]
    lines = [
        f"\n## {name}\n",
        f"{good} of {len(claims)} claims reproduced; {last['date'][:10]}, "
        f"{where['cpu']}, {where['cores']} cores; {used}."
        + (f" Not tried: {', '.join(left)}." if left else "")
        + "\n",
        "| claim | source | verdict | CPU s |",
        "|---|---|---|---|",
        *(
            f"| [`{c['name']}`](#{c['name']}) | [{c['source']}]({c['link']}) | "
            f"{c['verdict']} | {c['cpu_seconds']:.0f} |"
            for c in claims
        ),
    ]
    for claim in claims:
        lines += ["", *_write_claim(claim)]
    return "\n".join(lines) + "\n"


def _write_claim(claim: Result) -> list[str]:
    lines = [f"### {claim['name']}", "", f"{claim['claim']} ({claim['source']})", ""]
    lines += [f"Setup: {claim['setup']}", ""]
    if claim["tried"]:
        lines += [f"Also tried: {claim['tried']}", ""]
    reason = f": {claim['reason']}" if claim["reason"] else ""
    lines += [f"**{claim['verdict']}**{reason}"]
    if claim["quantities"]:
        lines += ["", "| number | expected | measured | 95 % interval | holds |"]
        lines += ["|---|---|---|---|---|"]
    for row in claim["quantities"]:
        cells = [row["what"], *_write_numbers(row)]
        lines.append(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        )
    return lines


def _write_numbers(row: Result) -> list[str]:
    """Returns a quantity's expected and measured number, interval, and judgment."""
    low, high = map(_spell, row["interval"])
    interval = "–" if low == high else f"{low} to {high}"
    holds = "yes" if row["holds"] else "no"
    return [row["expected"], _spell(row["measured"]), interval, holds]


def _spell(number: float | None) -> str:
    return "not finite" if number is None else f"{number:.4g}"


def build_table(results: list[Result]) -> Any:
    """Returns results as a table for the terminal: a row for each quantity."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Claims of papers", title_justify="left")
    for head in ("claim", "number", "expected", "measured", "95 % interval", "holds"):
        table.add_column(head)
    for result in results:
        color = _COLORS.get(result["verdict"], "yellow")
        verdict = f"[{color}]{result['verdict']}[/]"
        name = f"[bold]{escape(result['name'])}[/]\n{escape(result['source'])}"
        told = escape(result["claim"])
        rows = [[row["what"], *_write_numbers(row)] for row in result["quantities"]]
        table.add_row(f"{name}\n{verdict}", told, escape(result["reason"]))
        for row in rows:
            table.add_row("", *map(escape, row))
        table.add_section()
    return table


def _list_claims(claims: list[Claim]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Claims", title_justify="left")
    for head in ("claim", "source", "it says", "trains"):
        table.add_column(head)
    for claim in claims:
        cells = (claim.name, claim.source, claim.claim)
        table.add_row(*map(escape, cells), "yes" if claim.training else "")
    return table


def _open_console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH)
