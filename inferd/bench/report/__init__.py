"""Shows what a measurement found: on a terminal, as a page, and while it is being made. Measures nothing itself."""

from inferd.bench.report import page, text
from inferd.bench.report.progress import Progress
from inferd.bench.report.stored import load_report

__all__ = ["Progress", "load_report", "page", "text"]
