from __future__ import annotations

import pytest

from tests.kernels.kernelrig import Zygote


@pytest.fixture(scope="session")
def zygote():
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture
def rig(zygote):
    with zygote.kernel() as rig:
        yield rig


@pytest.fixture
def client(rig):
    return rig.client
