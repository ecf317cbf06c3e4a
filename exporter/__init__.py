"""Prometheus exporter for processes that live too briefly for top, ps and a /proc scan to see."""

__version__ = "0.1.0"
