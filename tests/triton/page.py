"""The table of differences in docs/triton.md, made from the cases: `python -m triton.page` writes it.

A test holds the page against it, and the tests of the cases hold it against both servers.
"""

from __future__ import annotations

from pathlib import Path

from .cases import DIFFERENCES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "triton.md"
BEGIN = "<!-- Written by `make docs` from tests/triton/cases; change them, not this table. -->\n"
END = "<!-- end of the table -->\n"


def table() -> str:
    """All differences as a table of Markdown."""
    lines = ["| What | Triton | inferd | Why |", "|---|---|---|---|"]
    lines += [f"| {one.what} | {one.triton} | {one.inferd} | {one.why} |" for one in DIFFERENCES]
    return "".join(f"{line}\n" for line in lines)


def written(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
