"""The options of commands that train: the settings of the lab, and its data."""

import argparse
from collections.abc import Callable, Collection
from typing import Any


def add_settings(
    parser: argparse.ArgumentParser, without: Collection[str] = ()
) -> dict[str, Callable[..., Any]]:
    """Adds the options of the settings, all but some, and those of the data.

    Returns:
      The functions that add an option to a group, by the title of the group.
    """
    from jaxinit.lab.command import DATA, OPTIONS, TASKS

    groups = {option.group: None for option in OPTIONS.values()}
    group = {title: parser.add_argument_group(title).add_argument for title in groups}
    for name, option in OPTIONS.items():
        if name in without:
            continue
        several = "; repeatable" if option.repeated else ""
        group[option.group](
            option.flag or f"--{name.replace('_', '-')}",
            dest=name,
            default=argparse.SUPPRESS,
            action="append" if option.repeated else "store",
            type=option.read,
            metavar=option.metavar,
            help=f"{option.help}{several} (default: {option.shown})",
        )
    *others, last = TASKS
    tasks = f"{', '.join(others)} or {last}"
    group[DATA]("--task", help=f"{tasks} (default: {others[0]})")
    group[DATA](
        "--data",
        metavar="FILE.npz",
        help="arrays x and y: integer or string y are classes, float y are real "
        "targets; or a text, FILE.txt, for the next character",
    )
    return group


def take_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings that were given."""
    from jaxinit.lab.command import OPTIONS

    return {name: vars(options)[name] for name in OPTIONS if name in vars(options)}
