"""What all tests share: the options and marks. Each folder's own conftest has its fixtures."""

import pytest

pytest.register_assert_rewrite("tests.e2e.scenario")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", action="append", default=[], help="only boot this Debian suite (may be repeated)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): what pytest-xdist keeps together")
    config.addinivalue_line("markers", "real: a unit test that may start programs, resolve names and connect")
    config.addinivalue_line("markers", "full_matrix: all releases of MKL, which `make test-mkl` fetches")
    config.addinivalue_line("markers", "suites(*names): the Debian suites that an end-to-end test needs to see")
