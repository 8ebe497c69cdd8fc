import pytest

# The asserts of helper modules tell as much as those of the tests themselves.
pytest.register_assert_rewrite("tests")
