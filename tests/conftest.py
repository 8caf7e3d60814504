"""What all tests may use."""

import os

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("talon.store.conformance", "support")

# Products keep their bytecode, as they do where they are installed, whatever this machine says of it: hundreds of them are started,
# and each would spend most of its start on compiling.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How fast a machine makes examples says nothing about what is tested.
settings.register_profile("talon", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("talon")

pytest_plugins = ["support.aimockserver", "support.browser", "support.postgres", "support.tasksemulator"]
