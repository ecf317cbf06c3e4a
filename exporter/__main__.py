from __future__ import annotations

import sys

from exporter import cli
from exporter.process import descriptors, signals


def main() -> None:
    descriptors.open_standard()
    signals.restore_dispositions()
    sys.exit(cli.main(sys.argv[1:]))


if __name__ == "__main__":
    main()
