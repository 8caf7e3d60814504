"""What all tests may use."""

import pytest

pytest.register_assert_rewrite("talon.store.conformance", "support")

pytest_plugins = ["support.aimockserver", "support.browser", "support.postgres"]
