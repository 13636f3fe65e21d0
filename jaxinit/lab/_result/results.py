"""The results of a comparison as a dictionary of JSON types, and as CSV text."""

import csv
import io
from typing import Any

import numpy as np

from jaxinit._result import plain
from jaxinit.lab._result.answer import answer
from jaxinit.lab._result.outcome import Outcome
from jaxinit.lab._result.statistics import INTERVAL, LEAST_SEEDS, LEVEL
from jaxinit.lab._train._environment import describe_device, read_versions

_BINS = 60


def to_dict(comparison: Outcome) -> dict[str, Any]:
    """Returns everything but the weights; numbers that are not finite become None."""
    s, task = comparison.settings, comparison.task
    specs = [repr(init) for init in s.initializers]
    content = {
        "answer": answer(comparison),
        "ranking": [specs[i] for i in comparison.ranking],
        "table": [row._asdict() for row in comparison.rows()],
        "statistics": {
            "interval": INTERVAL,
            "level": LEVEL,
            "least_seeds": LEAST_SEEDS,
        },
        "task": {
            "name": task.name,
            "kind": task.kind,
            "train_rows": len(task.x_train),
            "validation_rows": 0 if task.x_valid is None else len(task.x_valid),
            "test_rows": len(task.x_test),
            "features": task.x_train.shape[1],
            "outputs": task.outputs,
            "chance_loss": task.chance,
        },
        "settings": {**vars(s), "initializers": specs},
        "interrupted": comparison.interrupted,
        "steps_done": comparison.steps_done,
        "block_end_steps": comparison.steps.tolist(),
        "probe_steps": comparison.probe_steps.tolist(),
        "seconds": comparison.seconds._asdict(),
        "versions": read_versions(),
        "device": describe_device(s.device),
        "initializers": _describe_initializers(comparison),
    }
    readable: dict[str, Any] = plain(content)
    return readable


def to_csv(comparison: Outcome) -> str:
    """Returns the cells, a line for each under a line of names."""
    text = io.StringIO()
    names = ["initializer", *comparison.cells(0)[0]]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for i, init in enumerate(comparison.settings.initializers):
        writer.writerows({"initializer": repr(init), **c} for c in comparison.cells(i))
    return text.getvalue()


def _describe_initializers(comparison: Outcome) -> list[dict[str, Any]]:
    """Returns the numbers of each initializer's cells, and what follows from them."""
    effects, rates = comparison.against_best(), comparison.rates()
    signals = comparison.signals
    health = comparison.health if isinstance(comparison.health, list) else None
    entries = []
    for i, init in enumerate(comparison.settings.initializers):
        curves = [c.tolist() for by_rate in comparison.curves[i] for c in by_rate]
        cells = [
            {**cell, "loss": curve}
            for cell, curve in zip(comparison.cells(i), curves, strict=True)
        ]
        before, after = comparison.kernels(i)
        entry = {
            "initializer": repr(init),
            "forward_stddev": signals and signals.forward[i].tolist(),
            "gradient_stddev": signals and signals.gradient[i].tolist(),
            "weights_before": _count_entries(before),
            "weights_after": _count_entries(after),
            "against_best": {k: e._asdict() for k, e in effects[i].items()},
            "rates_that_train": rates[i]._asdict(),
            "probes": _describe_probes(comparison, i),
            "health": None if health is None else health[i].to_dict(),
            "cells": cells,
        }
        entries.append(entry)
    return entries


def _describe_probes(comparison: Outcome, index: int) -> dict[str, Any]:
    """Returns the numbers of an initializer's probes at its best learning rate.

    # lists of [seeds, moments, layers]
    """
    rate = comparison.best[index]
    forward, gradient, update = (a[index, :, rate] for a in comparison.probes)
    probes = {"update_to_weight": update.tolist()}
    if comparison.signals is not None:
        signals = {"forward_stddev": forward, "gradient_stddev": gradient}
        probes = {k: array.tolist() for k, array in signals.items()} | probes
    return probes


def _count_entries(kernels: list[np.ndarray]) -> dict[str, Any]:
    """Counts the finite entries of all kernels in bins of equal width."""
    entries = np.concatenate([np.zeros(0), *(kernel.ravel() for kernel in kernels)])
    finite = entries[np.isfinite(entries)].astype(float)
    counts, edges = np.zeros(0), np.zeros(0)
    if finite.size and finite.min() == finite.max():  # too narrow a range for bins
        counts, edges = np.array([finite.size]), finite[[0, 0]]
    elif finite.size:
        counts, edges = np.histogram(finite, _BINS)
    return {
        "counts": counts.tolist(),
        "edges": edges.tolist(),
        "not_finite": int(entries.size - finite.size),
    }
