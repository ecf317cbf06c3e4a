"""What servers know of a fleet, and what dashboards and queries show of it."""
