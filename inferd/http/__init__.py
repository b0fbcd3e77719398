"""The HTTP side: health and readiness for probes, metrics for Prometheus. No inference passes here."""
