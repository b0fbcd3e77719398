"""What the tests of every folder share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("parity")  # what it compares is shown, as in a test; before any folder imports it
