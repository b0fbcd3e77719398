"""Traces as OpenTelemetry has them. Imported only where tracing is on: the libraries are an extra."""
