"""The table of a transfer, and what is said below it."""

from jaxinit._table import Column, Table
from jaxinit._text import number, percent, plural
from jaxinit.lab._result.drift import LOST, SLACK
from jaxinit.lab._result.rates import MINUS, RateRow, Transferred
from jaxinit.lab._result.statistics import LEVEL
from jaxinit.lab._show.table import chance, describe_tuning

_MARKS = {"lowest": "≤ ", "highest": "≥ "}
_READING = (
    "The loss is the training loss, averaged over the last {} steps and over seeds; a "
    f"run that diverged counts as {LOST:g} times the loss of chance. The best rate is "
    "where a parabola has its lowest point that fits, in logarithms, the lowest loss, "
    f"its two neighbors, and all losses around it within {100 * SLACK:g} % of it. The "
    "drift is the slope of a line through best rates against "
    "log2 of the size, in brackets with the "
    f"{100 * LEVEL:g} % bootstrap interval over seeds, widened for few seeds."
)


def list_columns(result: Transferred) -> list[Column[RateRow]]:
    """Lists the columns of the table."""
    return [
        Column(
            "parameterization",
            lambda row: row.parameterization,
            left=True,
            wraps=True,
        ),
        Column(result.sweep.varied, lambda row: str(row.size)),
        Column("log2 of best rate", _write_best),
        Column("best rate", lambda row: number(2.0**row.best.exponent), rank=1),
        Column("loss there", lambda row: number(row.best.loss), rank=3),
        Column("at the base's rate", lambda row: number(row.carried), rank=3),
        Column("diverged", lambda row: percent(row.diverged), rank=2),
    ]


def _write_best(row: RateRow) -> str:
    """Writes log2 of the best rate, or how far it is known."""
    if row.best.state == "none":
        return "none trains"
    text = f"{row.best.exponent:.2f}".replace("-", MINUS)
    return _MARKS.get(row.best.state, "") + text


def list_remarks(result: Transferred) -> list[str]:
    """Lists what keeps the results from being whole, and notes of scales."""
    remarks = [*result.list_edges(), *result.sweep.notes]
    if result.interrupted:
        done = f"{len(result.losses)} of {len(result.sweep.experiments)}"
        remarks.insert(0, f"Interrupted: {done} networks were trained to the end.")
    return remarks


def list_facts(result: Transferred) -> list[str]:
    """Lists what was run, a phrase each."""
    sweep, s = result.sweep, result.sweep.settings
    sizes = ", ".join(map(str, sweep.sizes))
    fixed = [
        f"{each} {getattr(s, each)}"
        for each in ("depth", "width")
        if each != sweep.varied and ":" not in s.model
    ]
    rates = f"2^{sweep.exponents[0]:g} to 2^{sweep.exponents[-1]:g}"
    return [
        sweep.task.name,
        ", ".join([s.model, *fixed, f"{sweep.varied}s {sizes}"]),
        f"{s.initializers[0]!r} at the base, {sweep.varied} {sweep.base}",
        f"{describe_tuning(s)}, batch {s.batch_size}, {plural(s.steps, 'step')}",
        f"{plural(s.seeds, 'seed')}, {len(sweep.exponents)} rates from {rates}",
        f"chance: loss {chance(sweep.task, s)}",
    ]


def explain(result: Transferred) -> str:
    """Says how to read the table."""
    return _READING.format(result.last_steps)


def list_notes(result: Transferred) -> list[str]:
    """Lists what is said below the table."""
    facts = "; ".join(list_facts(result))
    return [*list_remarks(result), facts, explain(result)]


def make_table(result: Transferred) -> Table:
    """Makes the table, with the notes below it."""
    notes = [(note, "") for note in list_notes(result)]
    return Table.of(list_columns(result), result.rows, notes)
