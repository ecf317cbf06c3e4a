"""`shortproc-exporter snoop`: prints short processes as they exit. `docs/snoop.md` is the manual."""
