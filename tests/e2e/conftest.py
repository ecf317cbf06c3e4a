"""What the tests with a browser share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.browser import Tab, tab


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A page of its own for each module."""
    with tab(tmp_path_factory.mktemp("browser")) as page:
        yield page
