"""`shortproc-exporter snoop`: prints short processes as they end. `docs/snoop.md` is the manual."""
