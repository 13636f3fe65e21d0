"""Makes the table of a report, and writes the report as text and as HTML."""

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

import numpy as np

from jaxinit._table import GAP, Column, Table, line, page
from jaxinit._text import number, percent, plural, shape, span, with_error
from jaxinit.signal._judge.findings import Finding, Findings, Layer, over_seeds
from jaxinit.signal._measure.chance import MOST
from jaxinit.signal._report.tree import Row, join_runs, make_rows

_FEW = 4  # weights that a line names


def _show_size(name: str) -> Callable[[Row], str]:
    """Makes cells with a mean over seeds and its error; folded rows show the span."""

    def cell(row: Row) -> str:
        if len(row.layers) == 1:
            (layer,) = row.layers
            return with_error(layer.mean(name), layer.error(name))
        return span(layer.mean(name) for layer in row.layers)

    return cell


def _show_theory(name: str) -> Callable[[Row], str]:
    return lambda row: span(x.predicted[name] for x in row.layers if x.predicted)


def _show_share(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        return span((x.mean(name) for x in row.layers if name in x.forward), percent)

    return cell


def _show_output(row: Row) -> str:
    kinds = {f"{x.kind} {shape(x.shape)}" for x in row.layers}
    times = f"{row.count} × " if row.count > 1 else ""
    return times + (kinds.pop() if len(kinds) == 1 else "module" if kinds else "")


def _show_activation(row: Row) -> str:
    return ", ".join(dict.fromkeys(x.activation for x in row.layers if x.activation))


def _show_update(step: int) -> Callable[[Row], str]:
    """Makes cells with the mean size of a step's update over that of the weight."""

    def cell(row: Row) -> str:
        moved = (x.updates[:, step] for x in row.layers if x.updates is not None)
        return span(over_seeds(ratios)[0] for ratios in moved)

    return cell


def _show_similarity(row: Row) -> str:
    return span((1 - x.mean("distance") for x in row.layers), "{:.3f}".format)


def _show_condition(row: Row) -> str:
    conditions = dict.fromkeys(layer.condition for layer in row.layers)
    return ", ".join([x for x in conditions if x != "healthy"] or conditions)


def mark(condition: str) -> str:
    """Returns the class of a condition."""
    return {"": "", "healthy": "healthy"}.get(condition, "wrong")


_COLUMNS: tuple[Column[Row], ...] = (
    Column("layer", lambda row: GAP * row.depth + row.name, left=True, wraps=True),
    Column("output", _show_output, left=True, rank=3),
    Column("activation", _show_activation, left=True, rank=4),
    Column("signal std", _show_size("std")),
    Column("theory", _show_theory("std"), rank=5),
    Column("gradient std", _show_size("gradient_std")),
    Column("theory", _show_theory("gradient_std"), rank=5),
    Column("zeros", _show_share("activation_zeros"), rank=1),
    Column("dead", _show_share("dead"), rank=7),
    Column("saturated", _show_share("saturated"), rank=6),
    Column("similarity", _show_similarity, rank=2),
    Column("first update", _show_update(0), rank=6),
    Column("last update", _show_update(-1), rank=5),
    Column("condition", _show_condition, left=True, mark=mark),
)


def make_table(
    report: Findings, all_layers: bool = False, width: int | None = None
) -> Table:
    """Makes the table; columns whose cells are all empty are left out.

    So are those that do not fit in the width; a note names them.
    """
    table = Table.of(_COLUMNS, make_rows(report.layers, all_layers))
    filled = [
        place
        for place, column in enumerate(table.columns)
        if any(not column.rank or row[place] not in ("", "–") for row in table.rows)
    ]
    full = table.pick(filled)
    return full if width is None else full.fit(width)


def write_heading(report: Findings) -> str:
    """Returns a line with the outcome and the numbers of layers and seeds."""
    layers = plural(sum(layer.kind != "module" for layer in report.layers), "layer")
    return f"{report.condition}, {layers}, {plural(report.seeds, 'seed')}"


def explain(report: Findings, finding: Finding) -> str:
    """Says which layers a finding is about, and why."""
    first = finding.layers[0] if finding.layers else ""
    if not first or finding.reason.startswith((f"{first}:", f"{first} – ")):
        return finding.reason
    return f"{join_runs(report.layers, finding.layers)}: {finding.reason}"


def summarize(report: Findings) -> Iterator[str]:
    """Yields lines on the model as a whole, findings aside."""
    layers = [layer for layer in report.layers if layer.kind != "module"]
    if report.healthy and layers:
        signal = span(layer.mean("std") for layer in layers)
        gradient = span(layer.mean("gradient_std") for layer in layers)
        yield f"healthy: signal std {signal}, gradient std {gradient}"
        yield from _warn_of_logits(layers)
    if report.jacobian:
        square, largest = (report.jacobian[k] for k in ("mean_square", "largest"))
        yield (
            "singular values of the Jacobian: root mean square "
            f"{with_error(*over_seeds(square**0.5))}, "
            f"largest {with_error(*over_seeds(largest))} "
            f"({plural(len(largest), 'seed')})"
        )
    yield from _tell_training(report)
    for inside in dict.fromkeys(report.unseen.values()):
        paths = [path for path, what in report.unseen.items() if what == inside]
        more = [f"{len(paths) - _FEW} more"] if len(paths) > _FEW else []
        named = ", ".join([*paths[:_FEW], *more])
        yield f"not seen: the layers inside {inside}, with the weights {named}"


def _tell_training(report: Findings) -> Iterator[str]:
    """Says how the loss fell in the steps that were taken, and what they overwrote."""
    if not report.training:
        return
    losses = np.asarray(report.training["loss"], np.float64)
    start, end = (with_error(*over_seeds(losses[:, i])) for i in (0, -1))
    if not np.isfinite(losses[:, -1]).all():
        end = "a number that is not finite"
    line = f"training: the loss goes from {start} to {end} "
    line += f"in {plural(losses.shape[1] - 1, 'step')}"
    if "chance" in report.training:
        line += f", guessing has {number(over_seeds(report.training['chance'])[0])}"
    fell = int((losses[:, -1] < losses[:, 0]).sum())
    yield f"{line}; it fell for {fell} of {plural(len(losses), 'seed')}"
    large = [
        layer.path
        for layer in report.layers
        if layer.updates is not None
        and 1 < over_seeds(layer.updates[:, 0])[0] < math.inf  # zeros leave at once
    ]
    if large:
        paths = join_runs(report.layers, large)
        yield f"the first update is larger than the weights of {paths}"


def _warn_of_logits(layers: Sequence[Layer]) -> Iterator[str]:
    """Says where a loss would start if outputs were logits, if far above chance."""
    for layer in layers:
        if "expected_loss" in layer.forward:
            loss, chance = (layer.mean(f"{x}_loss") for x in ("expected", "chance"))
            if loss > MOST * chance:
                classes = f"{math.exp(chance):.0f} classes"
                yield (
                    f"if the outputs of {layer.path} are logits of {classes}, a cross-"
                    f"entropy starts at {number(loss)}, guessing has {number(chance)}"
                )


def write_text(
    report: Findings, all_layers: bool = False, width: int | None = None
) -> str:
    """Returns a report as text."""
    table = make_table(report, all_layers, width)
    lines = [write_heading(report), *table.lines()]
    lines += [*(note for note, _ in table.notes), ""]
    for finding in report.findings:
        lines += [f"{finding.condition}: {explain(report, finding)}"]
        lines += [f"{GAP}cure: {finding.cure}"]
    return "\n".join([*lines, *summarize(report)])


def write_html(report: Findings) -> str:
    """Returns a report as HTML, for notebooks."""
    findings = "".join(
        f'<dt class="wrong">{escape(finding.condition)}</dt>'
        f"<dd>{escape(explain(report, finding))}<br>"
        f"Cure: <code>{escape(finding.cure)}</code></dd>"
        for finding in report.findings
    )
    return page(
        line(write_heading(report), mark(report.condition)),
        make_table(report).html(),
        f"<dl>{findings}</dl>" if findings else "",
        *map(line, summarize(report)),
    )
