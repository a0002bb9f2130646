"""A host that is certified, and what must not be left behind."""

import gc
import ssl
import threading
from pathlib import Path

import pytest
import trustme

from tests.encoders.fetching.rig import serving


@pytest.fixture(scope="module", autouse=True)
def nothing_leaks():
    """Whatever hosts do, no thread and no descriptor stays behind."""
    gc.collect()
    threads, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    yield
    gc.collect()
    assert threading.active_count() <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


@pytest.fixture(scope="module")
def authority():
    """Certifies the test's hosts."""
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority):
    """Trusts that authority and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@pytest.fixture
async def host(authority):
    """A host by https."""
    async with serving(authority=authority) as found:
        yield found
