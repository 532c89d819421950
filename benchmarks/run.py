"""All benchmarks without pytest. usage: python benchmarks/run.py [CASE…], where CASE is freeze, exec, kill, …"""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from cases import CASES, Skip
from harness import Build, Table, measure


def main() -> None:
    table = Table()
    with tempfile.TemporaryDirectory() as directory:
        build = Build(Path(directory))
        for name in sys.argv[1:] or CASES:
            make, arguments = CASES[name]
            for chosen in arguments:
                print(name, *chosen, file=sys.stderr)
                try:
                    with closing(make(build, *chosen)) as cases:  # type: ignore[type-var]
                        for case in cases:
                            measure(case)
                            table.add(case)
                except Skip as reason:
                    table.skip(name, str(chosen[0]), str(reason))
    print(table.text())


if __name__ == "__main__":
    main()
