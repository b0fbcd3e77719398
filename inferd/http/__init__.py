"""The HTTP side: probes, metrics for Prometheus, the status page, and the protocol over REST."""
