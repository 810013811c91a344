"""`make bench`: every measurement, or those named: `make bench ARGS="rest_ping plan"`."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def main(names: list[str]) -> None:
    """Run the measurements called *names*, or all of them."""
    known = sorted(
        each.name for each in pkgutil.iter_modules(benchmarks.__path__) if not each.name.startswith("_")
    )
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(f"no measurement is called {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    for name in names or known:
        print(f"\n## {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


main(sys.argv[1:])
