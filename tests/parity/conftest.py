"""Object storage in memory, as the tests of checkpoints have it."""

from tests.checkpoint.conftest import in_memory as in_memory
