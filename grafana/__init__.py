"""Makes the dashboards: `python -m grafana` writes them, `python -m grafana --check` says whether the committed ones are current."""
