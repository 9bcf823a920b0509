"""One thread for every test: small tensors are slower with two, and results must not depend on the machine's cores."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def arithmetic_of_solve():
    """As `solve` sets it: no denormals, and one thread, of which libraries that other tests load make two."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)
