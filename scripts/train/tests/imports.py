# SPDX-License-Identifier: Apache-2.0
"""Who imports whom in a package, read from the source; for the tests of both packages."""

import ast
import sys
from pathlib import Path


def graph(package):
    """{module: modules and packages it imports} of a package's directory, names with dots.

    ``from . import x`` counts as importing the module x, or the package where x is no module.
    """
    package = Path(package)
    modules = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    out = {}
    for name, path in modules.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    up = node.level - (path.stem == "__init__")
                    here = name.split(".")[: -up or None]
                    base = ".".join([*here, *base.split(".")] if base else here)
                names = {f"{base}.{alias.name}" for alias in node.names}
                found |= {n if n in modules else base for n in names}
        out[name] = found - {name}
    return out


def circle(imports):
    """The names of a circle of imports, or [] if there is none."""
    done = set()

    def walk(name, path):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done or name not in imports:
            return []
        for other in sorted(imports[name]):
            found = walk(other, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    return next(filter(None, (walk(name, []) for name in sorted(imports))), [])


def outside(imports):
    """Top-level names of what is imported from elsewhere, without the standard library."""
    own = {name.split(".")[0] for name in imports}
    every = {other.split(".")[0] for found in imports.values() for other in found}
    return every - own - set(sys.stdlib_module_names)


def main(trainer, research):
    """Check both packages with Python alone: make test does so without .venv, too."""
    found = {path: graph(path) for path in (trainer, research)}
    problems = [
        f"{path}: a circle of imports: {' -> '.join(c)}"
        for path in found
        if (c := circle(found[path]))
    ]
    if Path(research).name in outside(found[trainer]):
        problems.append(
            f"{trainer} imports {Path(research).name}; only the other way round is allowed"
        )
    return "\n".join(problems)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) or 0)
