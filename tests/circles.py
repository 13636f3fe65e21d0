"""Which module of a package imports which, read from the sources, and its circles."""

import ast


def read_imports(root, package):
    """Returns the modules of the package that each of its modules imports, by name.

    Imports count wherever they stand: in functions, behind conditions, for types alone.
    ``from package.room import name`` is of the module ``package.room.name`` where there
    is one, else of the room's ``__init__``; importing a module does not count as
    importing the rooms around it.

    Args:
      root: the folder that the package lies in.
      package: its name.
    """
    files = {}
    for path in sorted((root / package).rglob("*.py")):
        *rooms, name = path.relative_to(root).with_suffix("").parts
        files[".".join(rooms if name == "__init__" else [*rooms, name])] = path
    return {module: _imports_of(module, files) for module in files}


def _imports_of(module, files):
    room = module if files[module].stem == "__init__" else module.rpartition(".")[0]
    imported = set()
    for node in ast.walk(ast.parse(files[module].read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = room.split(".")[: len(room.split(".")) + 1 - node.level]
            start = [*above, node.module] if node.level else [node.module]
            source = ".".join(filter(None, start))
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                imported.add(inner if inner in files else source)
    return imported & files.keys()


def find_circles(root, package):
    """Returns the circles of imports: groups of modules of which each reaches all.

    Args:
      root: the folder that the package lies in.
      package: its name.

    Returns:
      A sorted list of sorted lists of names; a module that imports itself is one alone.
    """
    imports = read_imports(root, package)
    reached = {module: _reach(module, imports) for module in imports}
    circles = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in imports
        if module in reached[module]
    }
    return [list(circle) for circle in sorted(circles)]


def _reach(module, imports):
    """Returns all modules that a module leads to; itself only along a circle."""
    reached, waiting = set(), [module]
    while waiting:
        found = imports[waiting.pop()] - reached
        reached |= found
        waiting.extend(found)
    return reached
