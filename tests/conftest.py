"""One thread for every test: small tensors are slower with two, and results must not depend on the machine's cores."""

import torch

torch.set_num_threads(1)
