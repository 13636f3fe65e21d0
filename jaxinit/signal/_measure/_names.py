"""Names layers by the paths of their weights, or of their modules."""

import dataclasses

from jaxinit.signal._measure.statistics import is_float
from jaxinit.signal._trace.find import Plan
from jaxinit.signal._trace.site import Placed, Product, Site


def name_layers(plan: Plan, paths: list[str]) -> list[Placed]:
    """Names layers by the paths of their weights, and drops tags that repeat a layer.

    A weight that is alone in its module goes by the path of the module. A weight that
    is used twice gives two layers, the second named "path #2".
    """
    parents = {path: path.rpartition("/")[0] for path in paths}
    leaves = {x.leaf for x, _ in plan.all_sites() if isinstance(x, Product)}
    alone = [paths[leaf] for leaf in leaves]
    weighted: list[Placed] = []
    seen: dict[str, int] = {}
    for site, steps in plan.all_sites():
        if not isinstance(site, Product):
            continue
        path = paths[site.leaf]
        siblings = [other for other in alone if parents[other] == parents[path]]
        name = parents[path] if len(siblings) == 1 and parents[path] else path
        seen[name] = seen.get(name, 0) + 1
        weighted.append((_rename(site, name, seen[name]), steps))
    layers = {site.number: (site, steps) for site, steps in weighted}
    taken = {site.path for site, _ in weighted}
    every: list[Placed] = []
    for site, steps in plan.all_sites():
        if isinstance(site, Product):
            every.append(layers[site.number])
        elif site.path not in taken and is_float(site.output.aval.dtype):
            seen[site.path] = seen.get(site.path, 0) + 1
            every.append((_rename(site, site.path, seen[site.path]), steps))
    return every


def _rename(site: Site, name: str, count: int) -> Site:
    unnamed = "(weight)" if isinstance(site, Product) else "(output)"
    path = (name or unnamed) + (f" #{count}" if count > 1 else "")
    return dataclasses.replace(site, path=path)
